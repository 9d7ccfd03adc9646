"""What a page that captions by itself makes of the bytes of a photo, asked from Python."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import numpy as np

from xgpt_fairseq.pages.rendering import read_template

_READ = """async ([content, form]) => {
  try {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    const photo = await pixelsOf(bytes.buffer);
    const { width, height, note } = photo;
    const target = sizeOf(width, height, form);
    const pixels = fitted(photo, target);
    const text = Array.from(pixels, (value) => String.fromCharCode(value)).join("");
    return { pixels: btoa(text), size: [width, height], target, note };
  } catch (error) {
    return { error: error.message };
  }
}"""


class Decoded(NamedTuple):
    """A photo as a page has it: pixels (H, W, 3) uint8 in the network's size, the size of the photo itself, and what
    the page remarks; or an error, and nothing else."""

    pixels: np.ndarray
    size: tuple[int, int]
    note: str
    error: str


def make_decoding(tab: Any) -> None:
    """Give an empty *tab* the scripts that decode and resize photos."""
    tab.set_content('<body data-max-pixels="20000000">')
    for name in ("anywhere_photos.js", "anywhere_formats.js", "anywhere_decode.js"):
        tab.add_script_tag(content=read_template(name))


def decoded(tab: Any, content: bytes, form: dict[str, Any]) -> Decoded:
    """*content* as a *tab* of `make_decoding` decodes it and resizes it to *form*, the fields of a `PhotoForm`."""
    found = tab.evaluate(_READ, [base64.b64encode(content).decode(), form])
    if "error" in found:
        return Decoded(np.empty((0, 0, 3), np.uint8), (0, 0), "", found["error"])
    columns, rows = found["target"]
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(rows, columns, 3)
    return Decoded(pixels, tuple(found["size"]), found["note"], "")
