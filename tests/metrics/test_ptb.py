"""Our PTB tokenization against pycocoevalcap's own, on real captions and on awkward ones."""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from pathlib import Path

import pytest
from pycocoevalcap.tokenizer import ptbtokenizer

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics import ptb
from xgpt_fairseq.metrics.java import java_first_in_path
from xgpt_fairseq.metrics.ptb import PtbTokenizer, ptb_tokenize

AWKWARD = [
    "",
    "   ",
    "A man, a plan; a canal: Panama!",
    "don't can't it's the dogs' bowls rock 'n' roll",
    "A sign says \"STOP\" - or ``stop'' -- or “stop” … or ‘stop’",
    "a well-known black-and-white cat",
    "a café in São Paulo, 中文, ÉCOLE, straße",
    "two 😀 faces",
    "(left) [right] {both} <b>bold</b> &amp; more",
    "call (123) 456-7890 at 5:30 p.m. in the U.S.",
    "U.S.",
    "...",
    "a ||| b",
    "price: $1.50, 20% off; 1/2 of #3 @ home_page www.example.com",
    "a no-break\xa0space",
    "two\nlines",
    "",
]


def pycocoevalcap_tokens(captions: list[str], folder: Path) -> list[str]:
    """What pycocoevalcap's tokenizer gives, its temporary file in *folder*."""
    folder.joinpath(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR).symlink_to(
        Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    )
    with pytest.MonkeyPatch.context() as patch, java_first_in_path():
        patch.setattr(ptbtokenizer, "__file__", str(folder / "ptbtokenizer.py"))
        tokens = ptbtokenizer.PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(captions)})
    return [tokens[i][0] for i in range(len(captions))]


def test_same_as_pycocoevalcap(coco_mini: Path, tmp_path: Path) -> None:
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text())["images"]
    captions = AWKWARD + [sentence["raw"] for image in images for sentence in image["sentences"]]
    assert len(captions) > 2500
    assert ptb_tokenize(captions) == pycocoevalcap_tokens(captions, tmp_path)


def test_known_tokens() -> None:
    assert ptb_tokenize(["A man's dog, it DOESN'T \"sit\".", "", "Well-known - place!"]) == [
        "a man 's dog it does n't sit",
        "",
        "well-known place",
    ]


def test_no_captions_need_no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert ptb_tokenize([]) == []


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_line_break_is_a_space(line_break: str) -> None:
    assert ptb_tokenize([f"a man{line_break}a dog{line_break}", "a cat"]) == ["a man a dog", "a cat"]


def test_an_accent_is_one_however_it_is_written() -> None:
    """Models write in one of the two forms; people, in both."""
    composed = "Ein Hündchen läuft über die Straße, l'été à Hà Nội 개가"
    decomposed = unicodedata.normalize("NFD", composed)
    assert decomposed != composed
    [one, other] = ptb_tokenize([composed, decomposed])
    assert one == other and "hündchen" in one


def test_one_line_for_each_caption_whatever_it_holds() -> None:
    pieces = [*"aZ19 .,-'\"`()[]<>|&;:!?/\\@#$%*_\t\0\x1a\v\u2028\ufeff\u200b\xa0\xadé😀\ud83d", "U.S.", "<a ", "n't"]
    rng = random.Random(0)
    captions = ["".join(rng.choices(pieces, k=rng.randrange(15))) for _ in range(3000)]
    tokens = ptb_tokenize(captions)
    # A caption's tokens do not depend on its neighbours: what is remembered from one batch holds in the next.
    assert ptb_tokenize(captions[::-1]) == tokens[::-1]
    # METEOR separates captions with three bars.
    assert not any("|||" in line for line in tokens)


def test_a_caption_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize = PtbTokenizer()
    assert tokenize(["A dog.", "a cat", "A dog."]) == ["a dog", "a cat", "a dog"]
    monkeypatch.setenv("PATH", "")  # no Java any more
    assert tokenize(["a cat", "A dog."]) == ["a cat", "a dog"]


WORDS = [
    "a", "an", "the", "man", "dog's", "can't", "don't", "cannot", "Cannot", "gonna", "wanna", "gimme", "lemme",
    "dunno", "o'clock", "y'all", "c'mon", "d'Avignon", "n't", "t-shirt", "well-known", "black-and-white", "e-mail",
    "x-ray", "rock", "n", "roll", "colour", "mr", "Mr", "mrs", "st", "St", "inc", "Inc", "no", "No", "nos", "art",
    "fig", "etc", "vs", "U", "u", "s", "p", "m", "jan", "Ave", "dr", "ft", "al", "ca", "d", "I", "x", "alex", "Miss",
    "wed",
]  # fmt: skip


def asked_of_java(patch: pytest.MonkeyPatch) -> list[list[str]]:
    """The captions of each run of Java, from now on."""
    runs: list[list[str]] = []

    def recorded(captions: list[str]) -> list[str]:
        runs.append(captions)
        return ptb_tokenize(captions)

    patch.setattr(ptb, "ptb_tokenize", recorded)
    return runs


def test_captions_are_put_together_from_known_words(coco_mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is as Java has it, in real captions and where words are next to each other that Java knows rules for."""
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text())["images"]
    real = [text for image in images for s in image["sentences"] for text in (s["raw"], s["raw"].lower())]
    rng = random.Random(0)
    drawn = [" ".join(rng.choice(WORDS) + rng.choice(["", "", ",", " ,"]) for _ in range(5)) for _ in range(3000)]
    drawn = [text + rng.choice(["", ".", " ."]) for text in drawn] + [f"{a} {b}" for a in WORDS for b in WORDS]
    tokenize = PtbTokenizer()
    tokenize([" ".join(real), " ".join(WORDS)])
    runs = asked_of_java(monkeypatch)
    for captions, most in ((real, 0.04), (drawn, 0.6)):
        runs.clear()
        # What is left to Java is left out: a full stop behind an abbreviation is told by the next line.
        assert len(tokenize(captions)) == len(captions)
        [left] = runs
        assert len(left) < most * len(captions)
        known = [caption for caption in dict.fromkeys(captions) if caption not in left]
        assert tokenize(known) == ptb_tokenize(known)


@pytest.mark.parametrize("caption", ["by st.", "by st,", "a u.", "a dog. a man.", "a dog  a man", "a dog!", "2 dogs"])
def test_what_is_more_than_known_words_is_left_to_java(caption: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize = PtbTokenizer()
    tokenize(["a dog by a man", "st", "u", "dogs"])
    runs = asked_of_java(monkeypatch)
    assert tokenize(["a dog, by a man .", caption]) == ["a dog by a man", *ptb_tokenize([caption])]
    assert runs == [[caption]]


def fake_java(folder: Path, script: str) -> None:
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    java.chmod(0o755)


def test_failure_shows_what_java_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "sys.exit('Error: Could not create the Java Virtual Machine.')")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"failed with status 1: Error: Could not create the Java Virtual Machine\."):
        ptb_tokenize(["a dog"])


def test_lines_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "print('a dog')")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(DataError, match="made 1 lines of 2 captions"):
        ptb_tokenize(["a dog", "a cat"])
