"""The captions of a folder of photos are found, in every layout that is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.layouts import COUNT, LAYOUTS, Layout, make
from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.discovery import discover
from xgpt_fairseq.captions.registry import open_source, read_sources
from xgpt_fairseq.errors import DataError

# Which columns mean what, only a person can say.
NOT_FOUND = {"own_csv"}
# Their splits are in files besides that of the captions.
SPLITS_ELSEWHERE = {"token_file", "flickr8k_cn"}


def found_in(folder: Path) -> tuple[list[str], dict[str, Counter[str]]]:
    """The arguments, and split → its captions, of what they name."""
    arguments = discover(folder)
    files = arguments[: arguments.index("--hold-out")] if "--hold-out" in arguments else arguments
    sources = [open_source(Path(file)) for file in files]
    options = CaptionOptions(unknown_split="all", is_only_source=len(sources) == 1)
    captions: dict[str, Counter[str]] = {}
    for image in read_sources(sources, options):
        texts = [" ".join(caption.text.split()) for caption in image.captions]
        captions.setdefault(image.split, Counter()).update(texts)
    return arguments, captions


@pytest.mark.parametrize(
    "layout", [layout for layout in LAYOUTS if layout.__name__ not in NOT_FOUND], ids=lambda layout: layout.__name__
)
def test_a_layout(layout: Callable[[Layout], None], tmp_path: Path) -> None:
    made = make(layout, tmp_path / "data")
    arguments, captions = found_in(made.folder)
    expected = {
        {"val": "valid"}.get(split, split): Counter(text for texts in photos.values() for text in texts)
        for split, photos in made.expected.items()
    }
    if layout.__name__ in SPLITS_ELSEWHERE:
        expected = {"all": sum(expected.values(), Counter())}
    captions = {split: texts for split, texts in captions.items() if texts}
    if list(expected) == ["all"]:
        assert sum(captions.values(), Counter()) == expected["all"]
    else:
        assert captions == expected
    assert (arguments[-2:] == ["--hold-out", "val=0.1"]) == ("valid" not in captions)


def test_columns_of_ones_own_must_be_named(tmp_path: Path) -> None:
    own_csv = next(layout for layout in LAYOUTS if layout.__name__ == "own_csv")
    with pytest.raises(DataError, match=r"holds no captions of a known format: neither a file such as captions\.csv"):
        discover(make(own_csv, tmp_path / "data").folder)


def test_files_that_are_not_one_data_set(tmp_path: Path) -> None:
    rows = "image,caption\n" + "".join(f"{number}.jpg,photo {number} shows a cat\n" for number in range(COUNT))
    for name in ("ann.csv", "bob.csv"):
        (tmp_path / name).write_text(rows)
    with pytest.raises(DataError, match=r"several files of captions: ann\.csv, bob\.csv; say which are to be read"):
        discover(tmp_path)
    (tmp_path / "ann.csv").rename(tmp_path / "train.csv")
    (tmp_path / "val").mkdir()
    (tmp_path / "bob.csv").rename(tmp_path / "val" / "captions.csv")
    assert discover(tmp_path) == [str(tmp_path / "train.csv"), str(tmp_path / "val" / "captions.csv")]
    (tmp_path / "val" / "captions.csv").rename(tmp_path / "training.csv")
    with pytest.raises(DataError, match=r"train\.csv, training\.csv; say which"):
        discover(tmp_path)


def test_no_folder_and_no_captions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is not a folder"):
        discover(tmp_path / "nothing")
    (tmp_path / "names.txt").write_text("".join(f"{number}.jpg\n" for number in range(COUNT)))
    with pytest.raises(DataError, match="holds no captions of a known format"):
        discover(tmp_path)
