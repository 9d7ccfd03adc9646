"""`xgpt-caption --jsonl`: lines as they come, resumed, and shared by several processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_caption import bundle, call, folder  # noqa: F401  (fixtures)
from tests.test_hub_interface import photos  # noqa: F401  (a fixture)
from tests.vision.test_photo_list import another_process
from xgpt_fairseq import hub_interface
from xgpt_fairseq.cli import extract_regions
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.io.resumable_lines import ResumableLines

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def few_photos_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_interface, "PHOTOS_AT_ONCE", 2)


@pytest.fixture
def many(photos: list[Path], tmp_path: Path) -> Path:  # noqa: F811
    """Ten photos and a text file."""
    path = tmp_path / "many"
    path.mkdir()
    for number in range(10):
        (path / f"{number:02}.png").write_bytes(photos[number % len(photos)].read_bytes())
    (path / "03.txt").write_text("bread")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def killed_after(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ResumableLines.write` is interrupted after so many groups."""
    write, written = ResumableLines.write, []

    def interrupted(self: ResumableLines, values: Any) -> None:
        if len(written) == groups:
            raise KeyboardInterrupt
        written.append(values)
        write(self, values)

    monkeypatch.setattr(ResumableLines, "write", interrupted)


def test_a_line_for_each_file(call_program: Call, bundle: Path, many: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "c.jsonl"
    done = call(call_program, many, "--path", bundle, "--jsonl", path, "--batch-size", 2)
    assert done.status == 0 and done.stdout == f"10 of 11 images captioned: {path}\n"
    lines = read(path)
    assert [line["image_id"] for line in lines] == ["0", "1", "2", "3", "03.txt", *map(str, range(4, 10))]
    [error] = [line for line in lines if "error" in line]
    assert error["file"] == str(many / "03.txt") and error["error"].startswith("not a photo")
    files = [many / f"{number:02}.png" for number in range(10)]
    expected = XGPTHubInterface.from_path(bundle).caption(files, beam=2, return_scores=True)
    captioned = [line for line in lines if "caption" in line]
    assert [(line["file"], line["caption"]) for line in captioned] == [
        (str(file), each.text) for file, each in zip(files, expected, strict=True)
    ]
    assert [line["score"] for line in captioned] == pytest.approx([each.score for each in expected], abs=1e-3)
    strict = call(call_program, many, "--path", bundle, "--jsonl", path, "--strict", "--overwrite")
    assert strict.status == 1 and strict.error == "--strict: 1 of 11 files could not be read"


@pytest.mark.parametrize("groups", [0, 1, 4])
def test_killed_it_goes_on(
    groups: int,
    call_program: Call,
    bundle: Path,  # noqa: F811
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--path", bundle, "--batch-size", 2]
    call(call_program, many, *options, "--jsonl", tmp_path / "expected.jsonl")
    path = tmp_path / "c.jsonl"
    with monkeypatch.context() as patch:
        killed_after(groups, patch)
        assert call(call_program, many, *options, "--jsonl", path).status == 130
    if groups:
        assert len(read(path)) == 2 * groups
        other = call(call_program, many, *options, "--jsonl", path, "--beam", 3)
        assert other.status == 1 and "begun with other options (beam)" in other.error
    else:
        assert not path.exists()
    done = call(call_program, many, *options, "--jsonl", path)
    assert (f"resuming an interrupted run after {2 * groups} images\n" in done.stdout) == bool(groups)
    assert path.read_bytes() == (tmp_path / "expected.jsonl").read_bytes()


def test_shards_are_the_whole(
    call_program: Call,
    bundle: Path,  # noqa: F811
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--path", bundle, "--batch-size", 2, "--jsonl"]
    call(call_program, many, *options, tmp_path / "all.jsonl")
    for shard in range(3):
        monkeypatch.setenv("RANK", str(shard))
        monkeypatch.setenv("WORLD_SIZE", "3")
        done = call(call_program, many, *options, tmp_path / "c.jsonl")
        assert done.status == 0 and f"shard {shard} of 3 (RANK), to {tmp_path}/c.{shard}-of-3.jsonl" in done.stdout
    parts = sorted(tmp_path.glob("c.*.jsonl"))
    assert b"".join(part.read_bytes() for part in parts) == (tmp_path / "all.jsonl").read_bytes()
    assert len(parts) == 3 and not (tmp_path / "c.jsonl").exists()
    again = call(call_program, many, *options, tmp_path / "c.jsonl")
    assert again.status == 0 and again.stdout.endswith("this part was finished by an earlier run\n")
    other = call(call_program, many, *options, tmp_path / "c.jsonl", "--beam", 3)
    assert other.status == 1
    assert "c.2-of-3.jsonl exists, and was written with other options (beam); give another name or" in other.error
    for ranks in ("1", "2"):  # another number of them
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", ranks)
        done = call(call_program, many, *options, tmp_path / "c.jsonl")
        assert "there are parts of 3 shards" in done.error and "(all are finished)" in done.error
        assert sorted(tmp_path.glob("c.*jsonl")) == parts
    done = call(call_program, many, "--path", bundle)
    assert done.status == 1 and "shard 0 of 2 (RANK): each shard writes its own file of --jsonl" in done.error
    done = call(call_program, many, "--path", bundle, "--json", tmp_path / "c.json", "--num-shards", 1)
    assert done.status == 0


def test_a_shard_without_a_photo_does_not_end_the_others(
    call_program: Call,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    broken = tmp_path / "photos"
    broken.mkdir()
    for name in "abcd":
        (broken / f"{name}.jpg").write_bytes(b"no photo")
    shard = ["--batch-size", 2, "--num-shards", 2, "--shard-id", 0]
    options = [broken, "--path", bundle, "--jsonl"]
    done = call(call_program, *options, tmp_path / "c.jsonl", *shard)
    assert done.status == 0 and "0 of 2 images captioned" in done.stdout
    assert [line["file"][-5:] for line in read(tmp_path / "c.0-of-2.jsonl") if line["error"]] == ["a.jpg", "b.jpg"]
    assert call(call_program, *options, tmp_path / "s.jsonl", *shard, "--strict").status == 1
    assert call(call_program, *options, tmp_path / "all.jsonl").status == 1


def test_of_a_store(call_program: Call, bundle: Path, many: Path, tmp_path: Path) -> None:  # noqa: F811
    store = tmp_path / "regions"
    options = ["--grid", 2, "--image-size", 96, "--device", "cpu", "--workers", 0]
    assert call_program(extract_regions.main, many, "--output", store, *options).status == 0
    options = ["--path", bundle, "--batch-size", 3, "--jsonl"]
    assert call(call_program, store, *options, tmp_path / "all.jsonl").status == 0
    lines = read(tmp_path / "all.jsonl")
    assert [line["image_id"] for line in lines] == [str(number) for number in range(10)]
    assert all(set(line) >= {"image_id", "caption", "score"} and "file" not in line for line in lines)
    for shard in range(2):
        done = call(call_program, store, *options, tmp_path / "c.jsonl", "--num-shards", 2, "--shard-id", shard)
        assert done.status == 0, done.error
    parts = [(tmp_path / f"c.{shard}-of-2.jsonl").read_bytes() for shard in range(2)]
    assert b"".join(parts) == (tmp_path / "all.jsonl").read_bytes()
    done = call(call_program, store, *options, tmp_path / "d.jsonl", "--num-shards", 5, "--shard-id", 0)
    assert "10 images, in groups of 3, are too few for 5 shards" in done.error


def test_photos_that_a_file_lists(
    call_program: Call,
    bundle: Path,  # noqa: F811
    many: Path,
    tmp_path: Path,
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{many / '01.png'}\n{many / '00.png'}\n")
    done = call(call_program, many / "05.png", "--list", listed, "--path", bundle)
    names = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert names == [str(many / f"0{number}.png") for number in (5, 1, 0)]
    assert call(call_program, "--list", listed, "--path", bundle, "--about").status == 2
    done = call(call_program, "--path", bundle)
    assert done.status == 2 and "required: PHOTO, or --list, or --serve, or --about" in done.stderr


def test_its_own_files_are_no_photos(
    call_program: Call,
    bundle: Path,  # noqa: F811
    many: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where they are written among the photos; also those of other shards, however late one begins."""
    options = ["--path", bundle, "--batch-size", 2, "--jsonl", many / "c.jsonl"]
    with monkeypatch.context() as patch:
        killed_after(2, patch)
        assert call(call_program, many, *options).status == 130
    assert call(call_program, many, *options).stdout.endswith(f"10 of 11 images captioned: {many / 'c.jsonl'}\n")
    assert len(read(many / "c.jsonl")) == 11 and sorted(many.glob(".c*")) == []
    for shard in range(2):
        done = call(call_program, many, *options, "--num-shards", 2, "--shard-id", shard)
        assert done.status == 0, done.error
        (many / "late.png").write_bytes((many / "00.png").read_bytes())
    lines = [line for shard in range(2) for line in read(many / f"c.{shard}-of-2.jsonl")]
    assert [line["file"] for line in lines if "caption" in line] == [str(many / f"{n:02}.png") for n in range(10)]
    assert "what came later is left out" in done.stdout


def test_overwrite_looks_for_photos_again(
    call_program: Call,
    bundle: Path,  # noqa: F811
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where an unfinished run has a list of them."""
    options = ["--path", bundle, "--batch-size", 2, "--jsonl", tmp_path / "c.jsonl"]
    with monkeypatch.context() as patch:
        killed_after(2, patch)
        assert call(call_program, many, *options).status == 130
    (many / "late.png").write_bytes((many / "00.png").read_bytes())
    done = call(call_program, many, *options, "--overwrite")
    assert done.stdout == f"11 of 12 images captioned: {tmp_path / 'c.jsonl'}\n"


def test_a_second_process_leaves_the_list_of_the_first(
    call_program: Call,
    bundle: Path,  # noqa: F811
    many: Path,
    tmp_path: Path,
) -> None:
    listed = tmp_path / ".c.jsonl.photos"
    with another_process(listed):
        refused = call(call_program, many, "--path", bundle, "--jsonl", tmp_path / "c.jsonl")
        assert refused.status == 1 and "another process takes the photos of the list" in refused.error
        assert (listed / "lock").exists()


def test_strict_also_after_an_interruption(
    call_program: Call,
    bundle: Path,  # noqa: F811
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (many / "00.png").write_bytes(b"no photo")
    options = ["--path", bundle, "--batch-size", 2, "--strict", "--jsonl", tmp_path / "c.jsonl"]
    with monkeypatch.context() as patch:
        killed_after(3, patch)
        assert call(call_program, many, *options).status == 130
    done = call(call_program, many, *options)
    assert done.status == 1 and done.error == "--strict: 2 of 11 files could not be read"


def test_lines_are_not_mixed(
    call_program: Call,
    bundle: Path,  # noqa: F811
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a store that was replaced meanwhile; and no other file is written in silence."""
    store, path = tmp_path / "regions", tmp_path / "c.jsonl"
    options = ["--image-size", 96, "--device", "cpu", "--workers", 0, "--output", store]
    assert call_program(extract_regions.main, many, *options, "--grid", 2).status == 0
    with monkeypatch.context() as patch:
        killed_after(1, patch)
        assert call(call_program, store, "--path", bundle, "--batch-size", 2, "--jsonl", path).status == 130
    (many / "09.png").unlink()
    assert call_program(extract_regions.main, many, *options, "--grid", 2, "--overwrite").status == 0
    done = call(call_program, store, "--path", bundle, "--batch-size", 2, "--jsonl", path)
    assert done.status == 1 and "begun with other options (checksums)" in done.error
    for option in ("--json", "--html"):
        done = call(call_program, many, "--path", bundle, "--jsonl", tmp_path / "d.jsonl", option, tmp_path / "d")
        assert done.status == 1 and "one of them" in done.error and not (tmp_path / "d.jsonl").exists()
