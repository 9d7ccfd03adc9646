"""The scripts of the page that captions by itself: photos as Pillow resizes them, text and search as in Python."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pages.browser import opened
from tests.runtime.test_search import EOS, NEVER, SYMBOLS, Table, probabilities
from tests.runtime.test_words import PIECES, ROBUST
from xgpt_fairseq.pages.rendering import read_template
from xgpt_fairseq.text.scripts import is_unspaced
from xgpt_runtime import fragile, moses
from xgpt_runtime.attention import words_of_pieces
from xgpt_runtime.photos import REDUCING_GAP, PhotoForm
from xgpt_runtime.search import SearchOptions, search


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with opened() as blank:
        blank.goto("about:blank")
        for name in ("anywhere_photos.js", "anywhere_words.js", "anywhere_search.js"):
            blank.add_script_tag(content=read_template(name))
        yield blank


RESIZE = """([text, width, height, target]) => {
  const pixels = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return btoa(Array.from(resized(pixels, width, height, target), (value) => String.fromCharCode(value)).join(""));
}"""


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((100, 75), (96, 64)), ((96, 64), (96, 64)), ((96, 100), (96, 64)), ((17, 31), (64, 96)),
        ((640, 427), (96, 64)), ((641, 429), (96, 64)), ((999, 333), (32, 96)), ((1, 1), (32, 32)),
        ((3, 500), (32, 96)), ((1201, 805), (64, 32)), ((256, 256), (384, 384)), ((100, 100), (60, 20)),
        ((100, 100), (60, 19)), ((60, 100), (70, 96)), ((427, 640), (256, 384)), ((500, 375), (384, 288)),
    ],
)  # fmt: skip
def test_pixels_are_those_of_pillow(page: Any, size: tuple[int, int], target: tuple[int, int]) -> None:
    width, height = size
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = np.asarray(image.resize(target, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP))
    text = base64.b64encode(noise.tobytes()).decode()
    found = np.frombuffer(base64.b64decode(page.evaluate(RESIZE, [text, width, height, target])), np.uint8)
    assert np.array_equal(found.reshape(expected.shape), expected)


def test_sizes_are_those_of_the_runtime(page: Any) -> None:
    generator = np.random.default_rng(0)
    sizes = [*generator.integers(1, 5000, (300, 2)).tolist(), [48, 384], [144, 384], [240, 384], [1, 3000]]
    for stride, square in ((32, False), (14, False), (32, True)):
        form = {"image_size": 12 * stride, "stride": stride, "square": square}
        found = page.evaluate("([sizes, form]) => sizes.map(([w, h]) => sizeOf(w, h, form))", [sizes, form])
        lite = PhotoForm(**form, interpolation="bilinear")
        assert found == [list(lite.size_of(*size)) for size in sizes]


def expected_text(pieces: Sequence[str]) -> str:
    words = (" ".join(pieces) + " ").replace("@@ ", "").split()
    text, parts = fragile.hide(" ".join(words))
    return next(fragile.show([moses.detokenize(text.split())], parts))


def test_text_is_that_of_the_runtime(page: Any) -> None:
    generator = np.random.default_rng(1)
    known = [
        *PIECES,
        "an@@",
        "rid@@",
        "ing",
        "i̇st",
        "👍🏽",
        "</s",
        "a<mask>b",
        "x@@",
        "-",
        *generator.choice(ROBUST, 150),
    ]
    captions = [generator.integers(0, len(known), generator.integers(1, 12)).tolist() for _ in range(1500)]
    words = {"symbols": known, "joined": "moses", "keeps_fragile": True, "eos": 2}
    call = "([captions, words]) => captions.map((tokens) => textOf(tokens, words))"
    expected = [expected_text([str(known[token]) for token in tokens]) for tokens in captions]
    found = page.evaluate(call, [captions, json.loads(json.dumps(words))])
    wrong = [(ours, theirs) for ours, theirs in zip(found, expected, strict=True) if ours != theirs]
    assert not wrong
    pieces = {**words, "symbols": ["\u2581a", "\u2581man", "'s"], "joined": "pieces"}
    assert page.evaluate(call, [[[0, 1, 2]], pieces]) == ["a man's"]


def test_words_are_those_of_the_runtime(page: Any) -> None:
    generator = np.random.default_rng(2)
    known = ["a", "rid@@", "ing", "@@", "▁", "▁man", "一只", "猫", "'s", "&quot;", ".", "é", "👍🏽", "ภา", "ー", "x y"]
    for of_moses, joined in ((True, "moses"), (False, "pieces")):
        cases = []
        for _ in range(300):
            pieces = [known[place] for place in generator.integers(0, len(known), generator.integers(0, 9))]
            space = " " if generator.random() < 0.5 else ""
            cases.append((pieces, space.join(pieces).replace("@@", "").replace("▁", " ").strip()))
        found = page.evaluate(
            "([cases, joined]) => cases.map(([pieces, text]) => wordsOfPieces(pieces, text, joined))", [cases, joined]
        )
        for (pieces, text), words in zip(cases, found, strict=True):
            units = text.encode("utf-16-le")
            expected = words_of_pieces(pieces, text, moses=of_moses)
            places = [(units[: 2 * w["start"]].decode("utf-16-le"), w["first"], w["last"]) for w in words]
            assert places == [(text[: word.start], word.first, word.last) for word in expected]
            spelled = [units[2 * w["start"] : 2 * w["end"]].decode("utf-16-le") for w in words]
            assert spelled == [text[word.start : word.end] for word in expected]


def test_letters_of_scripts_without_spaces(page: Any) -> None:
    """Of all that Python's Unicode has."""
    codes = [code for code in range(0x80, 0x110000) if unicodedata.category(chr(code))[0] in "LM"]
    found = page.evaluate("(codes) => codes.map((code) => UNSPACED.test(String.fromCodePoint(code)))", codes)
    wrong = [hex(code) for code, one in zip(codes, found, strict=True) if one != is_unspaced(chr(code))]
    assert not wrong, wrong[:20]


SEARCH = """async ([history, options]) => {
  const key = (tokens) => tokens.join(" ");
  const given = [];
  const step = async (tokens, position, mask, count) => {
    given.push(tokens);
    const flat = given.flat();
    const rows = tokens.length;
    const result = { best: [], ids: [], end: [] };
    for (let row = 0; row < rows; row++) {
      const seen = flat.filter((_, at) => mask[row * flat.length + at]).slice(1);
      const table = history[key(seen)] ?? (await window.probabilities(seen));
      const order = table.map((_, id) => id).sort((a, b) => table[b] - table[a]).slice(0, count);
      result.best.push(...order.map((id) => table[id]));
      result.ids.push(...order);
      result.end.push(table[options.eos]);
    }
    return result;
  };
  return search(step, options);
}"""


def test_the_search_is_that_of_the_runtime(page: Any) -> None:
    image = 0

    def table(tokens: list[int]) -> list[float]:
        values = probabilities(image, tokens)
        values[list(NEVER)] = -1e30  # JSON has no infinity
        return values.astype(float).tolist()

    page.expose_function("probabilities", table)
    for image in range(4):
        for beam, lenpen, longest in ((1, 1.0, 9), (2, 1.0, 9), (5, 0.5, 12), (5, 1.0, 3)):
            options = {"beam": beam, "lenpen": lenpen, "longest": longest, "minLen": 1, "eos": EOS, "symbols": SYMBOLS}
            found = page.evaluate(SEARCH, [{}, options])
            decoder = Table(1)
            decoder.images = [image]
            given = SearchOptions(beam=beam, lenpen=lenpen)
            [expected] = search(decoder, 1, symbols=SYMBOLS, eos=EOS, max_positions=longest + 1, options=given)
            assert [tuple(each["tokens"]) for each in found] == [each.tokens for each in expected]
            np.testing.assert_allclose([e["score"] for e in found], [e.score for e in expected], atol=1e-5)
