"""xgpt-prepare-captions --check-photos: what it says before extraction is what the run on the extracted store says."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.folders import contents
from tests.tars import write_tar
from tests.thorough import examples
from xgpt_fairseq.cli import photo_extraction, prepare_captions
from xgpt_fairseq.cli.extract_options import parse_arguments
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.vision.photo_extractor import PhotoExtractor, Regions
from xgpt_fairseq.vision.photo_names import names_of_photos
from xgpt_fairseq.vision.photos import Photo, PhotoForm


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    return data.getvalue()


PNG = png()


class Ones(PhotoExtractor):
    """In place of a network, whose features do not matter here: one region of the whole photo."""

    form = PhotoForm(32)
    feature_dim, regions, settings, versions, in_words, packed = 2, 1, {}, {}, "", None  # type: ignore[assignment]

    def extract(self, photos: Sequence[Photo], boxes: Any = None) -> list[Regions]:
        whole = np.array([[0, 0, 1, 1]], dtype=np.float32)
        return [Regions(np.ones((1, 2), dtype=np.float16), whole) for _ in photos]


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    """And no waiting for the disk, which is not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_extraction, "build_extractor", lambda args: Ones(device="cpu", batch_size=None, threads=1))
        patch.setattr("os.fsync", lambda _: None)
        yield


def extract(photos: Sequence[Path], store: Path) -> None:
    """The real program but for the network."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        photo_extraction.extract(parse_arguments([*map(str, photos), "--output", str(store), "--workers", "0"]))


class Said(NamedTuple):
    """What a run ends with: an error; or none, and what it counted."""

    error: str
    lines: tuple[str, ...]


def run(arguments: Sequence[object], place: str) -> Said:
    """The program; *place* is where it looks for images."""
    stdout = io.StringIO()
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(io.StringIO()):
            prepare_captions.prepare_captions(prepare_captions._parse_arguments([*map(str, arguments)]))
    except DataError as error:
        text = str(error).replace(place, "PLACE").replace("add them", "import them")
        text = text.replace("of the photos: ", "of the store: ")
        return Said(text.replace("are these the photos of the captions?", "is it the store of these images?"), ())
    return Said("", tuple(filter(None, map(counted, stdout.getvalue().splitlines()))))


def counted(line: str) -> str:
    """What a line of the summary counts, in words that the check and the run share."""
    words = re.sub(r", \d+ cut$", "", line).split(" images without ")[0]
    for end in (" of the region store have no captions", " have no captions"):
        if end in words:
            return words.split(end)[0].removesuffix(" images").removesuffix(" photos") + " without captions"
    of_one = ("written to ", "captions and photos fit", "are no photos", "captions are longer than --max-tokens")
    return "" if any(words_of_one in words for words_of_one in of_one) else words


def check(captions: Sequence[object], photos: Sequence[Path]) -> Said:
    place = str(photos[0]) if len(photos) == 1 else f"{photos[0]} … {photos[-1]}"
    return run([*captions, "--check-photos", *photos], place)


# The rule

FOLDERS = ("", "train/", "val/", "a/", "b/train/", "s.tar/", "t.tar/val/")
NAMES = ("1", "01", "2", "x", "y.v2", "COCO_val2014_000000000002")
PATHS = st.builds("{}{}{}".format, st.sampled_from(FOLDERS), st.sampled_from(NAMES), st.sampled_from((".png", ".jpg")))
WRONG = st.builds("{}{}".format, st.sampled_from(FOLDERS[:5]), st.sampled_from(("1.txt", "2.jpg.html", "x.bmp")))
Spelling = Callable[[str], str]
SPELLINGS: tuple[Spelling, ...] = (
    lambda path: path,
    lambda path: path.rpartition("/")[2],
    lambda path: path.rpartition(".")[0],
    lambda path: f"elsewhere/{path}",
    lambda path: f"val/{path.rpartition('/')[2]}",
    lambda path: path.rpartition("/")[2].rpartition(".")[0] + ".dcm",
)
SPLITS = st.sampled_from(("train", "val"))
OPTIONS = st.sampled_from(
    ([], ["--missing-images", "skip"], ["--missing-images", "skip", "--max-missing", "0.5"], ["--pair-by", "file"],
     ["--pair-by", "id", "--missing-images", "skip"], ["--splits", "train", "--missing-images", "skip"],
     ["--hold-out", "val=0.4"])
)  # fmt: skip


def write(folder: Path, photos: Sequence[str], wrong: set[str]) -> None:
    """Photos, some of them in tars, and files that are none."""
    members: dict[str, dict[str, bytes]] = {}
    for path in sorted(photos):
        if ".tar/" in path:
            tar, _, name = path.partition("/")
            members.setdefault(tar, {})[name] = PNG
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(PNG)
    for tar, files in members.items():
        write_tar(folder / tar, files)
    for path in sorted(wrong - {*photos}):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"<html>")


def write_captions(folder: Path, images: Sequence[tuple[str, str]], first_id: int | None) -> list[Path]:
    """Of (name, split): records that name photos; or COCO's files, where images have ids, too, from *first_id* on."""
    folder.mkdir(parents=True)
    if first_id is None:
        records = [{"image": name, "split": split, "caption": "a cat"} for name, split in images]
        (folder / "captions.json").write_text(json.dumps(records))
        return [folder / "captions.json"]
    numbered = list(enumerate(images, first_id))
    for split in ("train", "val"):
        named = [{"id": number, "file_name": name} for number, (name, of_split) in numbered if of_split == split]
        texts = [{"image_id": image["id"], "id": place, "caption": "a cat"} for place, image in enumerate(named)]
        (folder / f"{split}.json").write_text(json.dumps({"images": named, "annotations": texts}))
    return [folder / "train.json", folder / "val.json"]


@examples(25)
@given(
    photos=st.lists(PATHS, min_size=2, max_size=8, unique_by=canonical_image_id),
    wrong=st.sets(WRONG, max_size=2),
    name=st.sampled_from(("photos", "train")),
    parts=st.booleans(),
    spelling=st.sampled_from(SPELLINGS),
    other=st.sampled_from(SPELLINGS),
    splits=st.lists(SPLITS, min_size=8, max_size=8),
    without=st.integers(0, 2),
    more=st.lists(PATHS, max_size=1),
    first_id=st.sampled_from((None, 0, 1)),
    beside=st.sampled_from(("", "val")),
    options=OPTIONS,
)
def test_the_check_and_the_run_agree(
    photos: list[str], wrong: set[str], name: str, parts: bool, spelling: Spelling, other: Spelling, splits: list[str],
    without: int, more: list[str], first_id: int | None, beside: str, options: list[str], tiny_vocabulary: Path,
) -> None:  # fmt: skip
    """Captions name all photos but some, and perhaps one more, in one way but for the last."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, name)
        write(root, photos, wrong)
        captioned = [*photos[without:], *more]
        images = [(spelling(path), split) for path, split in zip(captioned, ["train", "val", *splits], strict=False)]
        if images:
            images[-1] = other(captioned[-1]), images[-1][1]
        captions = write_captions(Path(place, "captions", beside), images, first_id)
        asked = sorted(root.iterdir()) if parts else [root]
        before = contents(Path(place))
        said = check([*captions, *options], asked)
        assert contents(Path(place)) == before
        store = Path(place, "store")
        try:
            extract(asked, store)
        except DataError as error:
            assert said.error, error
            return
        names, _ = names_of_photos(asked)
        stored = RegionStore(store)
        assert [names.image_id(index) for index in range(len(names))] == stored.image_ids()
        assert [names.folder_parts(i) for i in range(len(names))] == [stored.folder_parts(i) for i in range(len(names))]
        assert names.folders == stored.folders and names.shares_name() == stored.shares_name()
        words = ["--vocabulary", tiny_vocabulary, "--regions", store, "--output", Path(place, "data")]
        assert run([*captions, *options, *words], str(store)) == said


@pytest.mark.parametrize(
    "layout",
    ["kaggle_flickr8k", "kaggle_flickr30k", "imagefolder_jsonl", "imagefolder_csv", "text_beside_photo", "webdataset",
     "img2dataset_files", "cc12m", "vizwiz", "nocaps", "coco_other_numbers", "llava", "rsicd", "ucm", "dict_of_names",
     "dict_of_lists", "list_of_records", "own_csv", "long_captions", "chinese"],
)  # fmt: skip
def test_layouts_of_real_photos(
    layout: str, coco_mini: Path, tiny_vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = coco_mini.parent / "layouts" / "make_layouts.py"
    if not script.exists():
        pytest.skip(f"{script} is not here")
    runpy.run_path(str(script))["main"](tmp_path, [layout])
    monkeypatch.chdir(tmp_path / layout)
    expected = json.loads(Path("expected.json").read_text(encoding="utf-8"))
    captions, photos = expected["captions"], [Path(each) for each in expected["photos"]]
    if lists := [f"{split}={split}.txt" for split in ("train", "val") if Path(f"{split}.txt").exists()]:
        captions += ["--split-files", *lists]
    elif list(expected["pairs"]) in (["all"], ["train"]):
        captions += ["--hold-out", "val=0.3"]
    said = check(captions, photos)
    assert not said.error
    images = sum(int(line.split()[1]) for line in said.lines if line.startswith(("train: ", "valid: ", "test: ")))
    assert images == sum(map(len, expected["pairs"].values()))
    extract(photos, tmp_path / "store")
    words = ["--vocabulary", tiny_vocabulary, "--regions", tmp_path / "store", "--output", tmp_path / "data"]
    assert run([*captions, *words], str(tmp_path / "store")) == said


# What it says


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos 0 to 5, of which 5 is in no captions, and a file that is none."""
    write(tmp_path / "photos", [f"{number}.png" for number in range(6)], {"notes.html"})
    return tmp_path / "photos"


def table(path: Path, names: Sequence[str], split: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{name},a cat,{split or ('val' if place % 2 else 'train')}\n" for place, name in enumerate(names)]
    path.write_text("image,caption,split\n" + "".join(rows))
    return path


def test_what_fits(call_program: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    captions = table(tmp_path / "captions.csv", [f"{number}.png" for number in range(5)])
    before = contents(tmp_path)
    done = call_program(prepare_captions.main, captions, "--check-photos", photos)
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{captions}: table",
        f"1 files beside 6 photos are no photos, the first: {photos / 'notes.html'}",
        "captions found their photos: 5 by file name",
        "train: 3 images, 3 captions",
        "valid: 2 images, 2 captions",
        "1 of 6 photos have no captions, the first: 5",
        "captions and photos fit; nothing is written",
    ]
    assert contents(tmp_path) == before
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in sorted(photos.iterdir())))
    by_list = call_program(prepare_captions.main, captions, "--check-photos", "--list", listed)
    assert (by_list.status, by_list.stdout) == (0, done.stdout)


def test_what_does_not_fit(call_program: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    def error(captions: Path, *options: object) -> str:
        refused = call_program(prepare_captions.main, captions, "--check-photos", *options)
        assert refused.status == 1
        return str(refused.error)

    place = tmp_path / "twins" / "3.html"
    some = table(tmp_path / "some.csv", ["0.png", "1.png", "8.png", "9.png"])
    assert error(some, photos) == (
        f"1 of 2 images of split 'train' are not in {photos}, the first: 8; add them, or pass --missing-images skip"
    )
    skip = ["--missing-images", "skip"]
    assert call_program(prepare_captions.main, some, "--check-photos", photos, *skip).status == 0
    assert error(some, photos, *skip, "--max-missing", "0.4") == (
        f"1 of 2 images of split 'train' (50.00%) are not in {photos}, more than --max-missing 0.4 allows, the first: "
        "8; add them, or allow more"
    )
    assert error(table(tmp_path / "none.csv", ["8.png", "9.png"]), photos) == (
        f"no image of split 'train' is in {photos}. The first image of the captions: 8, of the photos: 0; are these "
        "the photos of the captions?"
    )
    assert "and none to validate training: hold images out by --hold-out" in error(
        table(tmp_path / "train.csv", ["0.png"], "train"), photos
    )
    write(tmp_path / "more", ["0.png"], set())
    both = error(table(tmp_path / "both.csv", ["0.png", "1.png"]), photos, tmp_path / "more")
    assert error(tmp_path / "both.csv", photos, "--check-photos", tmp_path / "more") == both
    assert both.startswith("image 0.png may be photos/0 or more/0 of ") and "must name the folder, too" in both
    write(tmp_path / "twins", ["0.png", "0.jpg"], {"3.html"})
    assert "are both image 0: an image id must be unique" in error(some, tmp_path / "twins")
    assert error(some, place) == (
        f"none of the 1 files in {place} is a photo. The first: {place}: it does not begin like one"
    )
    assert error(some, tmp_path / "nothing").endswith(f"The first: {tmp_path / 'nothing'}: no such file")


def test_records_that_are_left_out_are_named(call_program: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    """They cannot be listed in a file."""
    captions = table(tmp_path / "captions.csv", ["0.png", "1.png", "", "2.png"])
    done = call_program(prepare_captions.main, captions, "--check-photos", photos, "--skip-bad", 1)
    assert done.status == 0, done.stderr
    assert f"1 records that cannot be read are left out (--skip-bad), the first:\n{captions}: line 4" in done.stdout


def test_options_that_mean_nothing(call_program: Callable[..., Any], tmp_path: Path) -> None:
    for arguments, message in (
        (["--check-photos", "photos", "--output", "data", "--vocabulary", "vocabulary", "--max-tokens", 80],
         "--check-photos comes before there are regions, and writes nothing: leave out --vocabulary, --output, "
         "--max-tokens"),
        (["--check-photos"], "the following arguments are required: the PHOTOS of --check-photos, or --list"),
        (["--list", "photos.txt"], "--list names photos for --check-photos"),
        (["--regions", "regions"], "the following arguments are required: --vocabulary, --output"),
    ):  # fmt: skip
        done = call_program(prepare_captions.main, "captions.csv", *arguments)
        assert done.status == 2 and done.stderr.splitlines()[0] == f"program: error: {message}"
    done = call_program(prepare_captions.main, "captions.csv", "--check-photos", "photos", "--max-missing", 0.5)
    assert done.error.startswith("--max-missing needs --missing-images skip")


def test_a_photo_that_the_network_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is to be made in another shape then; the photo is named."""
    (photos := tmp_path / "photos").mkdir()
    (photos / "1.png").write_bytes(PNG)
    monkeypatch.setattr(Ones, "why_unfit", lambda *_: "no such photos")
    for form, advice in (
        (PhotoForm(32), "squeeze photos to squares (--square), or "),
        (PhotoForm(32, square=True), ""),
    ):
        monkeypatch.setattr(Ones, "form", form)
        with pytest.raises(DataError) as caught:
            extract([photos], tmp_path / "store")
        assert str(caught.value) == f"{photos / '1.png'}: no such photos: {advice}choose a larger --image-size"
