"""What all tests share: where the real data lies, a tiny made-up data set, how to call a program."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Two cores, two test processes: threads of their own would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores Ctrl-C, and so would the programs that tests stop with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.preloaded import share  # noqa: E402
from xgpt_fairseq.cli import run  # noqa: E402
from xgpt_fairseq.regions.novelty import NoveltyDetector  # noqa: E402
from xgpt_fairseq.regions.writer import RegionWriter  # noqa: E402
from xgpt_fairseq.text.vocabulary import learn_vocabulary  # noqa: E402

# No rule here is about time, and the machine may be busy.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")

TEST_DATA = Path(os.environ.get("XGPT_TEST_DATA", ROOT.parent / "shared"))


def pytest_configure(config: pytest.Config) -> None:
    if sys.platform == "linux" and getattr(config.option, "numprocesses", None):  # of pytest-xdist, in its main process
        share()


# What trains through the real programs comes first, the longest test before all, so that no process is left with it
# alone at the end.
LONG = ("test_quickstart.py", "examples", "onnx_export", "end_to_end")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("thorough") and "XGPT_THOROUGH" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="thorough: make test-thorough"))
    items.sort(key=lambda item: next((n for n, part in enumerate(LONG) if part in item.path.parts), len(LONG)))


def pytest_collection_finish() -> None:
    # what was imported and collected stays: no collection of garbage has to look at it again
    gc.collect()
    gc.freeze()


def _real_data(name: str) -> Path:
    path = TEST_DATA / name
    if not path.is_dir():
        pytest.skip(f"real data {name} not found in {TEST_DATA}; set XGPT_TEST_DATA to the folder that holds it")
    return path


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """517 COCO photos: captions, per-image region features of width 1280, boxes."""
    return _real_data("coco_mini")


@pytest.fixture(scope="session")
def coco5k() -> Path:
    """COCO photos with people's captions; those of its split val may be shown."""
    return _real_data("coco5k")


@pytest.fixture(scope="session")
def butd_tsv() -> Path:
    """Five COCO photos with bottom-up-attention features of width 2048 in a TSV."""
    return _real_data("butd_tsv")


class Outcome(NamedTuple):
    """What a program left behind in a terminal."""

    status: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that a user reads when a program fails."""
        *_, last = self.stderr.splitlines()
        assert last.startswith("error: "), self.stderr
        assert "Traceback" not in self.stderr
        return last.removeprefix("error: ")


@pytest.fixture
def call_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """call_program(main, *arguments): run a program in this process, since starting one takes seconds."""

    def call(main: Callable[[], None], *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        status, on_sigterm = 0, signal.getsignal(signal.SIGTERM)
        try:
            run(main)
        except SystemExit as stop:
            assert stop.code is None or isinstance(stop.code, int)
            status = stop.code or 0
        finally:
            # a program's own handler would be there for the pools of later tests, whose workers could then miss SIGTERM
            signal.signal(signal.SIGTERM, on_sigterm)
        return Outcome(status, *capsys.readouterr())

    return call


# A data set of a dozen images, made in a second: (image, split in the source's words, number of captions). The store
# holds the images in another order, and one more that has no caption.
TINY_IMAGES = [
    (500, "train", 5), (7, "val", 5), (123, "train", 5), (42, "train", 3), (99, "test", 5), (8, "train", 6),
    (61, "restval", 5), (3, "train", 5), (77, "val", 5), (1000, "train", 5), (15, "test", 5), (250, "train", 5),
]  # fmt: skip
TINY_FEATURE_DIM = 16


@pytest.fixture(scope="session")
def tiny_captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions of `TINY_IMAGES` in Karpathy's format: the colour and the animal are the image's, the rest varies."""
    random = np.random.default_rng(0)
    colours, animals = ["red", "green", "blue", "grey"], ["cat", "dog", "horse"]
    verbs, places = ["sits", "is standing", "sleeps"], ["in a field", "on the table", "near an old man's house"]
    images = []
    for number, (image, split, captions) in enumerate(TINY_IMAGES):
        what = f"{colours[number % 4]} {animals[number // 4]}"
        texts = [f"A {what} {random.choice(verbs)} {random.choice(places)}." for _ in range(captions)]
        sentences = [{"raw": text, "sentid": 10 * image + place} for place, text in enumerate(texts)]
        images.append({"cocoid": image, "filename": f"{image:012d}.jpg", "split": split, "sentences": sentences,
                       "width": 64 + number, "height": 48})  # fmt: skip
    path = tmp_path_factory.mktemp("tiny") / "dataset_tiny.json"
    path.write_text(json.dumps({"images": images}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_store(tiny_captions: Path) -> Path:
    """A region store of the tiny images: 1 to 7 regions each, random features of width `TINY_FEATURE_DIM`."""
    return _write_store(tiny_captions.parent / "tiny.regions")


@pytest.fixture(scope="session")
def write_store() -> Callable[..., Path]:
    """write_store(path, feature_dim=…, images=…): a store like `tiny_store`, of another width or of other images."""
    return _write_store


def _write_store(path: Path, *, feature_dim: int = TINY_FEATURE_DIM, images: Sequence[int] = ()) -> Path:
    random = np.random.default_rng(1)
    with RegionWriter(path, feature_dim) as writer:
        for number, image in enumerate(images or sorted([image for image, _, _ in TINY_IMAGES] + [31])):
            count = 1 + number % 7
            corners = np.sort(random.random((count, 2, 2)), axis=1).reshape(count, 4)
            features = random.standard_normal((count, feature_dim)).astype(np.float32)
            writer.add(image, features, corners.astype(np.float32), position=number + 1)
        writer.finish()
    return path


@pytest.fixture(scope="session")
def tiny_vocabulary(tiny_captions: Path) -> Path:
    """A vocabulary folder (subword-nmt, 60 merges) learned from the tiny training captions."""
    from xgpt_fairseq.text.readers import sentences

    path = tiny_captions.parent / "vocabulary"
    learn_vocabulary(sentences([tiny_captions]), path, bpe="subword_nmt", symbols=60)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a captioner of seven made-up photos (`tests.test_hub_interface.draw`). Not to be changed.

    Made once, also for several processes of pytest-xdist, as are its graphs: exporting takes half a minute.
    """
    path = _shared(tmp_path_factory) / "lite" / "bundle"
    with _locked(path.parent):
        if path.is_dir():
            return path
        return _write_bundle(tiny_vocabulary, path)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """once(name, make): the folder *name* as make(folder) fills it, once for all processes. Not to be changed."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        place = _shared(tmp_path_factory) / f"once-{name}"
        with _locked(place):
            if not (place / "whole").exists():
                shutil.rmtree(place / name, ignore_errors=True)
                (place / name).mkdir()
                make(place / name)
                (place / "whole").touch()
        return place / name

    return made


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_bundle(tiny_vocabulary: Path, path: Path) -> Path:
    from tests.test_hub_interface import build

    captioner = build(tiny_vocabulary)
    captioner.bundle.novelty = NoveltyDetector(
        mean=np.zeros(1280, np.float32), directions=np.eye(3, 1280, dtype=np.float32), median=20, limit=1.4,
        group_limit=1.3,
    )  # fmt: skip
    captioner.bundle.card = "# Of seven photos\n\nIt knows nothing else."
    captioner.save(path)
    return path


@pytest.fixture(scope="session")
def lite_folder(tiny_bundle: Path) -> Path:
    """The same captioner as ONNX graphs, weights in float32, from `xgpt-export --onnx`. Not to be changed."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    from xgpt_fairseq.cli import export

    path = tiny_bundle.parent / "onnx"
    with _locked(tiny_bundle.parent):
        if not path.is_dir():
            export.main([str(tiny_bundle), "--onnx", "--storage", "float32", "--output", str(path)])
    return path


@pytest.fixture(scope="session")
def tiny_data(tiny_captions: Path, tiny_vocabulary: Path, tiny_store: Path) -> Path:
    """The data directory of the tiny images (train, valid, test) from prepare_captions.py. Not to be changed."""
    from xgpt_fairseq.cli import prepare_captions

    path = tiny_captions.parent / "data"
    command = ["prepare_captions.py", tiny_captions, "--vocabulary", tiny_vocabulary, "--regions", tiny_store]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*map(str, command), "--output", str(path)])
        prepare_captions.main()
    return path


@pytest.fixture(scope="session")
def tiny_text_data(tiny_captions: Path, tiny_vocabulary: Path) -> Path:
    """The tiny captions as a text directory (train, valid) from prepare_text.py. Not to be changed."""
    from xgpt_fairseq.cli import prepare_text

    images = json.loads(tiny_captions.read_text(encoding="utf-8"))["images"]
    text, path = tiny_captions.parent / "text.txt", tiny_captions.parent / "text"
    text.write_text("".join(f"{sentence['raw']}\n" for image in images for sentence in image["sentences"]))
    command = [
        "prepare_text.py",
        "--input",
        text,
        "--vocabulary",
        tiny_vocabulary,
        "--output",
        path,
        "--valid-lines",
        4,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*map(str, command)])
        prepare_text.main()
    return path
