"""The readers of foreign bytes: for each a small valid input, made by code, and what reads all of it.

A reader here is what the programs call, and it checks what is let in: that is finite and inside the format's rules.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import math
import os
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.archives.layouts import LAYOUTS, made_up, write_npz_dir, write_sizes
from tests.captions.test_arrow import ROWS, parquet, save_to_disk
from tests.captions.test_formats import SAMPLES, put
from tests.fuzz.photo_targets import picture, read_photos, save_photo, write_photo, write_table
from tests.regions.stores import write_store
from tests.tars import write_tar

FILES = Path(__file__).parent.parent / "earlier_files"
TEXT = "A red cat sits.\nEin „Bär“ am See – 浴室.\n\nTwo dogs & a <unk> horse.\n"
PHOTO_FORMATS = {"jpg": {}, "png": {}, "gif": {}, "bmp": {}, "webp": {}, "tif": {}, "ppm": {}, "jp2": {}, "avif": {}}


class Target(NamedTuple):
    """A reader: *write* puts its input into an empty folder, *read* reads that and writes, if anything, to the second.

    Attributes:
        share: of all mutations, in relation to others.
    """

    write: Callable[[Path], object]
    read: Callable[[Path, Path], object]
    share: float = 1.0


def targets() -> dict[str, Target]:
    """All of them by name."""
    found = {f"archive {name}": Target(partial(_write_archive, name), _read_archive) for name in LAYOUTS}
    found["archive npz-dir without boxes"] = Target(_write_alone, partial(_read_archive, boxes="none"))
    found |= {f"captions {name}": Target(partial(_write_captions, name), _read_captions, 0.7) for name in SAMPLES}
    found["captions parquet"] = Target(lambda folder: parquet(folder / "train.parquet", ROWS), _read_captions)
    found["captions hf-datasets"] = Target(lambda folder: save_to_disk(folder / "data", ROWS), _read_captions)
    found["captions folder"] = Target(_write_folder, _read_captions)
    found["captions tar"] = Target(_write_tar, _read_captions)
    found |= {f"text{end}": Target(partial(_write_text, end), _read_text, 0.5) for end in ("", ".gz", ".bz2", ".xz")}
    found["detections"] = Target(_write_detections, _read_detections)
    found["sizes"] = Target(_write_sizes, _read_sizes, 0.5)
    found |= {f"photo {end}": Target(partial(write_photo, end), read_photos, 0.5) for end in PHOTO_FORMATS}
    found["photos in a tar"] = Target(_write_tar, read_photos)
    found["photos in a table"] = Target(write_table, read_photos)
    found["vocabulary subword-nmt"] = Target(partial(_copy, "vocabulary"), _read_vocabulary, 2)
    found["vocabulary sentencepiece"] = Target(_write_sentencepiece, _read_vocabulary, 2)
    found["store"] = Target(lambda folder: write_store(folder / "store"), _read_store, 3)
    found["directory of captions"] = Target(_write_directory, _read_directory, 3)
    found["directory of text"] = Target(partial(_copy, "text"), _read_text_directory, 2)
    found["checkpoint"] = Target(partial(_copy, "xgpt_caption.pt"), _read_checkpoint, 2)
    found["bundle"] = Target(partial(_copy, "bundle"), _read_bundle, 2)
    found["weights"] = Target(_write_weights, _read_weights, 0.5)
    found["generations"] = Target(partial(_write_generations, "generate-test.txt"), _read_generations)
    found["results"] = Target(partial(_write_generations, "results.json"), _read_generations)
    found["references"] = Target(partial(_write_generations, "results.json"), _read_references, 0.5)
    found["training log"] = Target(_write_log, _read_log, 0.5)
    return found


def _copy(name: str, folder: Path) -> None:
    source = FILES / name
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)


def _finite(values: Any, low: float = -math.inf, high: float = math.inf) -> None:
    values = np.asarray(values, dtype=np.float64)
    assert np.isfinite(values).all() and (values >= low).all() and (values <= high).all(), values


# Archives, by the program that imports them


@cache
def _images() -> list[Any]:
    return [made_up(number, width=8, size=(640, 480)) for number in (2, 3, 4)]


def _write_archive(layout: str, folder: Path) -> None:
    LAYOUTS[layout].write(folder / "archive", _images())
    write_sizes(folder / "sizes.json", _images())


def _write_alone(folder: Path) -> None:
    write_npz_dir(folder / "archive", _images())
    shutil.rmtree(folder / "archive" / "box")


def _read_archive(folder: Path, output: Path, boxes: str = "auto") -> None:
    from xgpt_fairseq.cli.import_regions import import_regions, parse_arguments
    from xgpt_fairseq.regions.verify import verify

    found = [path for path in folder.glob("archive*") if not path.name.endswith("-lock")]
    archive = min(found, default=folder / "taken away")
    sizes = folder / "sizes.json"
    options = ["--sizes", str(sizes)] if sizes.exists() else []
    import_regions(parse_arguments([str(archive), "--output", str(output / "store"), "--boxes", boxes, *options]))
    verify(output / "store")


# Captions and text


def _write_captions(name: str, folder: Path) -> None:
    put(folder, *SAMPLES[name])


def _write_folder(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / "data" / split).mkdir(parents=True)
        for name, text in (("a", "A dog.\nTwo dogs.\n"), ("b", '{"caption": "A bird."}')):
            save_photo(folder / "data" / split / f"{name}.jpg")
            put(folder / "data" / split, f"{name}.{'json' if text.startswith('{') else 'txt'}", text)


def _write_tar(folder: Path) -> None:
    photo = io.BytesIO()
    picture().save(photo, "JPEG")
    files = {
        "1.jpg": photo.getvalue(),
        "1.txt": "A dog.",
        "2.jpg": photo.getvalue(),
        "2.json": '{"caption": "Ein Bär"}',
    }
    write_tar(folder / "train.tar", files)


def _read_captions(folder: Path, _: Path) -> None:
    from xgpt_fairseq.captions.base import CaptionOptions
    from xgpt_fairseq.captions.registry import read_captions

    path = next(folder.iterdir(), folder / "taken away")
    seen = set()
    for image in read_captions(path, "auto", CaptionOptions(unknown_split="train")):
        assert image.image_id and image.image_id not in seen
        seen.add(image.image_id)
        for caption in image.captions:
            caption.text.encode()
            assert caption.text.strip() and "\0" not in caption.text


def _write_text(ending: str, folder: Path) -> None:
    compress = {"": bytes, ".gz": partial(gzip.compress, mtime=0), ".bz2": bz2.compress, ".xz": lzma.compress}[ending]
    (folder / f"text.txt{ending}").write_bytes(compress(TEXT.encode()))


def _read_text(folder: Path, _: Path) -> None:
    from xgpt_fairseq.text.readers import sentences

    for sentence in sentences(list(folder.iterdir())):
        sentence.encode()


# Detections and sizes of photos


def _write_detections(folder: Path) -> None:
    records = [
        {"image_id": 42 + n // 2, "category_id": n, "bbox": [1.5, 2, 10 * n, 7], "score": 0.25 * n} for n in range(4)
    ]
    put(folder, "detections.json", json.dumps(records))


def _read_detections(folder: Path, _: Path) -> None:
    from xgpt_fairseq.vision.detections import Detections

    found = Detections(folder / "detections.json", ["42", "43"], 3)
    for image_id in ("42", "43"):
        _finite(found.of(image_id).scores, 0, 1)
        _finite(found.normalised(image_id, (64, 48)), 0, 1)


def _write_sizes(folder: Path) -> None:
    write_sizes(folder / "sizes.json", _images())


def _read_sizes(folder: Path, _: Path) -> None:
    from xgpt_fairseq.cli.import_regions import load_sizes

    for size in load_sizes([folder / "sizes.json"]).values():
        _finite(size, 1, 2**31)


# Vocabularies, stores, directories


@cache
def _sentencepiece() -> bytes:
    import sentencepiece

    model = io.BytesIO()
    lines = [line for line in TEXT.lower().split("\n") if line] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=60, minloglevel=2,
        hard_vocab_limit=False, bos_id=-1, eos_id=-1, num_threads=1,
    )  # fmt: skip
    return model.getvalue()


def _write_sentencepiece(folder: Path) -> None:
    _copy("vocabulary", folder)
    (folder / "vocabulary" / "bpe.codes").unlink()
    (folder / "vocabulary" / "bpe.model").write_bytes(_sentencepiece())
    description = {"version": 1, "bpe": "sentencepiece", "symbols": 60}
    put(folder / "vocabulary", "vocabulary.json", json.dumps(description))


def _use(vocabulary: Any) -> None:
    ids = vocabulary.encode_ids("A red cat & <mask> Bär 浴 @@ http://x.org")
    _finite(ids, 0, len(vocabulary.dictionary) - 1)
    vocabulary.decode(vocabulary.dictionary.string(ids)).encode()
    assert vocabulary.suppressed_symbols


def _read_vocabulary(folder: Path, _: Path) -> None:
    from xgpt_fairseq.text.vocabulary import Vocabulary

    _use(Vocabulary(folder / "vocabulary"))


def _use_store(store: Any, *, sound: bool = False) -> None:
    for index in range(len(store)):
        store.image_id(index).encode()
        assert store.features(index).shape == (store.region_count(index), store.feature_dim)
        assert store.boxes(index).shape == (store.region_count(index), 4)
        store.scores(index), store.labels(index), store.size(index), store.folder_parts(index)
        assert store.image_index(store.image_id(index)) == index or not sound
        if sound:
            _finite(store.features(index))
            _finite(store.boxes(index), 0, 1)


def _read_store(folder: Path, _: Path) -> None:
    """Reading what training reads, which checks headers and sizes; and `verify`, which checks every byte."""
    from xgpt_fairseq.errors import DataError
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.regions.verify import verify

    with contextlib.suppress(DataError):
        _use_store(RegionStore(folder / "store"))
    _use_store(verify(folder / "store"), sound=True)


def _write_directory(folder: Path) -> None:
    _copy("captions", folder)
    _copy("regions", folder / "captions")


def _read_directory(folder: Path, _: Path) -> None:
    from xgpt_fairseq.data.directory import DataDirectory

    directory = DataDirectory(folder / "captions")
    words = len(directory.vocabulary.dictionary)
    for split in ("train", "valid", "test"):
        captions, pairs = directory.captions(split), directory.pairs(split)
        assert len(captions) == len(pairs)
        _finite(pairs, 0, len(directory.regions) - 1)
        for index in range(len(captions)):
            _finite(captions[index], 0, words - 1)
        for texts in directory.references(split).captions.values():
            "".join(texts).encode()
    _use_store(directory.regions)


def _read_text_directory(folder: Path, _: Path) -> None:
    from xgpt_fairseq.data.directory import TextDirectory

    directory = TextDirectory(folder / "text")
    words = len(directory.vocabulary.dictionary)
    for split in ("train", "valid"):
        sentences = directory.sentences(split)
        for index in range(len(sentences)):
            _finite(sentences[index], 0, words - 1)


# Models


def _read_checkpoint(folder: Path, _: Path) -> None:
    from xgpt_fairseq.bundle import Bundle

    captioner = Bundle.of_checkpoint(folder / "xgpt_caption.pt", _data_of_checkpoint())
    for tensor in captioner.model.state_dict().values():
        assert tensor.isfinite().all()


@cache
def _data_of_checkpoint() -> Path:
    """Its data directory, beside its store, where the folder of earlier files has both."""
    return FILES / "captions"


def _read_bundle(folder: Path, _: Path) -> None:
    from xgpt_fairseq.bundle import Bundle

    bundle = Bundle.read(folder / "bundle")
    _use(bundle.vocabulary)
    for tensor in bundle.model.state_dict().values():
        assert tensor.isfinite().all()


def _write_weights(folder: Path) -> None:
    import safetensors.numpy
    import torch

    values = {"one": np.ones((3, 2), np.float32), "two": np.zeros(4, np.float16)}
    safetensors.numpy.save_file(values, folder / "weights.safetensors", {"layer": "2"})
    torch.save({name: torch.from_numpy(value) for name, value in values.items()}, folder / "weights.pt")


def _read_weights(folder: Path, _: Path) -> None:
    from xgpt_fairseq.vision.packing import load_tensors, packed_metadata

    for name in ("weights.safetensors", "weights.pt"):
        load_tensors("network", folder / name)
    packed_metadata(folder / "weights.safetensors")


# What programs wrote, and people changed


def _write_generations(name: str, folder: Path) -> None:
    ids = json.loads((FILES / "captions" / "test.references.json").read_text())["images"]
    shutil.copyfile(FILES / "captions" / "test.references.json", folder / "test.references.json")
    if name.endswith(".txt"):
        lines = [
            f"T-{n}\ta green dog sleeps in a field .\nH-{n}\t-0.5\ta c@@ at\nD-{n}\t-0.5\ta cat\nP-{n}\t-0.1\n"
            for n in range(len(ids))
        ]
        put(folder, name, "2026-01-01 00:00:00 | INFO | x | loading\n" + "".join(lines))
    else:
        put(folder, name, json.dumps([{"image_id": image["id"], "caption": "a cat"} for image in ids]))


def _read_generations(folder: Path, _: Path) -> None:
    from xgpt_fairseq.captions.generated import read_captions
    from xgpt_fairseq.captions.references import read_references

    references = read_references(folder / "test.references.json")
    others = [path for path in folder.iterdir() if path.name != "test.references.json"]
    path = next(iter(others), folder / "taken away")
    captions = read_captions(path, references)
    assert list(captions) == list(references.captions)
    "".join(captions.values()).encode()


def _read_references(folder: Path, _: Path) -> None:
    from xgpt_fairseq.captions.references import find_references

    for texts in find_references(folder / "test.references.json").captions.values():
        "".join(texts).encode()


def _write_log(folder: Path) -> None:
    put(
        folder,
        "train.log",
        "epoch 002:     14 / 136 loss=17.2, ic_nll_loss=9.409, num_updates=150, lr=0.00015\n"
        "epoch 002 | valid on 'valid' subset | loss 4.1 | cider 0.31 | num_updates 272\n"
        '{"epoch": 2, "valid_loss": "4.1", "valid_cider": "0.31", "valid_num_updates": "272"}\n'
        '{"epoch": 2, "train_loss": "5.2", "train_num_updates": "272"}\n',
    )


def _read_log(folder: Path, _: Path) -> None:
    from xgpt_fairseq.pages.training_log import read_training_log

    assert read_training_log(folder / "train.log").last_update >= 0


def prepare() -> None:
    """Import and make everything that all mutations share, so that what is measured is theirs."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own reserves a gigabyte at its start
    _sentencepiece()
