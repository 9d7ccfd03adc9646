"""conversations: about a photo, as vision-language models are trained on; the assistant's answer is the caption."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.columns import grouped_images, photo_path, split_name
from xgpt_fairseq.captions.json_values import file_name_of, image_id_of
from xgpt_fairseq.captions.records import HEAD, Record, json_lines, json_list, record_lists, record_object
from xgpt_fairseq.errors import DataError

_ASSISTANTS = ("gpt", "assistant")
_PLACEHOLDER = "<image>"
_IMAGE_IN_TEXT = re.compile(r"<img>(.+?)</img>")  # Qwen-VL
# (list of turns, who speaks, what is said)
_LAYOUTS = (("conversations", "from", "value"), ("messages", "role", "content"), ("conversations", "role", "content"))


def recognise(file: CaptionFile) -> bool:
    """Whether there are lists of turns, and a photo."""
    value = file.json_value
    if value is None:
        return _are_conversations(file.head_of_json_lines)
    return (
        _are_conversations(value[:HEAD]) if isinstance(value, list) else bool(record_lists(value, _are_conversations))
    )


def _are_conversations(head: list[Any]) -> bool:
    turns = [value for value in head if _turns(value) is not None]
    return 2 * len(turns) > len(head) and any(map(_photos, turns))


def _turns(record: Any) -> list[tuple[str, Any]] | None:
    """(who speaks, what is said) of each turn; None if that is not how the record is."""
    for key, who, what in _LAYOUTS:
        turns = record.get(key) if isinstance(record, dict) else None
        if (
            isinstance(turns, list)
            and turns
            and all(isinstance(turn, dict) and isinstance(turn.get(who), str) and what in turn for turn in turns)
        ):
            return [(turn[who].strip().lower(), turn[what]) for turn in turns]
    return None


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """LLaVA's `{"image", "conversations": [{"from", "value"}]}`, and `{"images", "messages": [{"role", "content"}]}`.

    A JSON list, or JSON lines. The content of a message may be a list of parts, of text and of photos.
    """

    def records() -> Iterator[Record]:
        return json_lines(file) if file.json_value is None else json_list(file, _are_conversations)

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        for record in records():
            try:
                image = _image(record, options.answers)
            except DataError as error:
                options.log.bad_record(error)
            else:
                yield record.where, image

    return grouped_images(images, options.log)


def _image(record: Record, answers: str) -> CaptionedImage:
    where, value = record.where, record_object(record)
    turns = _turns(value)
    if turns is None:
        raise DataError(
            f"{where} has no 'conversations' or 'messages', lists of turns with who speaks and what is said"
        )
    photos = _photos(value)
    if len(photos) != 1:
        several = f"{len(photos)} photos ({', '.join(map(str, photos))[:60]})" if photos else "no photo"
        raise DataError(f"{where} is about {several}; a conversation must be about one")
    texts = [_text(where, said) for who, said in turns if who in _ASSISTANTS]
    if not texts:
        speakers = ", ".join(dict.fromkeys(who for who, _ in turns))
        raise DataError(f"{where} has no answer of {' or '.join(_ASSISTANTS)}; there speak: {speakers[:60]}")
    if len(texts) > 1 and answers == "one":
        raise DataError(
            f"{where} has {len(texts)} answers: say by --answers whether the first or all of them are captions"
        )
    kept = texts if answers == "all" else texts[:1]
    return CaptionedImage(
        image_id_of(where, "image", photos[0]),
        split_name(f"{where}: 'split'", value.get("split")) or record.split,
        [Caption(place, text) for place, text in enumerate(kept)],
        file_name_of(photos[0]),
    )


def _photos(record: dict[str, Any]) -> list[Any]:
    """The names of a conversation's photos, each once."""
    found: list[Any] = []
    for key in ("image", "images"):
        values = record.get(key)
        found += values if isinstance(values, list) else [values]
    for _, said in _turns(record) or []:
        if isinstance(said, list):
            for part in said:
                if isinstance(part, dict):
                    url = part.get("image_url")
                    found += [part.get("image"), url.get("url") if isinstance(url, dict) else url]
        elif isinstance(said, str) and "<img>" in said:
            found += _IMAGE_IN_TEXT.findall(said)
    names = [name for value in found if (name := photo_path(value)) not in (None, "")]
    return [name for place, name in enumerate(names) if name not in names[:place]]


def _text(where: str, said: Any) -> str:
    """What is said, a text or the parts of one, without placeholders of photos.

    Raises:
        DataError: it is anything else.
    """
    if isinstance(said, list):
        said = " ".join(_text(where, part.get("text", "") if isinstance(part, dict) else part) for part in said).strip()
    if not isinstance(said, str):
        raise DataError(f"{where}: an answer must be text, found {repr(said)[:60]}")
    return said.replace(_PLACEHOLDER, "").strip() if _PLACEHOLDER in said else said


CONVERSATIONS = CaptionFormat(
    "conversations",
    "a question and an answer about a photo: LLaVA, ShareGPT, messages; JSON list or lines",
    recognise,
    read,
    takes_answers=True,
)
