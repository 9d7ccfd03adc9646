"""The page of `xgpt-export --html`: one file that captions photos by itself, from disk and without a network.

It is the page of `xgpt-caption --serve` with all that the server does in it: the graphs of `xgpt-export --onnx`, their
weights, and onnxruntime-web, which runs them. Its content security policy forbids every request.

`--html-folder` writes the same as files, for any web server. Its policy allows only requests to that server.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.captioning_page import STYLES
from xgpt_fairseq.pages.rendering import policy_hash, read_template, template

# Of the package onnxruntime-web of npm: the library as a module with its own loader in it, and what it loads.
_MODULE: Final = "package/dist/ort.wasm.bundle.min.mjs"
_WASM: Final = "package/dist/ort-wasm-simd-threaded.wasm"
_SCRIPTS: Final = (
    "looks.js", "anywhere_formats.js", "anywhere_decode.js", "anywhere_photos.js", "anywhere_words.js",
    "anywhere_search.js", "anywhere.js", "captioning.js",
)  # fmt: skip
_CHUNK: Final = 1 << 20
_GRAPHS: Final = ("photo", "regions", "step", "look")
_EXPORTS: Final = re.compile(r"export\{([\w$ ,]+)\};?\s*(?://# sourceMappingURL=\S+\s*)?$")
_BILINEAR: Final = "bilinear"
FORMATS: Final = ("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF")


@dataclass(frozen=True)
class OrtWeb:
    """onnxruntime-web: its JavaScript, as a module and with a name `ort` in place of exports, and its WebAssembly."""

    module: str
    script: str
    wasm: bytes

    @classmethod
    def read(cls, path: Path) -> OrtWeb:
        """Read the package's archive, as npm has it.

        Raises:
            DataError: it is none, or of a version that is built in another way.
        """
        get = "npm pack onnxruntime-web, or registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
        try:
            with tarfile.open(path) as archive:
                module, wasm = (_member(archive, name) for name in (_MODULE, _WASM))
                while archive.fileobj is not None and archive.fileobj.read(_CHUNK):
                    pass  # up to the checksum at the end
            text = module.decode("utf-8")
        except (OSError, EOFError, ValueError, KeyError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise DataError(
                f"--ort-web {path} is no archive of the npm package onnxruntime-web ({reason}): {get}"
            ) from None
        found = _EXPORTS.search(text)
        if found is None or "</script" in text or "<!--" in text:
            raise DataError(f"--ort-web {path}: its {_MODULE} can't be put into a page; version 1.30.0 can ({get})")
        names = (pair.split(" as ") for pair in found[1].split(","))
        exported = ",".join(f"{name.strip()}:{own.strip()}" for own, name in names if name.strip() != "default")
        return cls(text, f"{text[: found.start()]}const ort={{{exported}}};", wasm)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


@dataclass(frozen=True)
class Shown:
    """What a page shows besides the captioner.

    Attributes:
        title: of the page.
        beams, beam: the beam sizes to choose from, and the one that is chosen at first.
        max_bytes, max_pixels: of a photo.
    """

    title: str
    beams: Sequence[int]
    beam: int
    max_bytes: int
    max_pixels: int


def render_standalone_page(folder: Path, ort: OrtWeb, shown: Shown) -> str:
    """Render the page of the captioner in *folder*, which `onnx_export.folder` wrote.

    Args:
        folder: the captioner.
        ort: what runs it.
        shown: what else the page shows.

    Raises:
        DataError: the captioner takes no photos, or resizes them in a way that the page has not, or is of an earlier
            version; jinja2 is missing.
    """
    settings = _settings(folder, "--html")
    parts = {name: base64.b64encode(part).decode("ascii") for name, part in _parts(folder, ort).items()}
    script = "\n".join(["\n" + ort.script, *map(read_template, ("anywhere_embedded.js", *_SCRIPTS))])
    style = "".join(map(read_template, STYLES))
    policy = [
        "default-src 'none'",
        "img-src blob: data:",
        f"style-src 'sha256-{policy_hash(style)}'",
        f"script-src 'sha256-{policy_hash(script)}' 'wasm-unsafe-eval'",
    ]
    return _html("--html", shown, policy, {"settings": settings, **parts}, script=script, style=style)


def write_page_folder(folder: Path, ort: OrtWeb, shown: Shown, output: Path) -> None:
    """Write the same page as files to the empty folder *output*, `FOLDER_FILES`.

    The parts of the captioner are compressed, since not every server does that. The page asks for its files by their
    common checksum, and for what runs them by its own, so that a browser takes none of an earlier captioner from its
    cache.

    Raises:
        DataError: as `render_standalone_page`.
    """
    settings = _settings(folder, "--html-folder")
    library = f"./ort.js?{hashlib.sha256(ort.module.encode()).hexdigest()[:16]}"
    script = [f'import * as ort from "{library}";\n', *map(read_template, ("anywhere_files.js", *_SCRIPTS))]
    files = {
        **{f"{name}.packed": part for name, part in _parts(folder, ort).items()},
        "ort.js": ort.module.encode(),
        "page.js": "\n".join(script).encode(),
        "page.css": "".join(map(read_template, STYLES)).encode(),
    }
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    policy = [
        "default-src 'none'",
        "img-src blob: data:",
        "style-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "connect-src 'self'",
    ]
    html = _html("--html-folder", shown, policy, {"settings": settings}, version=digest.hexdigest()[:16])
    for name, content in files.items():
        (output / name).write_bytes(content)
    (output / "README.md").write_text(_README, encoding="utf-8")
    (output / "index.html").write_text(html, encoding="utf-8")


FOLDER_FILES: Final = (
    "index.html", "page.js", "page.css", "ort.js", "wasm.packed", "weights.packed",
    *(f"{name}.packed" for name in _GRAPHS), "README.md",
)  # fmt: skip
_README: Final = """\
Any web server can serve this folder; to try it: `python3 -m http.server 8000` in it, then http://localhost:8000.
Photos stay in the browser: the server sees requests for these files alone, and the page's policy forbids all others.
"""


def _settings(folder: Path, option: str) -> str:
    """What the page has to know of the captioner, as JSON.

    Raises:
        DataError: the page cannot show this captioner, or its description is damaged.
    """
    try:
        described = json.loads((folder / "captioner.json").read_text(encoding="utf-8"))
        words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
        _check_photos(described, option)
        settings = {
            "photos": described["photos"],
            "words": words,
            "novelty": _novelty(folder / "novelty.npz"),
            "layers": described["layers"],
            "heads": described["attention_heads"],
            "headWidth": described["hidden_size"] // described["attention_heads"],
            "longest": described["max_target_positions"] - 1,
        }
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{folder}: its captioner.json or words.json is damaged: {error!r}; export it again") from None
    return json.dumps(settings).replace("<", "\\u003c")


def _check_photos(described: Mapping[str, Any], option: str) -> None:
    photos = described["photos"]
    if photos is None:
        raise DataError(f"{option}: the captioner takes no photos: {described['no_photos']}")
    if photos["grid"] is None:
        raise DataError(f"{option}: the model was trained on boxes of a detector, which a page has not")
    if photos["interpolation"] != _BILINEAR:
        raise DataError(
            f"{option}: photos are resized by {photos['interpolation']}, the page can do so only by {_BILINEAR}"
        )


def _parts(folder: Path, ort: OrtWeb) -> dict[str, bytes]:
    """What runs, by name, compressed; the same bytes at any time."""
    if not (folder / "look.onnx").is_file():
        raise DataError(f"{folder} was exported without look.onnx, which pages need: export it again")
    contents = {"wasm": ort.wasm, "weights": (folder / "weights.bin").read_bytes()}
    contents |= {name: (folder / f"{name}.onnx").read_bytes() for name in _GRAPHS}
    return {name: gzip.compress(content, 9, mtime=0) for name, content in contents.items()}


def _html(
    what: str,
    shown: Shown,
    policy: Sequence[str],
    data: Mapping[str, str],
    *,
    script: str = "",
    style: str = "",
    version: str = "",
) -> str:
    page = template("captioning.html", what=f"the page of {what}", script=script, style=style)
    return page.render(
        title=shown.title,
        policy="; ".join([*policy, "base-uri 'none'", "form-action 'none'"]),
        beams=shown.beams,
        beam=shown.beam,
        lenpen=1,
        score="log-probability per token",
        formats=FORMATS,
        max_bytes=shown.max_bytes,
        max_pixels=shown.max_pixels,
        data=data,
        version=version,
    )


def _novelty(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        with np.load(file) as arrays:
            median, limit, _ = map(float, arrays["limits"])
            mean, directions = arrays["mean"], arrays["directions"].astype(np.float32)
    except Exception as error:  # bytes that are damaged fail anywhere in numpy
        raise DataError(f"{file} is damaged: {type(error).__name__} {error}") from None
    rows = [[float(f"{value:.4g}") for value in row] for row in directions]
    return {"mean": [float(f"{value:.6g}") for value in mean], "directions": rows, "median": median, "limit": limit}
