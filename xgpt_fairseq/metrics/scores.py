"""COCO's caption metrics over a whole split: pycocoevalcap's numbers, without its downloads and temporary files."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pycocoevalcap import spice
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

from xgpt_fairseq.captions.references import References
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.java import find_java, java_first_in_path, java_version, last_stderr_lines
from xgpt_fairseq.metrics.names import METRICS, VALUES
from xgpt_fairseq.metrics.ptb import ptb_tokenize
from xgpt_fairseq.metrics.segmentation import segment

SPICE_FOLDER = Path(spice.__file__).parent
SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")

# Image id → tokenized captions, the input of pycocoevalcap's scorers.
Tokenized = Mapping[str, list[str]]
Tokenize = Callable[[Sequence[str]], list[str]]
# Name → the corpus's value, and one per image in the order of the references.
Values = dict[str, tuple[float, Sequence[float]]]


@dataclass(frozen=True)
class Scores:
    """The scores of a system's captions.

    Attributes:
        corpus: metric (`BLEU@1` … `BLEU@4`, `METEOR`, `ROUGE-L`, `CIDEr`, `SPICE`) → value on pycocoevalcap's scale:
            0 to 1, CIDEr 0 to 10. Papers print 100 times that.
        per_image: image id → metric → value.
        left_out: metric → why it could not be computed, in one line.
    """

    corpus: dict[str, float]
    per_image: dict[str, dict[str, float]]
    left_out: dict[str, str]


class SpiceUnavailable(Exception):
    """SPICE cannot run here; the message says in one line why, and what would help."""


def score_captions(
    captions: Mapping[str, str],
    references: References,
    metrics: Sequence[str] = METRICS,
    *,
    spice_jars: Path | None = None,
    segmentation: str = "none",
    tokenize: Tokenize | None = None,
) -> Scores:
    """Score *captions*, one per image of *references*, as `score_systems` does several."""
    (scores,) = score_systems(
        [captions], references, metrics, spice_jars=spice_jars, segmentation=segmentation, tokenize=tokenize
    )
    return scores


def score_systems(
    systems: Sequence[Mapping[str, str]],
    references: References,
    metrics: Sequence[str] = METRICS,
    *,
    spice_jars: Path | None = None,
    segmentation: str = "none",
    tokenize: Tokenize | None = None,
) -> list[Scores]:
    """Score the captions of several systems, each as if it were scored alone; Java is started once for all.

    Args:
        systems: for each, image id → caption, as `read_captions` gives them.
        metrics: some of `METRICS`, or names of the results, such as `BLEU@4`, in capital letters or small ones. SPICE
            is left out, with the reason, where it cannot run.
        spice_jars: the folder of `SPICE_JARS`, if not pycocoevalcap's own.
        segmentation: `char` or `jieba`: how captions are cut into words in place of PTB tokenization (`segment`).
        tokenize: what tokenizes in place of `ptb_tokenize`: a `PtbTokenizer` that several calls share.

    Raises:
        DataError: unknown metric, captions of other images, no Java, METEOR failed, *spice_jars* lacks a jar, or jieba
            is not installed.
    """
    wanted = _wanted(metrics)
    for captions in systems:
        if captions.keys() != references.captions.keys():
            raise DataError(f"the captions are not those of the {len(references.captions)} images in {references.path}")
    if spice_jars is not None:
        check_spice_jars(spice_jars)
    if segmentation != "none":
        tokenize = partial(segment, by=segmentation)

    raw = [{image_id: [captions[image_id]] for image_id in references.captions} for captions in systems]
    truth, *generated = _tokenized([references.captions, *raw], tokenize or ptb_tokenize)
    if not any(caption for of_image in truth.values() for caption in of_image):
        raise DataError(f"{references.path}: no caption has a word")

    values: list[Values] = [{} for _ in systems]
    left_out: list[dict[str, str]] = [{} for _ in systems]
    for metric in METRICS:
        if wanted.isdisjoint(VALUES[metric]):
            continue
        if metric == "spice":
            for number, captions_of_system in enumerate(generated):
                try:
                    values[number] |= _spice(truth, captions_of_system, spice_jars)
                except SpiceUnavailable as reason:
                    left_out[number]["SPICE"] = str(reason)
        else:
            for number, found in enumerate(_SCORERS[metric](truth, generated)):
                values[number] |= found
    return [
        _scores({name: value for name, value in each.items() if name in wanted}, truth, reasons)
        for each, reasons in zip(values, left_out, strict=True)
    ]


def _scores(values: Values, truth: Tokenized, left_out: dict[str, str]) -> Scores:
    return Scores(
        corpus={name: float(corpus) for name, (corpus, _) in values.items()},
        per_image={
            image_id: {name: float(per_image[position]) for name, (_, per_image) in values.items()}
            for position, image_id in enumerate(truth)
        },
        left_out=left_out,
    )


def _wanted(metrics: Sequence[str]) -> set[str]:
    """The names of the results that *metrics* asks for."""
    known = {name: VALUES[name] for name in METRICS}
    known |= {name.lower(): (name,) for names in VALUES.values() for name in names if name.lower() not in known}
    wanted: set[str] = set()
    for metric in metrics:
        if metric.lower() not in known:
            raise DataError(
                f"unknown metric {metric!r}; choose from {', '.join(METRICS)}, or by the names of the results: "
                f"{', '.join(name for names in VALUES.values() for name in names)}"
            )
        wanted.update(known[metric.lower()])
    return wanted


def check_spice_jars(folder: Path) -> None:
    """Check that *folder* has both of `SPICE_JARS`, complete.

    Raises:
        DataError: one is missing or truncated by an interrupted download.
    """
    for name in SPICE_JARS:
        if not (folder / name).is_file():
            raise DataError(f"{folder}: no {name}, which SPICE needs; {_WHERE_FROM}")
        if not zipfile.is_zipfile(folder / name):
            raise DataError(f"{folder / name}: not a whole jar; {_WHERE_FROM}")


def spice_command(java: Path, spice_jars: Path, read: Path, write: Path) -> list[str]:
    """The command that scores the captions in *read* and writes the scores to *write*, both JSON.

    SPICE's `-cache` is off: its serializer needs JVM internals that are closed since Java 16, and it only saves time if
    the same references are scored again.
    """
    command = [str(java), "-Xmx8G", "-cp", os.pathsep.join(map(str, _classpath(spice_jars)))]
    return [*command, "edu.anu.spice.SpiceScorer", str(read), "-out", str(write), "-silent"]


_WHERE_FROM = (
    "both jars are in stanford-corenlp-full-2015-12-09.zip (nlp.stanford.edu/software) and on Maven Central as "
    'edu.stanford.nlp:stanford-corenlp:3.6.0, without classifier and with classifier "models"'
)

_SERVICE = "META-INF/services/javax.script.ScriptEngineFactory"


def _tokenized(sources: Sequence[Mapping[str, list[str]]], tokenize: Tokenize) -> list[dict[str, list[str]]]:
    lines = iter(tokenize([caption for source in sources for of_image in source.values() for caption in of_image]))
    return [
        {image_id: list(itertools.islice(lines, len(of_image))) for image_id, of_image in source.items()}
        for source in sources
    ]


def _bleu(truth: Tokenized, systems: Sequence[Tokenized]) -> Iterator[Values]:
    for generated in systems:
        corpus, per_image = Bleu(4).compute_score(truth, generated, verbose=0)
        yield {f"BLEU@{n}": (corpus[n - 1], per_image[n - 1]) for n in (1, 2, 3, 4)}


def _meteor(truth: Tokenized, systems: Sequence[Tokenized]) -> Iterator[Values]:
    with java_first_in_path() as java:
        scorer = Meteor()  # reads its paraphrases for ten seconds
    for generated in systems:
        try:
            found = scorer.compute_score(truth, generated)
        except BaseException as error:
            # compute_score ends with its lock held, also by Ctrl-C, and pycocoevalcap's destructor would wait for it
            # forever.
            if scorer.lock.locked():
                scorer.lock.release()
            scorer.meteor_p.kill()
            if not isinstance(error, (OSError, ValueError)):
                with contextlib.suppress(OSError):  # of what was still to be sent, which the destructor would report
                    scorer.meteor_p.stdin.close()
                scorer.meteor_p.wait()
                raise
            said = scorer.meteor_p.communicate()[1].decode("utf-8", "replace")
            raise DataError(f"METEOR failed ({java}): {last_stderr_lines(said)}") from error
        yield {"METEOR": found}


def _rouge(truth: Tokenized, systems: Sequence[Tokenized]) -> Iterator[Values]:
    for generated in systems:
        yield {"ROUGE-L": Rouge().compute_score(truth, generated)}


def _cider(truth: Tokenized, systems: Sequence[Tokenized]) -> Iterator[Values]:
    for generated in systems:
        yield {"CIDEr": Cider().compute_score(truth, generated)}


_SCORERS: dict[str, Callable[[Tokenized, Sequence[Tokenized]], Iterator[Values]]] = {
    "bleu": _bleu,
    "meteor": _meteor,
    "rouge": _rouge,
    "cider": _cider,
}


def _spice(truth: Tokenized, generated: Tokenized, spice_jars: Path | None) -> Values:
    if spice_jars is None:
        spice_jars = SPICE_FOLDER / "lib"
        try:
            check_spice_jars(spice_jars)
        except DataError as error:
            raise SpiceUnavailable(f"{error}; give their folder with --spice-jars") from None
    java = find_java()
    _check_script_engine(java, spice_jars)
    with tempfile.TemporaryDirectory(prefix="spice-") as folder:
        read, write = Path(folder, "captions.json"), Path(folder, "scores.json")
        # ASCII only (json's default): SPICE reads the file in the platform's encoding.
        records = [{"image_id": key, "test": generated[key][0], "refs": refs} for key, refs in truth.items()]
        read.write_text(json.dumps(records), encoding="ascii")
        run = subprocess.run(spice_command(java, spice_jars, read, write), capture_output=True, check=False)
        said = last_stderr_lines(run.stderr.decode("utf-8", "replace"))
        if run.returncode != 0:
            raise SpiceUnavailable(f"SPICE failed with status {run.returncode} ({java}): {said}")
        try:
            results = json.loads(write.read_text(encoding="utf-8"))
            f_scores = {result["image_id"]: float(result["scores"]["All"]["f"]) for result in results}
            per_image = [f_scores[image_id] for image_id in truth]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpiceUnavailable(f"SPICE left no scores that can be read ({error!r}): {said}") from None
    return {"SPICE": (sum(per_image) / len(per_image), per_image)}


def _classpath(spice_jars: Path) -> list[Path]:
    jars = [SPICE_FOLDER / "spice-1.0.jar", *sorted((SPICE_FOLDER / "lib").glob("*.jar"))]
    jars += [spice_jars / name for name in SPICE_JARS]
    # Not all jars in the folder: CoreNLP's zip has more, of versions that SPICE was not built with.
    jars += sorted(spice_jars.glob("rhino*.jar"))
    return list(dict.fromkeys(jars))


def _check_script_engine(java: Path, spice_jars: Path) -> None:
    """Check that there is a JavaScript engine, with which SPICE formats its results; Java had one until version 14.

    Without one SPICE fails after all the parsing, so this is checked beforehand.
    """
    version = java_version(java)
    if version < 15:
        return
    for jar in _classpath(spice_jars):
        if zipfile.is_zipfile(jar) and _SERVICE in zipfile.ZipFile(jar).namelist():
            return
    raise SpiceUnavailable(
        f"SPICE needs the JavaScript engine of Java 8 to 14, and {java} is Java {version}: "
        "set JAVA_HOME to such a Java, or add rhino-1.7.14.jar and "
        f"rhino-engine-1.7.14.jar (Maven Central, org.mozilla) to {spice_jars}"
    )
