"""TSV files of VinVL and Oscar that are broken: one line that names the file, the record, the value and the rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.archives import layouts
from tests.archives.breaking import IMAGES, Fails, matches, with_third
from tests.archives.layouts import made_up
from xgpt_fairseq.cli import import_regions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[:200] + "\n", r"features has \d+ bytes, 440 expected for float32 \(5, 22\): is the"),
        (lambda line: line[:201] + "\n", r"column features is not base64 .*: is the line truncated\?"),
        (lambda line: line[:20] + "\n", r"1 columns, 3 expected: is the line truncated\?"),
        (lambda line: line.replace("\t5\t", "\t6\t"), r"has 440 bytes, 528 expected for float32 \(6, 22\)"),
        (lambda line: line.replace("\t5\t", "\tfive\t"), r"column num_boxes is b'five', a whole number expected"),
        (lambda _: layouts.vinvl_line(made_up(4, width=17)), r"has 460 bytes, 440 expected for float32 \(5, 22\)"),
    ],
)
def test_lines_of_vinvl(change: Callable[[str], str], message: str, tmp_path: Path, fails: Fails) -> None:
    layouts.write_lines(tmp_path / "features.tsv", with_third(layouts.vinvl_line, change))
    matches(fails(tmp_path / "features.tsv"), rf"^/features\.tsv, line 3: .*{message}")


def test_features_that_end_in_something_else(tmp_path: Path, fails: Fails) -> None:
    """2048 wide, say, without box values."""
    plain = (f"{image.name}\t{len(image.boxes)}\t{layouts.encoded(image.features)}\n" for image in IMAGES)
    layouts.write_lines(tmp_path / "features.tsv", plain)
    error = fails(tmp_path / "features.tsv")
    matches(error, r"line 1: region 0: the last 6 values of its feature are \[.*\]; x1 y1 x2 y2 and width and height")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[:150] + "\n", r"column 2 is not JSON \(Unterminated string .*\): is the line truncated\?"),
        (lambda line: line.replace('"num_boxes"', '"number"'), r"the JSON has no num_boxes"),
        (lambda line: line.replace('"num_boxes": 5', '"num_boxes": 5.5'), r"column num_boxes is 5\.5, a whole number"),
        (lambda line: line.replace('"num_boxes": 5', '"num_boxes": 4'), r"column features has 440 bytes, 352 expected"),
        (lambda line: line.split("\t")[0] + "\t[]\n", r"the JSON has no num_boxes and no features"),
        (lambda line: line.split('"features"')[0] + '"features": 7}\n', r"column features is not base64"),
    ],
)
def test_lines_of_oscar(change: Callable[[str], str], message: str, tmp_path: Path, fails: Fails) -> None:
    layouts.write_lines(tmp_path / "test.feature.tsv", with_third(layouts.vinvl_json_line, change))
    matches(fails(tmp_path), rf"^/test\.feature\.tsv, line 3: {message}")


def changed(line: str, **values: Any) -> str:
    name, value = line.split("\t")
    return f"{name}\t{json.dumps(json.loads(value) | values)}\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: changed(line, objects=json.loads(line.split("\t")[1])["objects"][1:]), r"4 objects for 5 f"),
        (lambda line: changed(line, objects=json.loads(line.split("\t")[1])["objects"][::-1]), r"another order\?"),
        (lambda line: changed(line, image_w=320), r"object \d is at \[.*\] in an image of 320 x 480 pixels; the"),
        (lambda line: line.replace('"conf"', '"confidence"'), r"an object without class, conf and rect .*\('conf'\)"),
        (lambda line: changed(line, objects=3), r"an image id and JSON with a list of objects expected"),
        (lambda line: line[:100] + "\n", r"column 2 is not JSON"),
        (lambda line: changed(line, image_h="tall"), r"column image_h is 'tall', a whole number expected"),
    ],
)
def test_predictions_of_vinvl(change: Callable[[str], str], message: str, tmp_path: Path, fails: Fails) -> None:
    layouts.write_vinvl(tmp_path, IMAGES)
    layouts.write_lines(tmp_path / "predictions.tsv", with_third(layouts.prediction_line, change))
    error = fails(tmp_path)
    matches(error, rf"^/predictions\.tsv, line 3: .*{message}")
    matches(error, r"\(Without predictions\.tsv, features\.tsv is imported without sizes, labels and scores\.\)")


def test_predictions_of_other_images(tmp_path: Path, fails: Fails) -> None:
    layouts.write_vinvl(tmp_path, IMAGES)
    layouts.write_lines(tmp_path / "predictions.tsv", map(layouts.prediction_line, [*IMAGES[3:], *IMAGES[:3]]))
    matches(
        fails(tmp_path), r"line 1: /predictions\.tsv has no image COCO_val2014_0+2, or|line 4: /predictions\.tsv has"
    )


def test_predictions_may_have_more_images(call_program: Callable[..., Any], tmp_path: Path) -> None:
    layouts.write_vinvl(tmp_path / "a", IMAGES)
    layouts.write_lines(tmp_path / "a" / "predictions.tsv", map(layouts.prediction_line, [made_up(1), *IMAGES]))
    assert call_program(import_regions.main, tmp_path / "a", "--output", tmp_path / "store").status == 0


def test_a_download_that_was_cut_between_lines(tmp_path: Path, fails: Fails) -> None:
    layouts.write_vinvl(tmp_path, IMAGES)
    file = tmp_path / "features.tsv"
    data = file.read_bytes()
    file.write_bytes(data[: data[:-1].rindex(b"\n") + 1])
    error = fails(tmp_path)
    matches(
        error, r"^/features\.tsv has \d+ bytes; by features\.lineidx its last line begins at byte \d+, which does not"
    )
    file.write_bytes(data)
    (tmp_path / "features.lineidx").write_text("0\n7\n")
    matches(fails(tmp_path), r"its last line begins at byte 7, which does not fit")
    (tmp_path / "features.lineidx").write_text("")
    matches(fails(tmp_path), r"features\.lineidx its last line begins at byte -1, which does not fit")


def test_a_first_line_of_vinvl(tmp_path: Path, fails: Fails) -> None:
    file = tmp_path / "features.tsv"
    for text, message in (
        ("1\t2\t3\t4\n", r"4 columns; expected are image_id, num_boxes, features, or image_id and JSON with num_boxes"),
        ("1\t5\tAAAA\n", r"column features has 3 bytes, not a whole number of float32 for each of 5 boxes"),
        (
            "1\t1\t" + layouts.encoded(np.ones(6, dtype=np.float32)) + "\n",
            r"features are 6 wide; more than the 6 values",
        ),
    ):
        file.write_text(text)
        matches(fails(file, "--format", "vinvl-tsv"), rf"^/features\.tsv, line 1: {message}")


def test_files_of_different_columns(tmp_path: Path, fails: Fails) -> None:
    layouts.write_vinvl(tmp_path, IMAGES)
    layouts.write_oscar(tmp_path, IMAGES)
    matches(fails(tmp_path), r"/test\.feature\.tsv: other columns than in /features\.tsv: import them one by one")


# vlp-h5
