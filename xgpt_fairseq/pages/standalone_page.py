"""The page of `xgpt-export --html`: one file that captions photos by itself, from disk and without a network.

It is the page of `xgpt-caption --serve` with all that the server does in it: the graphs of `xgpt-export --onnx`, their
weights, and onnxruntime-web, which runs them. Its content security policy forbids every request.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.rendering import policy_hash, read_template, template

# Of the package onnxruntime-web of npm: the library as a module with its own loader in it, and what it loads.
_MODULE: Final = "package/dist/ort.wasm.bundle.min.mjs"
_WASM: Final = "package/dist/ort-wasm-simd-threaded.wasm"
_SCRIPTS: Final = ("anywhere_photos.js", "anywhere_words.js", "anywhere_search.js", "anywhere.js", "captioning.js")
_EXPORTS: Final = re.compile(r"export\{([\w$ ,]+)\};?\s*(?://# sourceMappingURL=\S+\s*)?$")
_BILINEAR: Final = "bilinear"
FORMATS: Final = ("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF")


@dataclass(frozen=True)
class OrtWeb:
    """onnxruntime-web: its JavaScript, with a name `ort` in place of exports, and its WebAssembly."""

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
        except (OSError, tarfile.TarError, KeyError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise DataError(
                f"--ort-web {path} is no archive of the npm package onnxruntime-web ({reason}): {get}"
            ) from None
        text = module.decode("utf-8")
        found = _EXPORTS.search(text)
        if found is None or "</script" in text or "<!--" in text:
            raise DataError(f"--ort-web {path}: its {_MODULE} can't be put into a page; version 1.30.0 can ({get})")
        names = (pair.split(" as ") for pair in found[1].split(","))
        exported = ",".join(f"{name.strip()}:{own.strip()}" for own, name in names if name.strip() != "default")
        return cls(f"{text[: found.start()]}const ort={{{exported}}};", wasm)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def render_standalone_page(
    folder: Path, ort: OrtWeb, *, title: str, beams: Sequence[int], beam: int, max_bytes: int, max_pixels: int
) -> str:
    """Render the page of the captioner in *folder*, which `onnx_export.folder` wrote.

    Args:
        folder: the captioner.
        ort: what runs it.
        title: title of the page.
        beams, beam: the beam sizes to choose from, and the one that is chosen at first.
        max_bytes, max_pixels: of a photo.

    Raises:
        DataError: the captioner takes no photos, or resizes them in a way that the page has not; jinja2 is missing.
    """
    described = json.loads((folder / "captioner.json").read_text(encoding="utf-8"))
    photos = described["photos"]
    if photos is None:
        raise DataError(f"--html: the captioner takes no photos: {described['no_photos']}")
    if photos["grid"] is None:
        raise DataError("--html: the model was trained on boxes of a detector, which a page has not")
    if photos["interpolation"] != _BILINEAR:
        raise DataError(
            f"--html: photos are resized by {photos['interpolation']}, the page can do so only by {_BILINEAR}"
        )
    settings = {
        "photos": photos,
        "words": json.loads((folder / "words.json").read_text(encoding="utf-8")),
        "novelty": _novelty(folder / "novelty.npz"),
        "layers": described["layers"],
        "heads": described["attention_heads"],
        "headWidth": described["hidden_size"] // described["attention_heads"],
        "longest": described["max_target_positions"] - 1,
    }
    data = {
        "settings": json.dumps(settings).replace("<", "\\u003c"),
        "wasm": _packed(ort.wasm),
        "weights": _packed((folder / "weights.bin").read_bytes()),
        **{name: _packed((folder / f"{name}.onnx").read_bytes()) for name in ("photo", "regions", "step")},
    }
    script = "\n".join(["\n" + ort.script, *map(read_template, _SCRIPTS)])
    style = read_template("gallery.css") + read_template("captioning.css")
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src blob: data:",
            f"style-src 'sha256-{policy_hash(style)}'",
            f"script-src 'sha256-{policy_hash(script)}' 'wasm-unsafe-eval'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return template("captioning.html", what="the page of --html", script=script, style=style).render(
        title=title,
        policy=policy,
        beams=beams,
        beam=beam,
        lenpen=1,
        score="log-probability per token",
        formats=FORMATS,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        data=data,
    )


def _novelty(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    with np.load(file) as arrays:
        median, limit, _ = map(float, arrays["limits"])
        mean, directions = arrays["mean"], arrays["directions"].astype(np.float32)
    rows = [[float(f"{value:.4g}") for value in row] for row in directions]
    return {"mean": [float(f"{value:.6g}") for value in mean], "directions": rows, "median": median, "limit": limit}


def _packed(content: bytes) -> str:
    """Compressed, as text; the same bytes at any time."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")
