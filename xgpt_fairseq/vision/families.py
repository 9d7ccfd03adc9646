"""How networks are found by name: `NAME` alone, or `FAMILY:NAME` of a library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from xgpt_fairseq.errors import DataError

Loader = TypeVar("Loader")


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
