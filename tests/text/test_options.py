"""Options of the programs that read text: those of captions do what they do where captions are prepared."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.conceptual_captions import image_id_by_crc32
from xgpt_fairseq.captions.registry import read_captions
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.text.options import add_text_inputs, text_inputs
from xgpt_fairseq.text.readers import sentences


def learned(*words: object) -> list[str]:
    parser = argparse.ArgumentParser()
    add_text_inputs(parser)
    return list(sentences(*text_inputs(parser.parse_args(["--input", *map(str, words)]))))


def test_images_are_named_as_in_preparation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Or captions of images that preparation holds out would be learned."""
    path = tmp_path / "cc.tsv"
    path.write_text("".join(f"caption {n}\thttp://x.org/{n}.jpg\n" for n in range(40)))
    options = CaptionOptions(hold_out={"valid": 0.4}, image_id_of_url=image_id_by_crc32)
    images = list(read_captions(path, options=options))
    train = [caption.text for image in images if image.split == "train" for caption in image.captions]
    assert 0 < len(train) < 40
    hint = "if another --image-ids is given to xgpt-prepare-captions, give it here, too"
    assert learned(path, "--hold-out", "val=0.4", "--image-ids", "crc32") == train
    assert hint not in capsys.readouterr().err
    assert learned(path, "--hold-out", "val=0.4") != train
    assert hint in capsys.readouterr().err
    (tmp_path / "text.txt").write_text("A line.\n")
    with pytest.raises(DataError, match="--image-ids is for cc-tsv files, and no --input is one"):
        learned(tmp_path / "text.txt", "--image-ids", "crc32")


@pytest.mark.parametrize("option", ["--hold-out=val=0.1", "--columns=caption=words", "--answers=all", "--split-files"])
def test_options_of_captions_need_captions(tmp_path: Path, option: str) -> None:
    (tmp_path / "text.txt").write_text("A line.\n")
    (tmp_path / "list.txt").write_text("1.jpg\n")
    words = [f"train={tmp_path / 'list.txt'}"] if option == "--split-files" else []
    with pytest.raises(DataError, match=rf"{option.split('=')[0]} is for captions, and no --input has captions"):
        learned(tmp_path / "text.txt", option, *words)


@pytest.mark.parametrize("option", ["--columns=split=fold", "--answers=first"])
def test_options_that_would_do_nothing_for_json(tmp_path: Path, option: str) -> None:
    images = [{"filename": "1.jpg", "fold": "test", "split": "train", "sentences": [{"raw": "A dog."}]}]
    (tmp_path / "dataset.json").write_text(json.dumps(images))
    assert learned(tmp_path / "dataset.json") == ["A dog."]
    with pytest.raises(DataError, match=r"split=fold would do nothing for .*karpathy|--answers is for conversations"):
        learned(tmp_path / "dataset.json", option)


def test_a_file_of_two_formats(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A cat."}]
    (tmp_path / "train.json").write_text(json.dumps([{"image": "1.jpg", "text": "A dog.", "conversations": turns}]))
    (tmp_path / "text.txt").write_text("A line.\n")
    with pytest.raises(DataError, match="can be read as json-records and conversations: say which by --format"):
        learned(tmp_path / "train.json")
    for name, caption in (("json-records", "A dog."), ("conversations", "A cat.")):
        assert learned(tmp_path / "train.json", tmp_path / "text.txt", "--format", name) == [caption, "A line."]


def test_captions_under_keys_of_an_object_that_columns_name(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(
        json.dumps({"1.jpg": {"description": "A dog."}, "2.jpg": {"description": "x"}})
    )
    assert learned(tmp_path / "train.json", "--columns", "caption=description") == ["A dog.", "x"]
