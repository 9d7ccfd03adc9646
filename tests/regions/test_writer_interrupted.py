"""Writing a region store, interrupted or killed at any moment: nothing is lost, and nothing is there half."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.folders import contents
from tests.regions.test_writer import WIDTH, regions
from tests.thorough import THOROUGH
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io import resumable
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.append_only_file import AppendOnlyArray, AppendOnlyFile
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify
from xgpt_fairseq.regions.writer import RegionWriter

ROOT = Path(__file__).resolve().parents[2]
SOURCE = {"format": "test"}

pytestmark = pytest.mark.usefixtures("no_fsync")

IMAGES = 12
OLD = "what the old store has"


def write(path: Path, *, overwrite: bool = False, **options: Any) -> None:
    """A store of 12 images in several shards, with all columns; the journal is written at every third image."""
    settings: dict[str, Any] = {"shard_bytes": 128 + 2 * WIDTH * 7, "journal_images": 3, "source": SOURCE} | options
    with RegionWriter(path, WIDTH, overwrite=overwrite, **settings) as writer:
        for index in range(writer.position, IMAGES):
            count = 1 + index % 4
            features, boxes = regions(count, seed=index)
            writer.add(
                f"image-{index}",
                features,
                boxes,
                scores=features[:, 0],
                labels=[f"label {index} {region}" * (1 + index) for region in range(count)],
                size=(100 + index, 100),
                position=index + 1,
            )
        writer.finish()


EVENTS = (
    (AppendOnlyFile, "write"),
    (AppendOnlyFile, "sync"),
    (AppendOnlyArray, "finish"),
    (region_writer, "write_json"),
    (region_writer, "sync_folder"),
    (resumable, "write_json"),
    (resumable, "sync_folder"),
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "mkdir"),
    (shutil, "rmtree"),
)


def at_every_event(act: Callable[[], None]) -> None:
    """Have *act* called before whatever the writer does to its files."""
    for owner, name in EVENTS:
        original = getattr(owner, name)

        def wrapped(*args: Any, _original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            act()
            return _original(*args, **kwargs)

        setattr(owner, name, wrapped)


@pytest.fixture(scope="module")
def killed_while_writing() -> Iterator[Callable[[Path, int, bool], bool]]:
    """`write_and_die` in a process of its own; whether it was killed.

    Its parent is a small process that does nothing else (`die_again_and_again`): forking this one, which other tests
    have filled, takes longer than writing the store. By its last argument it is one of our own programs, which import
    torch only where they need it.
    """
    code = f"from {__name__} import die_again_and_again; die_again_and_again()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, "xgpt_fairseq.cli.none"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert parent.stdin is not None and parent.stdout is not None

    def run(path: Path, moment: int, overwrite: bool) -> bool:
        assert parent.stdin is not None and parent.stdout is not None
        print(json.dumps([str(path), moment, overwrite]), file=parent.stdin)
        status = int(parent.stdout.readline())
        assert status in (0, -signal.SIGKILL)
        return status != 0

    yield run
    parent.communicate()
    assert parent.returncode == 0


def die_again_and_again() -> None:
    """Read a path, a moment and whether to overwrite from a line of stdin, and write the child's status to stdout."""
    assert "torch" not in sys.modules
    for line in sys.stdin:
        path, moment, overwrite = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                write_and_die(Path(path), moment, overwrite)
                status = 0
            finally:
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def write_and_die(path: Path, moment: int, overwrite: bool) -> None:
    """Write the store, but be killed before the event number *moment*."""
    left = moment
    os.fsync = lambda file: None  # as in this test's own process

    def act() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    at_every_event(act)
    write(path, overwrite=overwrite)


# The events of the first shard end before this one, with its journal; those from `END` on finish the store.
SECOND_SHARD, END = 37, 129


# Up to the end, replacing a store is writing a new one.
@pytest.mark.more
@pytest.mark.parametrize(("overwrite", "first_moment"), [(False, 0), (True, END)], ids=["new", "overwrite"])
def test_a_kill_at_any_moment_loses_nothing(
    tmp_path: Path, overwrite: bool, first_moment: int, killed_while_writing: Callable[[Path, int, bool], bool]
) -> None:
    write(tmp_path / "expected")
    expected = contents(tmp_path / "expected")
    assert len([name for name in expected if name.startswith("features")]) > 3
    path = tmp_path / "store"
    for moment in range(first_moment, 10_000):
        # between, other shards are written like the first: any fifth moment, since an image has seven
        if not THOROUGH and SECOND_SHARD <= moment < END and moment % 5:
            continue
        old = {}
        if overwrite:
            path.mkdir()
            (path / "store.json").write_text(OLD)
            old = contents(path)
        killed = killed_while_writing(path, moment, overwrite)
        if not killed:
            assert contents(path) == expected
            break
        # Under the store's name there is a whole store, or none.
        seen = contents(path)
        assert seen in ({}, old, expected), f"killed at event {moment}"
        if seen == expected:
            assert verify(path).image_ids()[-1] == f"image-{IMAGES - 1}"
        else:
            write(path, overwrite=overwrite)
        assert contents(path) == expected, f"killed at event {moment}"
        shutil.rmtree(path)
        shutil.rmtree(tmp_path / ".store.partial", ignore_errors=True)
    assert moment > 130
    assert not (tmp_path / ".store.partial").exists()


def test_many_kills_of_one_import(tmp_path: Path, killed_while_writing: Callable[[Path, int, bool], bool]) -> None:
    write(tmp_path / "expected")
    path = tmp_path / "store"
    kills = 0
    while killed_while_writing(path, 45, False):
        kills += 1
        assert not path.exists()
    assert kills >= 3
    assert contents(path) == contents(tmp_path / "expected")


def interrupted(path: Path, images: int = 7, **options: Any) -> None:
    with RegionWriter(path, WIDTH, journal_images=1, **({"source": SOURCE} | options)) as writer:
        for index in range(images):
            writer.add(f"image-{index}", *regions(2, seed=index), position=10 * index + 10)


def test_position_and_counts_are_those_of_the_journal(tmp_path: Path) -> None:
    interrupted(tmp_path / "store", images=7)
    with RegionWriter(tmp_path / "store", WIDTH, source=SOURCE) as writer:
        assert writer.resumed
        assert (writer.position, writer.images, writer.num_regions) == (70, 7, 14)
        with pytest.raises(DataError, match="image image-3 occurs more than once"):
            writer.add("image-3", *regions(2), position=80)


def test_what_a_kill_left_behind_does_not_get_into_the_store(tmp_path: Path) -> None:
    interrupted(tmp_path / "store")
    for name in ("features-00001.npy", ".store.json.77.tmp", "scores.npy"):
        (tmp_path / ".store.partial" / "data" / name).write_bytes(b"old")
    with RegionWriter(tmp_path / "store", WIDTH, source=SOURCE) as writer:
        writer.finish()
    names = {"boxes.npy", "features-00000.npy", "ids.npy", "offsets.npy", "store.json"}
    assert contents(tmp_path / "store").keys() == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": {"format": "other"}}, "format: test then, other now"),
        ({"max_regions": 50}, "max_regions: 100 then, 50 now"),
        ({"shard_bytes": 1000}, "shard_bytes: 1073741824 then, 1000 now"),
    ],
)
def test_other_options_than_those_of_the_unfinished_import(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    interrupted(tmp_path / "store")
    with pytest.raises(
        DataError, match=rf"\.store\.partial was started with other options \({message}\); pass --overwrite"
    ):
        RegionWriter(tmp_path / "store", WIDTH, **({"source": SOURCE} | options))
    with RegionWriter(tmp_path / "store", WIDTH, overwrite=True, **({"source": SOURCE} | options)) as writer:
        assert not writer.resumed
        assert (writer.position, writer.images) == (0, 0)


def test_an_unfinished_import_that_is_damaged(tmp_path: Path) -> None:
    interrupted(tmp_path / "store")
    os.truncate(tmp_path / ".store.partial" / "data" / "features-00000.npy", 200)
    with pytest.raises(DataError, match=r"features-00000\.npy has 200 bytes, at least 240 expected; pass --overwrite"):
        RegionWriter(tmp_path / "store", WIDTH, source=SOURCE)
    (tmp_path / ".store.partial" / "journal.json").write_text("{")
    with pytest.raises(DataError, match=r"its journal is unreadable .*pass --overwrite"):
        RegionWriter(tmp_path / "store", WIDTH, source=SOURCE)
    RegionWriter(tmp_path / "store", WIDTH, source=SOURCE, overwrite=True).close()


def test_two_writers_of_one_store(tmp_path: Path) -> None:
    with (
        RegionWriter(tmp_path / "store", WIDTH),
        pytest.raises(DataError, match=r"another import is writing .*store"),
    ):
        RegionWriter(tmp_path / "store", WIDTH)


def test_a_store_is_not_replaced_unasked(tmp_path: Path) -> None:
    write(tmp_path / "store")
    before = contents(tmp_path / "store")
    with pytest.raises(DataError, match=r"store exists; pass --overwrite to replace it"):
        write(tmp_path / "store")
    with RegionWriter(tmp_path / "store", WIDTH, overwrite=True) as writer:
        writer.add("new", *regions(1), position=1)
        assert contents(tmp_path / "store") == before  # until the new one is whole
        writer.finish()
    assert RegionStore(tmp_path / "store").image_ids() == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dog.jpg").write_bytes(b"dog")
    with pytest.raises(DataError, match=r"photos is not a region store .*it is not replaced"):
        RegionWriter(tmp_path / "photos", WIDTH, overwrite=True)
    assert (tmp_path / "photos" / "dog.jpg").exists()


def test_the_manifest_says_how_the_store_was_made(tmp_path: Path) -> None:
    write(tmp_path / "store")
    manifest = json.loads((tmp_path / "store" / "store.json").read_text())
    assert manifest["version"] == 1
    assert manifest["source"] == SOURCE
    assert [shard["first_row"] for shard in manifest["shards"]] == [
        sum(shard["rows"] for shard in manifest["shards"][:index]) for index in range(len(manifest["shards"]))
    ]


def test_an_unfinished_import_of_an_earlier_version(tmp_path: Path) -> None:
    """It is of hours of work: nothing is taken away unasked. Earlier versions wrote to `store`, with a flat journal."""
    old = tmp_path / ".store.partial"
    (old / "store").mkdir(parents=True)
    (old / "store" / "features-00000.npy").write_bytes(b"hours of work")
    (old / "journal.json").write_text('{"version": 1, "options": {}, "images": 7}')
    before = contents(old)
    with pytest.raises(
        DataError, match=r"store\.partial was started by an earlier version .* pass --overwrite to start"
    ):
        RegionWriter(tmp_path / "store", WIDTH, source=SOURCE)
    assert contents(old) == before
    write(tmp_path / "store", overwrite=True)
    write(tmp_path / "expected")
    assert contents(tmp_path / "store") == contents(tmp_path / "expected")
    assert not old.exists()


def test_nothing_stays_of_an_import_without_images(tmp_path: Path) -> None:
    with RegionWriter(tmp_path / "store", WIDTH):
        pass
    assert list(tmp_path.iterdir()) == []
