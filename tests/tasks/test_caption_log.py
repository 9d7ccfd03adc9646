"""The captions of fixed validation images in the log, in TensorBoard and in Weights & Biases."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import build_objectives
from xgpt_fairseq.tasks.caption_log import CaptionLog

LOGGER = "xgpt_fairseq.tasks.caption_log"


def add(log: CaptionLog, update: int, split: str = "valid") -> None:
    for first in (0, 2):
        ids = [str(first), str(first + 1)]
        log.add(split, update, ids, [f"a <b>dog</b>\n{i} {update}" for i in ids], [f"A person's {i}." for i in ids])


def test_the_same_images_each_time(caplog: pytest.LogCaptureFixture) -> None:
    log = CaptionLog(3, tensorboard_logdir=None, wandb_project=None)
    with caplog.at_level(logging.INFO, LOGGER):
        add(log, 10)
        add(log, 20)
        add(log, 20)  # a dummy batch of fairseq's
    assert caplog.messages == [
        f"captions of 'valid' subset | num_updates {update} | image {image} | a <b>dog</b> {image} {update}"
        for update in (10, 20)
        for image in range(3)
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, LOGGER):
        add(CaptionLog(0, tensorboard_logdir=None, wandb_project=None), 10)
    assert caplog.messages == []


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = CaptionLog(1, tensorboard_logdir=str(tmp_path), wandb_project=None)
    add(log, 10)
    add(log, 20)
    events = EventAccumulator(str(tmp_path / "valid"))
    events.Reload()
    assert events.Tags()["tensors"] == ["captions/0/text_summary"]
    found = [
        (each.step, each.tensor_proto.string_val[0].decode()) for each in events.Tensors("captions/0/text_summary")
    ]
    assert found == [
        (update, f"a &lt;b&gt;dog&lt;/b&gt; 0 {update}\n\n*a person:* A person&#x27;s 0.") for update in (10, 20)
    ]


def test_without_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DataError, match=r'needs tensorboard: pip install "xgpt-fairseq\[tensorboard\]"'):
        CaptionLog(1, tensorboard_logdir=str(tmp_path), wandb_project=None)
    CaptionLog(0, tensorboard_logdir=str(tmp_path), wandb_project=None)


def test_weights_and_biases(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what wandb has of its interface here: `run`, `Table`, `log`."""
    sent: list[tuple[dict[str, Any], int]] = []

    class Table:
        def __init__(self, columns: list[str]) -> None:
            self.rows: list[tuple[Any, ...]] = [tuple(columns)]

        def add_data(self, *row: Any) -> None:
            self.rows.append(row)

    wandb = SimpleNamespace(
        run=object(), Table=Table, Image=lambda pixels: pixels, log=lambda values, step: sent.append((values, step))
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log = CaptionLog(2, tensorboard_logdir=None, wandb_project="mine")
    add(log, 10)
    [(values, step)] = sent
    assert step == 10 and values["valid/captions"].rows == [
        ("update", "image", "photo", "caption", "a person"),
        (10, "0", None, "a <b>dog</b> 0 10", "A person's 0."),
        (10, "1", None, "a <b>dog</b> 1 10", "A person's 1."),
    ]
    wandb.run = None  # fairseq started none
    add(log, 20)
    assert len(sent) == 1


def test_photos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (640, 320), "red").save(tmp_path / "photos" / "COCO_val2014_000000000001.png")
    log = CaptionLog(2, tensorboard_logdir=str(tmp_path / "tb"), wandb_project=None, photos=str(tmp_path / "photos"))
    (tmp_path / "photos" / "0.jpg").write_bytes(b"not a photo")
    log.find_photos("valid", ["3", "2", "1", "0"])
    assert f"{tmp_path / 'photos'}: no photo of 2 of the 4 images of split 'valid'" in caplog.text
    add(log, 10)
    assert "0.jpg: not a readable photo" in caplog.text  # and the training goes on
    add(log, 20)
    events = EventAccumulator(str(tmp_path / "tb" / "valid"))
    events.Reload()
    assert events.Tags()["images"] == ["captions/1"]
    [shown] = events.Images("captions/1")
    assert (shown.step, shown.width, shown.height) == (10, 320, 160)
    with pytest.raises(DataError, match=r"no photo of the 2 images of split 'test', such as 5\.jpg"):
        log.find_photos("test", ["5", "6"])
    with pytest.raises(DataError, match="photos are for --tensorboard-logdir and --wandb-project"):
        CaptionLog(2, tensorboard_logdir=None, wandb_project=None, photos=str(tmp_path))
    sent: list[Any] = []

    class Table:
        def __init__(self, columns: list[str]) -> None:
            self.photos: list[Any] = []

        def add_data(self, update: int, image: str, photo: Any, *texts: str) -> None:
            self.photos.append(photo)

    wandb = SimpleNamespace(run=1, Table=Table, Image=lambda pixels: pixels.shape, log=lambda v, step: sent.append(v))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    log = CaptionLog(2, tensorboard_logdir=None, wandb_project="mine", photos=str(tmp_path / "photos"))
    log.find_photos("valid", ["0", "1"])
    add(log, 10)
    assert sent[0]["valid/captions"].photos == [None, (160, 320, 3)]


def test_photos_are_those_of_the_images_that_are_logged(tiny_data: Path, tmp_path: Path) -> None:
    """Batches come in the order of the store, which is not that of the captions."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory = DataDirectory(tiny_data)
    image_ids = list(directory.references("train").captions)
    for image_id in image_ids:
        Image.new("RGB", (8, 6)).save(tmp_path / f"{image_id}.png")
    dictionary = directory.vocabulary.dictionary
    data = CaptionDataset(
        directory.captions("train"), directory.pairs("train"), directory.regions, build_objectives(["ic"], dictionary),
        split="train", pad=dictionary.pad(), captions_per_image=0, shuffle=False,
    )  # fmt: skip
    batch = data.collater([data[index] for index in range(len(data))])
    arriving = [image_ids[index] for index in batch["id"].tolist()]
    assert set(arriving[:2]) != set(image_ids[:2])
    log = CaptionLog(2, tensorboard_logdir=str(tmp_path / "tb"), wandb_project=None, photos=str(tmp_path))
    log.find_photos("train", image_ids)
    log.add("train", 10, arriving, ["a dog"] * len(arriving), ["a cat"] * len(arriving))
    events = EventAccumulator(str(tmp_path / "tb" / "train"))
    events.Reload()
    assert set(events.Tags()["images"]) == {f"captions/{image_id}" for image_id in arriving[:2]}
