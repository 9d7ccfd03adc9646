"""Scores of a split against pycocoevalcap's classes called directly; SPICE's command with a stand-in for Java."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

from tests.preloaded import python
from xgpt_fairseq.captions.references import References
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics import scores as metrics
from xgpt_fairseq.metrics.java import find_java
from xgpt_fairseq.metrics.ptb import ptb_tokenize
from xgpt_fairseq.metrics.scores import SPICE_JARS, score_captions, score_systems, spice_command

NO_JAVA_METRICS = ("bleu", "rouge", "cider")


@pytest.fixture(scope="module")
def humans(coco_mini: Path) -> tuple[dict[str, str], References]:
    """On the 50 test photos: the first human caption, and the other four as references."""
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text())["images"]
    raw = {str(i["cocoid"]): [s["raw"] for s in i["sentences"]] for i in images if i["split"] == "test"}
    references = References(Path("test.references.json"), {key: captions[1:] for key, captions in raw.items()})
    return {key: captions[0] for key, captions in raw.items()}, references


def test_the_same_as_pycocoevalcap(humans: tuple[dict[str, str], References], monkeypatch: pytest.MonkeyPatch) -> None:
    captions, references = humans
    started: list[Meteor] = []

    def start() -> Meteor:
        started.append(Meteor())
        return started[0]

    # METEOR takes seconds to start: the one that score_systems starts for both is asked again below.
    monkeypatch.setattr(metrics, "Meteor", start)
    names = ["meteor", "cider", "rouge", "bleu"]
    others = {key: of_image[1] for key, of_image in references.captions.items()}
    scores, of_others = score_systems([captions, others], references, names)
    assert len(started) == 1
    assert of_others.corpus["METEOR"] == pytest.approx(1) and of_others.corpus["CIDEr"] > scores.corpus["CIDEr"]
    lines = iter(ptb_tokenize([caption for of_image in references.captions.values() for caption in of_image]))
    truth = {key: [next(lines) for _ in of_image] for key, of_image in references.captions.items()}
    lines = iter(ptb_tokenize([captions[key] for key in truth]))
    generated = {key: [next(lines)] for key in truth}

    bleu, bleu_per_image = Bleu(4).compute_score(truth, generated, verbose=0)
    expected = {f"BLEU@{n}": (bleu[n - 1], bleu_per_image[n - 1]) for n in (1, 2, 3, 4)}
    expected |= {
        "METEOR": started[0].compute_score(truth, generated),
        "ROUGE-L": Rouge().compute_score(truth, generated),
    }
    expected |= {"CIDEr": Cider().compute_score(truth, generated)}

    assert list(scores.corpus) == list(expected)
    assert list(scores.per_image) == list(references.captions)
    for name, (corpus, per_image) in expected.items():
        assert scores.corpus[name] == pytest.approx(corpus, abs=1e-12)
        assert [values[name] for values in scores.per_image.values()] == pytest.approx(list(per_image), abs=1e-12)
        assert type(scores.corpus[name]) is float
    assert scores.left_out == {}
    # One human against the other four, as published for COCO: CIDEr about 1, METEOR about 0.25.
    assert 0.9 < scores.corpus["CIDEr"] < 1.3
    assert 0.2 < scores.corpus["METEOR"] < 0.3


def test_perfect_and_random_captions(humans: tuple[dict[str, str], References]) -> None:
    captions, references = humans
    copied = {key: of_image[0] for key, of_image in references.captions.items()}
    perfect = score_captions(copied, references, NO_JAVA_METRICS).corpus
    for name in ("BLEU@1", "BLEU@4", "ROUGE-L"):
        assert perfect[name] == pytest.approx(1)
    values = list(captions.values())
    random.Random(0).shuffle(values)
    shuffled = score_captions(dict(zip(captions, values, strict=True)), references, NO_JAVA_METRICS).corpus
    human = score_captions(captions, references, NO_JAVA_METRICS).corpus
    assert perfect["CIDEr"] > human["CIDEr"] > 5 * shuffled["CIDEr"]

    alone = References(Path("r"), {key: [caption] for key, caption in captions.items()})
    assert score_captions(captions, alone, ["cider"]).corpus["CIDEr"] == pytest.approx(10)


def test_wrong_input(humans: tuple[dict[str, str], References]) -> None:
    captions, references = humans
    with pytest.raises(DataError, match="unknown metric 'clip'; choose from bleu, meteor"):
        score_captions(captions, references, ["bleu", "clip"])
    with pytest.raises(DataError, match=r"not those of the 50 images in test\.references\.json"):
        score_captions({}, references, ["bleu"])
    with pytest.raises(DataError, match="no caption has a word"):
        score_captions({"1": "a dog"}, References(Path("r"), {"1": ["..."]}), ["cider"])


# What a stand-in for Java starts with: *special* is the argument that it handles itself; the rest the real Java does.
STAND_IN = """\
#!{python}
import json, os, sys
if sys.argv[1:] == ["-version"]:
    sys.exit('openjdk version "{version}"')
if {special!r} not in sys.argv:
    os.execv({java!r}, [{java!r}, *sys.argv[1:]])
{script}
"""

RECORD = """\
read, write = sys.argv[sys.argv.index("edu.anu.spice.SpiceScorer") + 1], sys.argv[sys.argv.index("-out") + 1]
records = json.load(open(read))
json.dump([sys.argv, records], open({recorded!r}, "w"))
scores = [{{"image_id": r["image_id"], "scores": {{"All": {{"f": len(r["test"]) / 100}}}}}} for r in records]
json.dump(scores[::-1], open(write, "w"))
"""

DOGS = References(Path("r"), {"7": ["A dog runs.", "A brown dog."], "42": ["Ein Hündchen"]})
CAPTIONS = {"42": "A cat!", "7": "The dog"}


def stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, special: str, script: str, version: str = "11.0.2"
) -> None:
    """Make `find_java` find a program in *folder* that does *script* in place of *special*."""
    text = STAND_IN.format(
        python=sys.executable, version=version, special=special, java=str(find_java()), script=script
    )
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(text)
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(folder))


def jar(path: Path, members: Mapping[str, str] | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (members or {"META-INF/MANIFEST.MF": ""}).items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    """A folder with CoreNLP's two jars, as far as their names go."""
    for name in SPICE_JARS:
        jar(tmp_path / "jars" / name)
    return tmp_path / "jars"


def test_spice_command(jars: Path) -> None:
    jar(jars / "stanford-corenlp-3.6.0-sources.jar")
    rhino = jar(jars / "rhino-1.7.14.jar")
    command = spice_command(Path("/java"), jars, Path("/in.json"), Path("/out.json"))
    assert command[:3] == ["/java", "-Xmx8G", "-cp"]
    assert command[4:] == ["edu.anu.spice.SpiceScorer", "/in.json", "-out", "/out.json", "-silent"]
    classpath = [Path(entry) for entry in command[3].split(os.pathsep)]
    assert classpath[0].name == "spice-1.0.jar"
    assert classpath[-3:] == [jars / SPICE_JARS[0], jars / SPICE_JARS[1], rhino]
    assert all(entry.is_file() for entry in classpath)
    assert {"SceneGraphParser-1.0.jar", "Meteor-1.5.jar"} <= {entry.name for entry in classpath}


def test_spice_runs_and_its_scores_are_read(jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = tmp_path / "recorded.json"
    script = RECORD.format(recorded=str(recorded))
    stand_in(tmp_path, monkeypatch, special="edu.anu.spice.SpiceScorer", script=script)
    scores = score_captions(CAPTIONS, DOGS, ["spice"], spice_jars=jars)
    assert scores.per_image == {"7": {"SPICE": 0.07}, "42": {"SPICE": 0.05}}
    assert scores.corpus == {"SPICE": pytest.approx(0.06)}
    assert scores.left_out == {}

    argv, records = json.loads(recorded.read_text())
    assert "-cache" not in argv
    assert records == [
        {"image_id": "7", "test": "the dog", "refs": ["a dog runs", "a brown dog"]},
        {"image_id": "42", "test": "a cat", "refs": ["ein hündchen"]},
    ]
    assert not Path(argv[argv.index("-out") + 1]).parent.exists()


def test_jars_in_pycocoevalcaps_folder_are_found(jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jars.rename(tmp_path / "lib")
    monkeypatch.setattr(metrics, "SPICE_FOLDER", tmp_path)
    script = RECORD.format(recorded=str(tmp_path / "recorded.json"))
    stand_in(tmp_path, monkeypatch, special="edu.anu.spice.SpiceScorer", script=script)
    assert score_captions(CAPTIONS, DOGS, ["spice"]).corpus == {"SPICE": pytest.approx(0.06)}


def test_without_the_jars_one_line_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SPICE_FOLDER", tmp_path)
    scores = score_captions(CAPTIONS, DOGS, ["spice", "bleu"])
    assert "BLEU@4" in scores.corpus and "SPICE" not in scores.corpus
    reason = scores.left_out["SPICE"]
    assert "\n" not in reason
    for part in (SPICE_JARS[0], "stanford-corenlp-full-2015-12-09.zip", "nlp.stanford.edu", "3.6.0", "--spice-jars"):
        assert part in reason


def test_a_given_folder_must_hold_whole_jars(jars: Path) -> None:
    (jars / SPICE_JARS[1]).write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match=r"3\.6\.0-models\.jar: not a whole jar"):
        score_captions(CAPTIONS, DOGS, ["spice"], spice_jars=jars)
    (jars / SPICE_JARS[1]).unlink()
    with pytest.raises(DataError, match=r"no stanford-corenlp-3\.6\.0-models\.jar"):
        score_captions(CAPTIONS, DOGS, ["spice"], spice_jars=jars)


def test_spice_needs_a_javascript_engine(jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = RECORD.format(recorded=str(tmp_path / "recorded.json"))
    stand_in(tmp_path, monkeypatch, special="edu.anu.spice.SpiceScorer", script=script, version="17.0.1")
    reason = score_captions(CAPTIONS, DOGS, ["spice"], spice_jars=jars).left_out["SPICE"]
    assert "Java 8 to 14" in reason and "is Java 17" in reason and "rhino-engine" in reason

    jar(jars / "rhino-engine-1.7.14.jar", {"META-INF/services/javax.script.ScriptEngineFactory": "org.mozilla"})
    assert score_captions(CAPTIONS, DOGS, ["spice"], spice_jars=jars).corpus == {"SPICE": pytest.approx(0.06)}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sys.exit('Error: Could not score\\njava.lang.OutOfMemoryError\\n\\tat x')", "status 1 .*OutOfMemoryError$"),
        ("", "left no scores that can be read"),
        ("open(sys.argv[-2], 'w').write('[{}]')", r"left no scores that can be read \(KeyError"),
    ],
)
def test_a_failure_of_spice_is_told(
    jars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    stand_in(tmp_path, monkeypatch, special="edu.anu.spice.SpiceScorer", script=script)
    scores = score_captions(CAPTIONS, DOGS, ["spice", "rouge"], spice_jars=jars)
    assert list(scores.corpus) == ["ROUGE-L"]
    assert re.search(reason, scores.left_out["SPICE"])
    assert "\n" not in scores.left_out["SPICE"]


def test_a_failure_of_meteor_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "sys.exit('Could not reserve enough space for 2097152KB object heap')"
    stand_in(tmp_path, monkeypatch, special="meteor-1.5.jar", script=script)
    before = os.environ["PATH"]
    with pytest.raises(DataError, match=r"METEOR failed .*: Could not reserve enough space"):
        score_captions(CAPTIONS, DOGS, ["meteor"])
    assert os.environ["PATH"] == before


INTERRUPTED = """
from pathlib import Path
from xgpt_fairseq.captions.references import References
from xgpt_fairseq.cli import run
from xgpt_fairseq.metrics.scores import score_captions

references = References(Path("references.json"), {"1": ["a dog"]})
run(lambda: print(score_captions({"1": "a cat"}, references, ["meteor"], tokenize=list)))
"""


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_meteor_and_the_program(tmp_path: Path, how: signal.Signals, status: int) -> None:
    """pycocoevalcap's lock is held while Java computes, and its destructor waits for it."""
    java, pid = tmp_path / "bin" / "java", tmp_path / "pid"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\nread line\necho $$ > {pid}.aside\nmv {pid}.aside {pid}\nexec sleep 600\n")
    java.chmod(0o755)
    environment = {**os.environ, "JAVA_HOME": str(tmp_path)}
    command = [python(), "-c", INTERRUPTED]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 100
        while not pid.exists():
            assert process.poll() is None and time.monotonic() < until, "Java was not asked"
            time.sleep(0.02)
        process.send_signal(how)
        assert process.wait(timeout=20) == status
    finally:
        process.kill()
        _, said = process.communicate()
    assert said == ("interrupted\n" if how == signal.SIGINT else "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_results_are_asked_for_by_name(humans: tuple[dict[str, str], References]) -> None:
    captions, references = humans
    scores = score_captions(captions, references, ["CIDEr", "bleu@4", "Rouge-L"])
    assert list(scores.corpus) == ["BLEU@4", "ROUGE-L", "CIDEr"]
    all_of_it = score_captions(captions, references, NO_JAVA_METRICS)
    assert scores.corpus == {name: all_of_it.corpus[name] for name in scores.corpus}
    assert [list(values) for values in scores.per_image.values()] == [list(scores.corpus)] * len(captions)
    with pytest.raises(DataError, match=r"unknown metric 'BLEU@5'; choose from bleu, .*BLEU@4"):
        score_captions(captions, references, ["BLEU@5"])


def test_words_of_chinese(tmp_path: Path) -> None:
    """By characters, it is what pycocoevalcap gives captions whose characters are words."""
    truth = {"1": ["一只狗。", "狗在跑"], "2": ["两个孩子"], "3": ["一辆车"]}
    said = {"1": "一只狗在跑", "2": "孩子", "3": "车"}
    scores = score_captions(said, References(tmp_path, truth), ["cider", "bleu"], segmentation="char")
    spaced = {key: [" ".join(text.strip("。")) for text in texts] for key, texts in truth.items()}
    generated = {key: [" ".join(text)] for key, text in said.items()}
    assert scores.corpus["CIDEr"] == pytest.approx(Cider().compute_score(spaced, generated)[0], abs=1e-12)
    assert scores.corpus["BLEU@2"] == pytest.approx(Bleu(4).compute_score(spaced, generated, verbose=0)[0][1])
    assert score_captions(said, References(tmp_path, truth), ["cider"]).corpus["CIDEr"] == 0
