"""How networks are found by name."""

from __future__ import annotations

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.families import find_loader

FAMILIES = {"small": 1, "timm:NAME": 2}


def test_by_name_and_by_family() -> None:
    assert [find_loader(name, FAMILIES, "network") for name in ("small", "timm:a", "timm:b:c")] == [1, 2, 2]


@pytest.mark.parametrize("name", ["smal", "small:a", "timm", "timm:", ""])
def test_names_of_none(name: str) -> None:
    with pytest.raises(DataError, match=f"there is no network '{name}'; there are small, timm:NAME"):
        find_loader(name, FAMILIES, "network")
