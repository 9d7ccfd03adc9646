"""How networks are found by name: `NAME` alone, or `FAMILY:NAME` of a library."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TypeVar

from xgpt_fairseq.errors import DataError

Loader = TypeVar("Loader")


# What the environment variable is for "yes", as huggingface_hub reads it.
_YES = {"1", "ON", "YES", "TRUE"}
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def stay_offline(asked: bool) -> bool:
    """Whether nothing is fetched from the network: *asked* (`--offline`), or the user's environment says so.

    If so, the libraries are told, also one that has read the environment already when it was imported.
    """
    offline = asked or any(os.environ.get(name, "").upper() in _YES for name in _OFFLINE)
    if offline:
        os.environ.update(dict.fromkeys(_OFFLINE, "1"))
        if (constants := sys.modules.get("huggingface_hub.constants")) is not None:
            constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    return offline


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
