"""How networks are found by name: `NAME` alone, or `FAMILY:NAME` of a library."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TypeVar

from xgpt_fairseq.errors import DataError

Loader = TypeVar("Loader")


# What the environment variable is for "yes", as huggingface_hub reads it.
_YES = {"1", "ON", "YES", "TRUE"}
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_HUB = "huggingface_hub.constants"


def stay_offline(asked: bool) -> bool:
    """Whether nothing is fetched from the network: *asked* (`--offline`), or the user's environment says so.

    If so, the libraries are told, also one that has read the environment already when it was imported.
    """
    offline = asked or _says_environment()
    if offline:
        os.environ.update(dict.fromkeys(_OFFLINE, "1"))
        if (constants := sys.modules.get(_HUB)) is not None:
            constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    return offline


@contextlib.contextmanager
def for_one_network() -> Iterator[None]:
    """While a network is loaded: what `stay_offline` told the libraries is then taken back; others may be fetched."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    known = getattr(sys.modules.get(_HUB), "HF_HUB_OFFLINE", None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if (constants := sys.modules.get(_HUB)) is not None:
            constants.HF_HUB_OFFLINE = _says_environment() if known is None else known  # type: ignore[attr-defined]


def _says_environment() -> bool:
    return any(os.environ.get(name, "").upper() in _YES for name in _OFFLINE)


def find_loader(name: str, families: Mapping[str, Loader], what: str) -> Loader:
    """What loads the network *name*.

    Args:
        families: by the form of their names: `efficientnet-lite0`, `timm:NAME`.
        what: what such a network is called, for the message.

    Raises:
        DataError: there is none of this name.
    """
    family, _, of_family = name.partition(":")
    for form, load in families.items():
        if form == name or (of_family and form.startswith(f"{family}:")):
            return load
    raise DataError(f"there is no {what} {name!r}; there are {', '.join(families)}")
