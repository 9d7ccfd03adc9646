"""The page of `xgpt-export --html`: what goes into it; and in a browser, offline, the captions of the runtime.

The browser tests need the archive of npm's package onnxruntime-web, version 1.30.0 (`npm pack onnxruntime-web@1.30.0`),
which XGPT_ORT_WEB names; without it they skip.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from tests.pages.browser import opened
from tests.test_hub_interface import draw
from xgpt_fairseq.cli import export
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.standalone_page import OrtWeb

MODULE = "package/dist/ort.wasm.bundle.min.mjs"
WASM = "package/dist/ort-wasm-simd-threaded.wasm"
SCRIPT = "var a=1,b=2;export{a as InferenceSession,b as default,b as Tensor};\n//# sourceMappingURL=ort.map\n"


def archive(path: Path, members: dict[str, bytes], packing: Literal["gz", "xz", "bz2"] = "gz") -> Path:
    with tarfile.open(path, f"w:{packing}") as made:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def test_exports_become_a_name(tmp_path: Path) -> None:
    read = OrtWeb.read(archive(tmp_path / "ort.tgz", {MODULE: SCRIPT.encode(), WASM: b"\0asm"}))
    assert (
        read.module == SCRIPT
        and read.script == "var a=1,b=2;const ort={InferenceSession:a,Tensor:b};"
        and read.wasm == b"\0asm"
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({MODULE: SCRIPT.encode()}, "is no archive of the npm package onnxruntime-web"),
        ({MODULE: b"var a=1;", WASM: b""}, "can't be put into a page; version 1.30.0 can"),
        ({MODULE: b"'</script>';export{a as b};", WASM: b""}, "can't be put into a page"),
        (None, r"is no archive .*: npm pack onnxruntime-web, or registry.npmjs.org"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, members: dict[str, bytes] | None, message: str) -> None:
    path = tmp_path / "ort.tgz"
    path.write_bytes(b"no archive") if members is None else archive(path, members)
    with pytest.raises(DataError, match=message):
        OrtWeb.read(path)


@pytest.mark.parametrize("packing", ["gz", "xz", "bz2"])
def test_damaged_archives_are_refused(tmp_path: Path, packing: Literal["gz", "xz", "bz2"]) -> None:
    path = tmp_path / "ort.tgz"
    noise = np.random.default_rng(0).bytes(200_000).hex().encode()  # compressible
    whole = archive(path, {MODULE: SCRIPT.encode(), WASM: noise}, packing).read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes(1000) + whole[middle + 1000 :]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is no archive of the npm package onnxruntime-web \(.+\): npm pack"):
            OrtWeb.read(path)
    with pytest.raises(DataError, match="is no archive of the npm package onnxruntime-web"):
        OrtWeb.read(archive(path, {MODULE: b"\xff", WASM: noise}, packing))


def test_the_page_is_whole_and_may_ask_for_nothing(
    call_program: Callable[..., Any], lite_folder: Path, tmp_path: Path
) -> None:
    ort = archive(tmp_path / "ort.tgz", {MODULE: SCRIPT.encode(), WASM: b"\0asm"})
    done = call_program(export.main, lite_folder, "--html", tmp_path / "c.html", "--ort-web", ort, "--title", "A & b")
    assert done.status == 0, done.stderr
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    allowed = {part.split()[0]: part.split()[1:] for part in policy.replace("&#39;", "'").split("; ")}
    assert allowed["default-src"] == ["'none'"] and "connect-src" not in allowed and "unsafe-inline" not in policy
    assert set(re.findall(r' id="data-(\w+)"', page)) == {
        "settings", "wasm", "weights", "photo", "regions", "step", "look",
    }  # fmt: skip
    assert "<title>A &amp; b</title>" in page and page.count("</script>") == 8
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    again = call_program(export.main, lite_folder, "--html", tmp_path / "c.html", "--ort-web", ort)
    assert again.error.endswith("c.html exists; give another name or --overwrite")


def test_what_the_page_needs_is_said(call_program: Callable[..., Any], lite_folder: Path, tmp_path: Path) -> None:
    done = call_program(export.main, lite_folder, "--html", tmp_path / "c.html")
    assert "--ort-web FILE" in done.error and "npm pack onnxruntime-web@1.30.0" in done.error
    assert "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz" in done.error
    both = call_program(export.main, lite_folder, "--html", tmp_path / "c.html", "--output", tmp_path / "out")
    assert both.error.startswith("--output is for bundles and for --onnx alone")
    refused = call_program(export.main, lite_folder, "--output", "x", "--ort-web", "y")
    assert refused.error == "--ort-web is for --html and --html-folder"
    assert call_program(export.main, lite_folder).status == 2


@pytest.mark.parametrize("page", ["--html", "--html-folder"])
def test_options_that_would_do_nothing(
    call_program: Callable[..., Any], lite_folder: Path, tiny_bundle: Path, tmp_path: Path, page: str
) -> None:
    options = [page, tmp_path / "page", "--ort-web", archive(tmp_path / "ort.tgz", {MODULE: b"", WASM: b"\0asm"})]
    card, of_graphs = tmp_path / "card.md", ["--storage", "mixed", "--dtype", "float16", "--with-backbone"]
    done = call_program(export.main, lite_folder, *options, "--card", card, *of_graphs, "--data", "d")
    assert done.error == (
        f"--data, --dtype, --storage, --card, --with-backbone have no effect on the page of {lite_folder}, which is a "
        "folder of --onnx"
    )
    done = call_program(export.main, lite_folder, *options, "--backbone-weights", "w")
    assert done.error.startswith("--backbone-weights has no effect on the page of ")
    done = call_program(export.main, tiny_bundle, *options, "--onnx")
    assert done.error == "--onnx has no effect with --html or --html-folder, which write a page"
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("name", ["captioner.json", "words.json"])
def test_a_damaged_captioner_is_named(
    call_program: Callable[..., Any], lite_folder: Path, tmp_path: Path, name: str
) -> None:
    damaged = shutil.copytree(lite_folder, tmp_path / "damaged")
    ort = archive(tmp_path / "ort.tgz", {MODULE: SCRIPT.encode(), WASM: b"\0asm"})
    (damaged / name).write_text("{")
    done = call_program(export.main, damaged, "--html", tmp_path / "c.html", "--ort-web", ort)
    assert done.status == 1
    assert f"{damaged}: its captioner.json or words.json is damaged: " in done.error
    assert not (tmp_path / "c.html").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven photos, others of other kinds, and two files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    files = draw(folder)
    image = Image.open(files[3]).convert("RGB")
    for name, other in {
        "grey.png": image.convert("L"), "palette.gif": image.convert("P"), "photo.webp": image,
        "large.png": image.resize((1501, 1103)),
    }.items():  # fmt: skip
        other.save(folder / name, **({"lossless": True} if name.endswith("webp") else {}))
        files.append(folder / name)
    (folder / "notes.txt").write_text("bread, milk")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    return [*files, folder / "notes.txt", folder / "cut.jpg"]


@pytest.fixture(scope="module", params=[390, 1440])
def page(
    request: pytest.FixtureRequest, lite_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, list[str]]]:
    """The page in a window of some width, and the addresses that it asked for."""
    if not os.environ.get("XGPT_ORT_WEB"):
        pytest.skip("XGPT_ORT_WEB does not name the archive of npm's package onnxruntime-web")
    path = tmp_path_factory.mktemp("page") / "captioner.html"
    export.main([str(lite_folder), "--html", str(path), "--ort-web", os.environ["XGPT_ORT_WEB"]])
    with opened(viewport={"width": request.param, "height": 900}) as tab:
        asked: list[str] = []
        # from the start on: see tests/serving/test_page.py
        tab.on("filechooser", lambda chooser: None)
        tab.on("request", lambda each: asked.append(each.url))
        tab.on("pageerror", lambda error: asked.append(f"error: {error}"))
        tab.goto(path.as_uri())
        yield tab, asked


def test_photos_have_the_captions_of_the_runtime(
    page: tuple[Any, list[str]], photos: list[Path], lite_folder: Path
) -> None:
    from xgpt_runtime import Captioner

    tab, asked = page
    tab.locator("#beam").select_option("3")
    tab.locator("#photos").focus()  # where a keyboard comes first
    tab.set_input_files("#photos", list(map(str, photos)))
    cards = tab.locator("article")
    for number in range(len(photos)):
        cards.nth(number).and_(tab.locator("[aria-busy=false]")).wait_for(timeout=120_000)
    found = {card.locator("h2").inner_text(): card for card in cards.all()}
    lite = Captioner(lite_folder)
    for photo in photos[:-2]:
        card = found[photo.name]
        [expected] = lite.candidates([lite.regions(lite.load(photo))], _beam(3))
        assert card.locator(".caption").inner_text() == expected[0].text
        shown = card.locator("li span:first-child")
        assert shown.all_text_contents() == [each.text or "(empty)" for each in expected[1:]]
        assert f"{expected[0].score:.2f}".replace("-", "−") in card.locator("p.scores").inner_text()
    for photo in photos[-2:]:
        assert found[photo.name].locator(".error").inner_text() == "not a photo that this browser can read, or damaged"
    look_at_words(found[photos[3].name], lite, photos[3])
    assert not [each for each in asked[1:] if not each.startswith("blob:")]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def look_at_words(card: Any, lite: Any, photo: Path) -> None:
    """By arrow keys: each word of a caption shows the weights of the runtime."""
    [expected] = lite.caption(photo, beam=3, return_attention=True)
    card.locator(".caption").focus()
    for word, weights in zip(expected.attention.words, expected.attention.weights, strict=True):
        card.get_by_text(f"“{word.text}” looks at region ").wait_for()
        drawn = card.locator("svg.attention").get_attribute("data-weights")
        np.testing.assert_allclose(list(map(float, drawn.split())), weights, atol=1e-4)
        card.page.keyboard.press("ArrowRight")


def test_by_keyboard_alone(page: tuple[Any, list[str]], photos: list[Path]) -> None:
    tab, _ = page

    def pressed(key: str) -> str:
        """What has the focus after the key, and its frame."""
        tab.keyboard.press(key)
        found: str = tab.evaluate(
            """() => {
              const { id, className, tagName } = document.activeElement;
              const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
              return `${id || className || tagName} ${outlineStyle} ${outlineWidth}`;
            }"""
        )
        return found

    def choose(key: str) -> None:
        count = tab.locator("article").count()
        with tab.expect_file_chooser() as chosen:
            tab.keyboard.press(key)
        chosen.value.set_files(str(photos[0]))
        tab.locator("article").first.locator(".caption.looks").wait_for(timeout=60_000)
        assert tab.locator("article").count() == count + 1

    tab.locator("#photos").focus()
    choose("Enter")
    assert pressed("Tab") == "beam solid 3px"
    tab.keyboard.press("2")
    assert tab.locator("#beam").input_value() == "2"
    assert pressed("Tab") == "regions solid 3px"
    shown = tab.locator("#regions").is_checked()
    tab.keyboard.press("Space")
    assert tab.locator("#regions").is_checked() is not shown
    assert tab.locator("svg.regions").first.is_visible() is not shown
    assert pressed("Tab") == "caption looks solid 3px"
    tab.locator("article").first.get_by_text("looks at region").wait_for(timeout=60_000)
    assert pressed("Tab") == "SUMMARY solid 3px"
    tab.keyboard.press("Enter")
    assert tab.locator("article").first.locator("li").first.is_visible()
    assert [pressed("Shift+Tab").split()[0] for _ in range(4)] == ["caption", "regions", "beam", "photos"]
    choose("Space")


def _beam(beam: int) -> Any:
    from xgpt_runtime import SearchOptions

    return SearchOptions(beam=beam)


def test_the_random_photos_are_of_several_shapes(photos: list[Path]) -> None:
    shapes = {np.asarray(Image.open(photo)).shape[:2] for photo in photos[:-2]}
    assert len(shapes) > 3
