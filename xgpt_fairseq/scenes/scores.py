"""How good can captions of the scenes be, and which facts do a model's captions get right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.references import References
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import read_description
from xgpt_fairseq.metrics.ptb import PtbTokenizer
from xgpt_fairseq.metrics.scores import score_captions
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.scenes.claims import judge, read_claims

Images = Mapping[str, Mapping[str, Any]]


def read_images(file: Path, split: str) -> dict[str, dict[str, Any]]:
    """Image id → record, of the images of *split* in a file that xgpt-draw-scenes wrote.

    Raises:
        DataError: no such file, no facts in it, or no image of that split.
    """
    value = read_description(file, what="a folder of scenes", made_by="xgpt-draw-scenes", newest=1)
    images = {canonical_image_id(image["filename"]): image for image in value["images"] if image["split"] == split}
    if not images:
        splits = sorted({image["split"] for image in value["images"]})
        raise DataError(f"{file} has no split {split!r}; it has: {', '.join(splits)}")
    return images


def references(file: Path, images: Images) -> References:
    """The captions of *images* as the metrics read them."""
    return References(file, {name: [s["raw"] for s in image["sentences"]] for name, image in images.items()})


def ceiling(human: References) -> float:
    """CIDEr of one of an image's captions against its others, each in turn, on pycocoevalcap's scale (1 is 100)."""
    count = min(map(len, human.captions.values()))
    if count < 2:
        raise DataError(f"{human.path}: an image has one caption only, there is no other to compare it with")
    total, tokenize = 0.0, PtbTokenizer()
    for place in range(count):
        held_back = {name: texts[place] for name, texts in human.captions.items()}
        others = {name: texts[:place] + texts[place + 1 :] for name, texts in human.captions.items()}
        total += score_captions(held_back, References(human.path, others), ["cider"], tokenize=tokenize).corpus["CIDEr"]
    return total / count


def shares(captions: Mapping[str, str], images: Images) -> dict[str, float]:
    """The share of *captions* with the right kinds, with right kinds and colours, with a true relation, with all."""
    verdicts = [judge(read_claims(text), images[name]["facts"]) for name, text in captions.items()]
    right: dict[str, Sequence[bool]] = {
        "kinds": [verdict.kinds for verdict in verdicts],
        "kinds and colours": [verdict.colours for verdict in verdicts],
        "relation": [verdict.relation is True for verdict in verdicts],
        "all of it": [verdict.colours and verdict.relation is True for verdict in verdicts],
    }
    return {name: sum(values) / len(values) for name, values in right.items()}
