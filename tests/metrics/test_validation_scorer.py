"""Sums over batches and workers against pycocoevalcap's scores of the whole split."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from xgpt_fairseq.captions.references import References
from xgpt_fairseq.metrics.ptb import ptb_tokenize
from xgpt_fairseq.metrics.scores import score_systems
from xgpt_fairseq.metrics.validation_scorer import STATISTICS, ValidationScorer

Split = tuple[list[list[str]], list[str]]


@pytest.fixture(scope="module")
def split(coco_mini: Path) -> Split:
    """References of the 117 photos of val and test, and one human caption of each held back, some of them spoiled."""
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text())["images"]
    raw = [[s["raw"] for s in image["sentences"]] for image in images if image["split"] in ("val", "test")]
    captions = [of_image[0] for of_image in raw]
    captions[3] = ""
    captions[5] = "a"
    captions[7] = captions[8]
    captions[11] *= 4
    captions[13] = "Zyzzyva zyzzyva don't"
    # As many references as an image has: not all alike.
    return [of_image[1 : 2 + index % 4] for index, of_image in enumerate(raw)], captions


@pytest.fixture(scope="module")
def scorer(split: Split) -> ValidationScorer:
    return ValidationScorer(split[0])


@pytest.fixture(scope="module")
def tokenized(split: Split) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and captions in the form that pycocoevalcap takes."""
    lines = iter(ptb_tokenize([caption for of_image in split[0] for caption in of_image]))
    references = {index: [next(lines) for _ in of_image] for index, of_image in enumerate(split[0])}
    return references, {index: [caption] for index, caption in enumerate(ptb_tokenize(split[1]))}


@pytest.fixture(scope="module")
def whole(tokenized: tuple[dict[int, list[str]], dict[int, list[str]]]) -> tuple[float, float]:
    """CIDEr and BLEU@4 by pycocoevalcap itself."""
    cider, _ = Cider().compute_score(*tokenized)
    bleu, _ = Bleu(4).compute_score(*tokenized, verbose=0)
    return float(cider), bleu[3]


def summed(scorers: list[ValidationScorer], captions: list[str], rng: random.Random) -> dict[str, float]:
    """Every caption scored once: in random order, in batches of random sizes, each by a random one of *scorers*."""
    order = list(range(len(captions)))
    rng.shuffle(order)
    total: Counter[str] = Counter()
    while order:
        batch = [order.pop() for _ in range(min(len(order), rng.choice([1, 16, 30, 50])))]
        total.update(rng.choice(scorers).add(batch, [captions[index] for index in batch]))  # type: ignore[arg-type]
    return dict(total)


@pytest.mark.parametrize("seed", range(10))
def test_any_batches_give_the_scores_of_the_whole_split(
    split: Split, scorer: ValidationScorer, whole: tuple[float, float], seed: int
) -> None:
    # The whole split first: its captions are known from then on, and the batches need no Java.
    assert scorer.add(range(len(split[1])), split[1])["_caption_images"] == len(split[1])
    sums = summed([scorer], split[1], random.Random(seed))
    assert ValidationScorer.cider(sums) == pytest.approx(whole[0], abs=1e-9)
    assert ValidationScorer.bleu4(sums) == pytest.approx(whole[1], abs=1e-9)
    assert 0.5 < whole[0] < 1.5 and 0.1 < whole[1] < 0.5


def test_several_workers(split: Split, whole: tuple[float, float]) -> None:
    sums = summed([ValidationScorer(split[0]), ValidationScorer(split[0])], split[1], random.Random(0))
    assert ValidationScorer.cider(sums) == pytest.approx(whole[0], abs=1e-9)
    assert ValidationScorer.bleu4(sums) == pytest.approx(whole[1], abs=1e-9)


def test_a_part_of_the_split_weighs_words_by_the_whole_split(
    split: Split, tokenized: tuple[dict[int, list[str]], dict[int, list[str]]], scorer: ValidationScorer
) -> None:
    _, per_image = Cider().compute_score(*tokenized)
    sums = scorer.add([4, 90], [split[1][4], split[1][90]])
    assert sums["_cider_sum"] == pytest.approx(per_image[4] + per_image[90], abs=1e-9)


def test_sums_are_plain_floats(split: Split, scorer: ValidationScorer) -> None:
    sums = scorer.add([0], [split[1][0]])
    assert tuple(sums) == STATISTICS
    assert {type(value) for value in sums.values()} == {float}
    assert scorer.add([], []) == dict.fromkeys(STATISTICS, 0.0)


@pytest.mark.parametrize("captions", [["", ""], ["zyzzyva", "!"]])
def test_nothing_right_is_zero(captions: list[str]) -> None:
    sums = ValidationScorer([["A dog runs."], ["A cat sits there."]]).add([0, 1], captions)
    assert ValidationScorer.cider(sums) == 0
    assert ValidationScorer.bleu4(sums) == pytest.approx(0, abs=1e-9)


CHINESE = [
    ["一个男人在海滩上骑马", "一名男子骑着马"],
    ["两只狗在草地上奔跑", "草地上有两只狗"],
    ["厨房里有一张桌子", "桌子在厨房"],
]


def test_captions_without_spaces_are_scored_by_characters(tmp_path: Path) -> None:
    """As `xgpt-evaluate --segment char` scores them; as words, every caption that is not a reference would be at 0."""
    captions = ["一个男人骑马", "两只狗在奔跑", "一张桌子在厨房里"]
    sums = ValidationScorer(CHINESE).add([0, 1, 2], captions)
    images = {str(number): of_image for number, of_image in enumerate(CHINESE)}
    references = References(tmp_path / "test.references.json", images)
    own = {str(number): caption for number, caption in enumerate(captions)}
    [expected] = score_systems([own], references, ["cider", "bleu"], segmentation="char")
    assert ValidationScorer.cider(sums) == pytest.approx(expected.corpus["CIDEr"], abs=1e-9)
    assert ValidationScorer.bleu4(sums) == pytest.approx(expected.corpus["BLEU@4"], abs=1e-9)
    assert expected.corpus["CIDEr"] > 1
    assert ValidationScorer.degeneration(sums).repeats == 0


def test_few_batches_start_java(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes half a second for each: for the references, and where a caption has a new word or other characters."""
    runs: list[object] = []
    start = subprocess.run

    def counted(*arguments: Any, **options: Any) -> Any:
        runs.append(arguments)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    scorer = ValidationScorer(split[0])
    rng, text = random.Random(0), " ".join(caption for of_image in split[0] for caption in of_image)
    words = sorted(set(re.findall(r"(?<= )[a-z]{3,}(?= )", text)))
    captions = [f"a {' '.join(rng.sample(words, 6))}, a {rng.choice(words)}." for _ in range(400)]
    for number in range(100):
        scorer.add([0, 1, 2, 3], captions[4 * number : 4 * number + 4])
    assert len(runs) == 1
    first = scorer.add([0, 1], ["a dog of zyzzyva", "2 dogs"])
    assert len(runs) == 2
    assert scorer.add([0, 1], ["a dog of zyzzyva", "2 dogs"]) == first
    scorer.add([0], ["a zyzzyva and a cat"])
    assert len(runs) == 2


def test_wrong_calls(scorer: ValidationScorer) -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        ValidationScorer([["a dog"], []])
    with pytest.raises(ValueError, match="2 images but 1 captions"):
        scorer.add([0, 1], ["a dog"])
