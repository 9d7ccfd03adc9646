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
    assert table[0] == "scores × 100, 50 images, 50 different captions"
    names = [re.split(r"  +", line)[0] for line in table[1:]]
    assert names[:6] == ["BLEU@1", "BLEU@2", "BLEU@3", "BLEU@4", "ROUGE-L", "CIDEr"]
    assert len({len(line) for line in table[1:]}) == 1

    report = json.loads(output.read_text())
    assert report["images"] == report["different_captions"] == len(report["per_image"]) == 50
    assert 8 < report["words"] < 14 and report["degenerate"]["bad_ends"] == 0
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


def test_several_files_are_scored_as_each_alone(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated, references = files
    same = tmp_path / "same.txt"
    same.write_text(re.sub(r"(?m)\t[^\t]*$", "\ta man on a street on a", generated.read_text(encoding="utf-8")))
    options = ["--references", str(references), "--metrics", "bleu,cider"]
    alone = []
    for file in (generated, same):
        main(["--output", str(file.with_suffix(".alone")), str(file), *options])
        alone.append(f"{file}\n{capsys.readouterr().out}")
    outputs = [str(tmp_path / name) for name in ("a.json", "b.json")]
    main([str(generated), str(same), *options, "--output", outputs[0], "--output", outputs[1]])
    printed, said = capsys.readouterr()
    assert printed == "".join(alone)
    assert said.splitlines() == [
        "warning: 50 of 50 images have the same caption: 'a man on a street on a'",
        "warning: 100 % of the captions have two successive words twice, 2 % of the references",
        'warning: 100 % of the captions end in "a", "of" and the like, 0 % of the references',
    ]
    shares = [json.loads(Path(output).read_text())["degenerate"] for output in outputs]
    assert shares[0]["bad_ends"] < 0.1 and shares[1] == {"repeats": 1.0, "bad_ends": 1.0}
    for file, output in zip((generated, same), outputs, strict=True):
        assert Path(output).read_text() == file.with_suffix(".alone").read_text()

    for paths, message in (
        (outputs[:1], f"--output {outputs[0]}: 1 file for the scores of 2 files with captions; name one for each"),
        (outputs[:1] * 2, f"{outputs[0]} is named twice: each --output and --coco-results needs a file of its own"),
    ):
        with pytest.raises(SystemExit):
            asked = [part for path in paths for part in ("--output", path)]
            main([str(generated), str(same), *options, "--overwrite", *asked])
        assert capsys.readouterr().err == f"error: {message}\n"


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
        (["--output", "PLACE/s.json", "--coco-results", "PLACE/../PLACENAME/s.json"], "/s.json is named twice"),
        (["--output", "PLACE/test.references.json", "--overwrite"], "test.references.json is read, too; name another"),
        (["--coco-results", "PLACE/generate-test.txt", "--overwrite"], "generate-test.txt is read, too; name another"),
        (["--references", "nowhere.json"], "nowhere.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_status_1(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        place = files[0].parent
        filled = [text.replace("PLACENAME", place.name).replace("PLACE", str(place)) for text in arguments]
        main([str(files[0]), "--references", str(files[1]), *filled])
    assert left.value.code == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.startswith("error: ") and said.count("\n") == 1
    assert message in said


def score(tmp_path: Path, captions: list[str], references: list[list[str]], *options: str) -> list[str]:
    """The arguments of xgpt-evaluate, for images 0, 1, …"""
    annotations = [
        {"image_id": image, "caption": text} for image, of_image in enumerate(references) for text in of_image
    ]
    content = {"images": [{"id": image} for image in range(len(references))], "annotations": annotations}
    (tmp_path / "test.references.json").write_text(json.dumps(content))
    (tmp_path / "captions.json").write_text(json.dumps(dict(enumerate(captions))))
    return [str(tmp_path / "captions.json"), "--references", str(tmp_path / "test.references.json"), *options]


def test_metrics_by_the_names_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(score(tmp_path, ["a dog", "a cat"], [["a dog"], ["two cats"]], "--metrics", "CIDEr, BLEU@4,rouge-l"))
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == ["BLEU@4", "ROUGE-L", "CIDEr"]


CHINESE = [["一只棕色的狗在草地上奔跑。"], ["两个孩子在海边玩耍。"], ["一个男人骑着自行车。"]]
SAID = ["一只狗在草地上跑", "两个孩子在玩", "男人骑自行车"]


def cider(capsys: pytest.CaptureFixture[str]) -> tuple[float, str]:
    printed, said = capsys.readouterr()
    return float(printed.splitlines()[-1].split()[-1]), said


def test_chinese_is_scored_by_characters_and_a_warning_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(score(tmp_path, SAID, CHINESE, "--metrics", "cider"))
    value, said = cider(capsys)
    assert value == 0 and "warning: the captions have no spaces between words" in said and "--segment char" in said
    main(score(tmp_path, SAID, CHINESE, "--metrics", "cider", "--segment", "char"))
    value, said = cider(capsys)
    assert value > 50 and said == ""
    # the same as captions whose characters are words already
    spaced = [[" ".join(text.strip("。")) for text in of_image] for of_image in CHINESE]
    main(score(tmp_path, [" ".join(text) for text in SAID], spaced, "--metrics", "cider"))
    assert cider(capsys) == (value, "")


def test_blank_captions_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = [[f"a thing {number}"] for number in range(3)]
    main(score(tmp_path, ["a thing 0", " ", ""], references, "--metrics", "cider"))
    assert "warning: 2 images (1, 2) of 3 with a blank caption, scored as such\n" in capsys.readouterr().err


def test_one_caption_of_many_images_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = [[f"a thing {number}"] for number in range(20)]
    main(score(tmp_path, ["a man", "a man", *map(str, range(18))], references, "--metrics", "cider"))
    printed, said = capsys.readouterr()
    assert "warning: 2 of 20 images have the same caption: 'a man'" in said
    assert printed.startswith("scores × 100, 20 images, 19 different captions\n")
    main(score(tmp_path, ["a man", *map(str, range(19))], references, "--metrics", "cider"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("references", "message"),
    [([["a dog"]], "CIDEr of a single image is 0"), ([["a", "b"], ["b", "a"]], "all images have the same references")],
)
def test_cider_that_is_0_by_definition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], references: list[list[str]], message: str
) -> None:
    main(score(tmp_path, ["a dog", "b"][: len(references)], references, "--metrics", "cider"))
    value, said = cider(capsys)
    assert value == 0 and f"warning: {message}" in said
    main(score(tmp_path, ["a dog", "b"][: len(references)], references, "--metrics", "rouge"))
    assert capsys.readouterr().err == ""


def test_references_of_a_source_with_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"image": f"photos/{number}.jpg", "caption": f"a thing {number}", "split": "test" if number < 3 else "train"}
        for number in range(6)
    ]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "mine.txt").write_text("".join(f"{number}.jpg\ta thing {number}\n" for number in range(3)))
    command = [str(tmp_path / "mine.txt"), "--references", str(tmp_path / "all.jsonl"), "--metrics", "BLEU@1"]
    with pytest.raises(SystemExit):
        main(command)
    assert "has images of splits test, train: say which by --split" in capsys.readouterr().err
    main([*command, "--split", "test"])
    assert capsys.readouterr().out == "scores × 100, 3 images, 3 different captions\nBLEU@1    100.0\n"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "xgpt-evaluate OUT/generate-test.txt --references DATA/test.references.json" in shown
    assert "bleu,meteor,rouge,cider,spice" in shown


def test_columns_are_of_the_file_that_has_them(tmp_path: Path, call_program) -> None:
    """References in a table with names of its own, and captions by name; then the other way round."""
    captions = {f"{n}.jpg": f"a dog runs on {word} grass" for n, word in enumerate(["green", "dry", "wet"])}
    table, names = tmp_path / "table.csv", tmp_path / "names.json"
    table.write_text("photo,words\n" + "".join(f"{name},{text}\n" for name, text in captions.items()))
    names.write_text(json.dumps({name: [text] for name, text in captions.items()}))
    columns = ["--columns", "image=photo,caption=words"]
    for captioned, references in ((names, table), (table, names)):
        done = call_program(main, captioned, "--references", references, "--metrics", "cider", *columns)
        assert done.status == 0, done.stderr
        assert "1000.0" in done.stdout


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--columns", "caption=tokens", "--columns caption=tokens would do nothing for "),
        ("--answers", "all", "--answers is for conversations, and no file has any"),
        ("--image-ids", "crc32", "--image-ids is for cc-tsv files, and no file is one"),
    ],
)
def test_options_of_captions_that_would_do_nothing(
    tmp_path: Path, files: tuple[Path, Path], call_program, option: str, value: str, message: str
) -> None:
    images = [{"cocoid": 1, "filename": "1.jpg", "split": "test", "sentences": [{"raw": "A dog."}]}]
    references = tmp_path / "dataset.json"
    references.write_text(json.dumps({"images": images}))
    done = call_program(main, files[0], "--references", references, option, value)
    assert done.status == 1 and message in done.error
