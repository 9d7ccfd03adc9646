"""What a region extractor's features depend on, and how two stores of regions differ in it.

`store.json` keeps the settings of our extractors as `source["extractor"]`, checkpoints among what no shape shows, and
bundles as `extractor`. Stores of imported archives have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

SETTINGS_VERSION: Final = 2
# What settings of version 1 leave out, which were all of the default backbone's last layer.
VERSION_1: Final = {
    "layer": None,
    "prefix_tokens": 0,
    "stride": 32,
    "mean": [127.0] * 3,
    "std": [128.0] * 3,
    "interpolation": "bilinear",
    "square": False,
    "dtype": "float32",
}
# Settings that don't decide a feature.
UNCOMPARED: Final = ("version", "revision", "license")


def compared_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of an extractor's *settings*, of any version, those that decide a feature."""
    full = {**VERSION_1, **settings} if settings.get("version") == 1 else settings
    return {name: value for name, value in full.items() if name not in UNCOMPARED}


def settings_that_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The settings of two extractors that make other features: their names, and both values; None: it has none."""
    first, second = compared_settings(one), compared_settings(other)
    for name in dict.fromkeys([*first, *second]):
        values = first.get(name), second.get(name)
        if values[0] != values[1]:
            yield name, *values
