"""Conversations about photos, of which the answers are captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import detect, put, read
from xgpt_fairseq.captions.base import ReadingLog
from xgpt_fairseq.errors import DataError

ASKED = {"from": "human", "value": "Describe the image concisely.\n<image>"}
LLAVA = {"id": "1", "image": "a/1.jpg", "conversations": [ASKED, {"from": "gpt", "value": "A dog."}]}


def messages(*turns: tuple[str, Any], **record: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **record}


@pytest.mark.parametrize(
    "record",
    [
        LLAVA,
        {**LLAVA, "conversations": [ASKED, {"from": "gpt", "value": "<image>\nA dog."}]},
        {"images": ["a/1.jpg"], "conversations": LLAVA["conversations"]},  # ShareGPT
        messages(("system", "Be brief."), ("user", "<image>?"), ("assistant", "A dog."), images=["a/1.jpg"]),
        messages(("user", "?"), ("assistant", "A dog."), images=[{"bytes": None, "path": "a/1.jpg"}]),
        messages(
            ("user", [{"type": "image", "image": "a/1.jpg"}, {"type": "text", "text": "?"}]),
            ("assistant", [{"type": "text", "text": "A dog."}]),
        ),
        messages(("user", "Picture 1: <img>a/1.jpg</img>\nWhat?"), ("assistant", "A dog.")),  # Qwen-VL
        messages(
            ("user", [{"type": "image_url", "image_url": {"url": "a/1.jpg"}}]), ("assistant", "A dog."), image="a/1.jpg"
        ),
    ],
)
def test_layouts(tmp_path: Path, record: dict[str, Any]) -> None:
    for path in (
        put(tmp_path, "talk.json", json.dumps([record, LLAVA], indent=1)),
        put(tmp_path, "talk.json", json.dumps(record) + "\n" + json.dumps(LLAVA)),
        put(tmp_path, "talk.jsonl", json.dumps(record) + "\n" + json.dumps(LLAVA)),
    ):
        assert detect(path) == "conversations"
        (image,) = read(path, unknown_split="all")
        assert (image.image_id, image.file_name) == ("a/1", "a/1.jpg")
        assert [caption.text for caption in image.captions] == ["A dog."] * 2


def test_several_answers(tmp_path: Path) -> None:
    more = [*LLAVA["conversations"], ASKED, {"from": "gpt", "value": "It runs."}]
    path = put(tmp_path, "train.json", json.dumps([{**LLAVA, "conversations": more}]))
    with pytest.raises(DataError, match=r"record 0 has 2 answers: say by --answers"):
        read(path)
    for answers, expected in (("first", ["A dog."]), ("all", ["A dog.", "It runs."])):
        (image,) = read(path, answers=answers)
        assert [caption.text for caption in image.captions] == expected


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**LLAVA, "image": ["a.jpg", "b.jpg"]}, r"record 1 is about 2 photos \(a\.jpg, b\.jpg\)"),
        ({**LLAVA, "image": None}, r"record 1 is about no photo; a conversation must be about one"),
        ({**LLAVA, "conversations": [ASKED]}, r"record 1 has no answer of gpt or assistant; there speak: human"),
        ({**LLAVA, "conversations": [{"from": "gpt", "value": 5}]}, r"record 1: an answer must be text, found 5"),
        ({**LLAVA, "conversations": []}, r"record 1 has no 'conversations' or 'messages'"),
        ([], r"record 1: \[\] is not a JSON object"),
    ],
)
def test_bad_records(tmp_path: Path, record: Any, message: str) -> None:
    path = put(tmp_path, "train.json", json.dumps([LLAVA, record]))
    with pytest.raises(DataError, match=message):
        read(path, "conversations")
    log = ReadingLog(1)
    assert [len(image.captions) for image in read(path, "conversations", log=log)] == [1]
    assert len(log.bad) == 1
