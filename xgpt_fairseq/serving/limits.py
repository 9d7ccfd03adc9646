"""What the server of `xgpt-caption --serve` takes, and how long it waits."""

from __future__ import annotations

from typing import Final

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8000

MAX_FILE_BYTES: Final = 25_000_000
MAX_PIXELS: Final = 50_000_000
BEAMS: Final = range(1, 6)

# Photos that are sent, wait or are captioned at a time; each is held in memory.
MAX_PHOTOS: Final = 8
# Browsers open some connections ahead, which wait for a request.
MAX_CONNECTIONS: Final = 64

# A request's head arrives within this time, then the file, and the answer is taken within it.
SECONDS: Final = 30.0

IN_WORDS: Final = (
    f"{MAX_FILE_BYTES / 1e6:g} MB a file, {MAX_PIXELS / 1e6:g} megapixels a photo, {MAX_PHOTOS} photos at a time, "
    f"{SECONDS:g} seconds for a file to arrive"
)
