"""The program `xgpt-evaluate` as users run it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.preloaded import python
from xgpt_fairseq.cli.evaluate import main


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [python(), "-m", "xgpt_fairseq.cli.evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.fixture
def files(coco_mini: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The 50 test photos: one human caption as fairseq-generate would write it, and the other four as references."""
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text())["images"]
    images = [image for image in images if image["split"] == "test"]
    annotations = [
        {"id": 10 * image["cocoid"] + number, "image_id": image["cocoid"], "caption": sentence["raw"]}
        for image in images
        for number, sentence in enumerate(image["sentences"][1:])
    ]
    references = tmp_path / "test.references.json"
    references.write_text(
        json.dumps({"images": [{"id": i["cocoid"]} for i in images], "annotations": annotations}), encoding="utf-8"
    )
    # fairseq-generate sorts samples by length: any order.
    lines = [f"D-{index}\t-0.5\t{image['sentences'][0]['raw']}" for index, image in enumerate(images)]
    generated = tmp_path / "generate-test.txt"
    generated.write_text("\n".join(lines[::-1]) + "\n", encoding="utf-8")
    return generated, references


def test_all_of_it(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generated, references = files
    output, results = tmp_path / "scores.json", tmp_path / "results.json"
    # Not METEOR, which takes seconds to start: tests/metrics/test_scores.py has it.
    options = ["--metrics", "bleu,rouge,cider,spice", "--output", output, "--coco-results", results]
    done = evaluate(generated, "--references", references, *options)
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert table[0] == "scores × 100, 50 images"
    names = [re.split(r"  +", line)[0] for line in table[1:]]
    assert names[:6] == ["BLEU@1", "BLEU@2", "BLEU@3", "BLEU@4", "ROUGE-L", "CIDEr"]
    assert len({len(line) for line in table[1:]}) == 1

    report = json.loads(output.read_text())
    assert report["images"] == len(report["per_image"]) == 50
    assert 0.9 < report["scores"]["CIDEr"] < 1.3
    assert f"{100 * report['scores']['CIDEr']:.1f}" == table[6].split()[-1]
    per_image = [values["CIDEr"] for values in report["per_image"].values()]
    assert sum(per_image) / 50 == pytest.approx(report["scores"]["CIDEr"])
    if "SPICE" not in names:
        assert done.stderr.startswith("SPICE left out: ") and done.stderr.count("\n") == 1
        assert f"SPICE left out: {report['left_out']['SPICE']}\n" == done.stderr

    # The captions as COCO results give the same scores.
    assert all(isinstance(record["image_id"], int) for record in json.loads(results.read_text()))
    main([str(results), "--references", str(references), "--metrics", "cider, bleu"])
    printed, said = capsys.readouterr()
    assert printed.splitlines() == [*table[:5], table[6]]
    assert said == ""


def test_nothing_is_overwritten_unasked(files: tuple[Path, Path], tmp_path: Path) -> None:
    generated, references = files
    output = tmp_path / "scores.json"
    output.write_text("precious")
    command = [generated, "--references", references, "--metrics", "rouge", "--output", output]
    refused = evaluate(*command)
    assert refused.returncode == 1
    assert refused.stderr == f"error: {output} exists; give another name or --overwrite\n"
    assert output.read_text() == "precious"
    main([*map(str, command), "--overwrite"])
    assert list(json.loads(output.read_text())["scores"]) == ["ROUGE-L"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "bleu,clip"], "unknown metric 'clip'"),
        (["--spice-jars", "nowhere"], "nowhere: no stanford-corenlp-3.6.0.jar"),
        (["--coco-results", "nowhere/results.json"], "no folder nowhere"),
        (["--references", "nowhere.json"], "nowhere.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_status_1(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(files[0]), "--references", str(files[1]), *arguments])
    assert left.value.code == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.startswith("error: ") and said.count("\n") == 1
    assert message in said


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "xgpt-evaluate OUT/generate-test.txt --references DATA/test.references.json" in shown
    assert "bleu,meteor,rouge,cider,spice" in shown
