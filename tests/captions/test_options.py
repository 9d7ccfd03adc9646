"""Options of the programs that read captions."""

from __future__ import annotations

import pytest

from xgpt_fairseq.captions.options import parse_columns
from xgpt_fairseq.errors import DataError


def test_columns() -> None:
    assert parse_columns("") == {}
    assert parse_columns(" image = my photo,split=part") == {"image": "my photo", "split": "part"}
    assert parse_columns("caption=en,image=photo, caption=de") == {"image": "photo", "caption": "en,de"}


@pytest.mark.parametrize("text", ["image=a,image=b", "split=a,split=b", "photo=a", "image", "caption=", "caption=a,=b"])
def test_columns_that_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="each once, but for several columns of captions") as caught:
        parse_columns(text)
    assert text in str(caught.value)
