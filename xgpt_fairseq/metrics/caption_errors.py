"""What can be seen of a caption without a score: words that nobody used, phrases that repeat, objects that it misses.

Places in a caption are spans of characters, (start, end).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from xgpt_fairseq.metrics.degeneration import has_repeat
from xgpt_fairseq.text.marks import is_mark
from xgpt_fairseq.text.scripts import is_unspaced

Span = tuple[int, int]

# English words that say nothing of an image by themselves: a person who did not use one did not disagree with it.
FUNCTION_WORDS: Final = frozenset({
    "a", "an", "the", "this", "that", "these", "those", "some", "it", "its", "his", "her", "their", "there",
    "of", "with", "in", "on", "at", "to", "by", "for", "from", "into", "onto", "near", "next",
    "and", "or", "as", "while", "who", "which", "is", "are", "was", "were", "be", "being", "been", "has", "have",
})  # fmt: skip
_MOST_MISSED = 8  # objects that are listed


class Missed(NamedTuple):
    """An object that a detector named and a caption does not.

    Attributes:
        label: the detector's.
        by_people: whether a person's caption of the image has it.
    """

    label: str
    by_people: bool


class Summary(NamedTuple):
    """What the captions of a system are like as a whole.

    Attributes:
        length: mean number of words.
        vocabulary: number of different words.
        repeats: share of captions that have two successive words twice, 0 to 1 (as `degeneration`).
        unused: share of captions with a word that no person used, 0 to 1; None where there are no people's captions.
    """

    length: float
    vocabulary: int
    repeats: float
    unused: float | None


def word_spans(text: str) -> list[Span]:
    """The words of *text*: runs of letters with their marks, digits and apostrophes.

    Letters of scripts without spaces are words one by one.
    """
    spans: list[Span] = []
    start = None
    for position, character in enumerate(text):
        other = not character.isascii()
        alone = other and is_unspaced(character)
        if not alone and (
            character.isalnum() or character in "_'" or (other and start is not None and is_mark(character))
        ):
            start = position if start is None else start
            continue
        if start is not None:
            spans.append((start, position))
            start = None
        if alone:
            spans.append((position, position + 1))
    if start is not None:
        spans.append((start, len(text)))
    return spans


def words(text: str) -> list[str]:
    """The words of *text* in small letters."""
    return [text[start:end].lower() for start, end in word_spans(text)]


def unused_words(text: str, people: Iterable[str]) -> list[Span]:
    """The words of *text* that none of *people*'s captions has, `FUNCTION_WORDS` left out."""
    theirs = {word for caption in people for word in words(caption)} | FUNCTION_WORDS
    return [(start, end) for start, end in word_spans(text) if text[start:end].lower() not in theirs]


def repeated_phrases(text: str) -> list[Span]:
    """The phrases of two words or more in *text* that come more than once, each time that they come."""
    spans = word_spans(text)
    said = [text[start:end].lower() for start, end in spans]
    pairs = list(itertools.pairwise(said))
    repeated = [pairs.count(pair) > 1 for pair in pairs]
    found: list[Span] = []
    for number, again in enumerate(repeated):
        if not again:
            continue
        start, end = spans[number][0], spans[number + 1][1]
        if found and start < found[-1][1]:  # goes on from the pair before
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def missed_objects(text: str, labels: Sequence[str], people: Sequence[str] = ()) -> list[Missed]:
    """The objects of *labels* that *text* does not name: those that people named first, otherwise in their order.

    A label of several words is named by its last ("tennis racket" by "racket"), and one with commas, as detectors have
    them for synonyms, by any of its parts. Plurals in s and es count.
    """
    said = set(words(text))
    theirs = {word for caption in people for word in words(caption)}
    missed = [
        Missed(label, _is_named(label, theirs))
        for label in dict.fromkeys(filter(None, labels))
        if not _is_named(label, said)
    ]
    return sorted(missed, key=lambda each: not each.by_people)[:_MOST_MISSED]


def _is_named(label: str, said: set[str]) -> bool:
    heads = [found[-1] for part in label.split(",") if (found := words(part))]
    forms = {form for head in heads for form in (head, f"{head}s", f"{head}es", head.removesuffix("s"))}
    return not forms.isdisjoint(said)


def summary(captions: Sequence[str], people: Sequence[Sequence[str]]) -> Summary:
    """Summarise the *captions* of a system, at least one; *people*'s captions of the same images, or none at all."""
    said = [words(caption) for caption in captions]
    unused = None
    if any(people):
        unused = sum(bool(unused_words(*pair)) for pair in zip(captions, people, strict=True)) / len(captions)
    return Summary(
        length=sum(map(len, said)) / len(said),
        vocabulary=len(set(itertools.chain.from_iterable(said))),
        repeats=sum(map(has_repeat, said)) / len(said),
        unused=unused,
    )
