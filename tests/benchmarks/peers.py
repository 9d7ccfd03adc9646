"""XGPT and fairseq's stock Transformer of the same sizes, and the same work for both.

The stock model (`--arch transformer`) has 12 + 12 layers of width 768, 8 heads and feed-forward networks of 3072, and
reads 100 source tokens where XGPT reads 100 regions. Images have 5 captions each of 14 tokens with the end of sentence;
stock sees an image once for each of them, as pairs are all that it knows.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerModel, base_architecture
from fairseq.optim.adam import Adam

from tests.benchmarks.measuring import Line, by_turns, middle
from xgpt_fairseq.criterions.xgpt_criterion import XGPTCriterion
from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.objectives import build_objectives
from xgpt_fairseq.precision import cpu_has_bfloat16
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.text.vocabulary import MASK

VOCABULARY = 30_000
REGIONS = 100
WIDTH = 2048


@dataclass(frozen=True)
class Sizes:
    """Of a model, and of what it reads."""

    layers: int = 12
    hidden: int = 768
    ffn: int = 3072
    heads: int = 8
    vocabulary: int = VOCABULARY
    regions: int = REGIONS


BASE = Sizes()
SMALL = Sizes(layers=3, hidden=64, ffn=256, heads=4, vocabulary=1000, regions=36)
TOKENS = 14  # of a caption, end of sentence included
CAPTIONS = 5  # of an image


def dictionary(size: int = VOCABULARY) -> Dictionary:
    words = Dictionary()
    for number in range(size - words.nspecial - 1):
        words.add_symbol(f"w{number}")
    words.add_symbol(MASK)
    return words


def write_store(path: Path, *, images: int, regions: int = REGIONS, width: int = WIDTH) -> RegionStore:
    """A store of made-up images."""
    random = np.random.default_rng(1)
    with RegionWriter(path, width) as writer:
        for image in range(images):
            corners = np.sort(random.random((regions, 2, 2), dtype=np.float32), axis=1).reshape(regions, 4)
            features = np.maximum(random.standard_normal((regions, width), dtype=np.float32), 0)
            writer.add(image, features, corners, position=image + 1)
        writer.finish()
    return RegionStore(path)


class Captions(list[torch.Tensor]):
    @property
    def sizes(self) -> np.ndarray:
        return np.array([len(tokens) for tokens in self], dtype=np.int32)


def made_up_captions(words: Dictionary, number: int) -> Captions:
    """*number* captions of `TOKENS` tokens with the end of sentence."""
    random = np.random.default_rng(2)
    low, high = words.nspecial, words.index(MASK)
    return Captions(
        torch.from_numpy(np.append(random.integers(low, high, TOKENS - 1), words.eos())) for _ in range(number)
    )


class XGPT:
    """xgpt_base with its criterion and batches as fairseq's trainer would have them."""

    def __init__(self, store: RegionStore, *, objectives: tuple[str, ...] = ("ic",), sizes: Sizes = BASE) -> None:
        torch.manual_seed(1)
        self.words = dictionary(sizes.vocabulary)
        self.objectives = build_objectives(list(objectives), self.words)
        task = SimpleNamespace(
            target_dictionary=self.words,
            feature_dim=store.feature_dim,
            store_name="benchmark",
            objectives=self.objectives,
        )
        criterion_task = SimpleNamespace(
            objectives=self.objectives, objective_weights=dict.fromkeys(objectives, 1.0), target_dictionary=self.words
        )
        config = XGPTConfig(
            layers=sizes.layers, hidden_size=sizes.hidden, ffn_size=sizes.ffn, attention_heads=sizes.heads
        )
        self.model = XGPTModel.build_model(config, task)
        self.criterion = XGPTCriterion(criterion_task, label_smoothing=0.0, sentence_avg=False)
        images = np.repeat(np.arange(len(store)), CAPTIONS)
        self.data = CaptionDataset(
            made_up_captions(self.words, len(images)),
            images,
            store,
            self.objectives,
            split="train",
            pad=self.words.pad(),
            captions_per_image=CAPTIONS,
        )

    def batch(self, objective: int = 0) -> dict[str, Any]:
        """All images with all captions, for one objective."""
        items = self.data.index_codec.pack(1, objective, np.arange(len(self.data)))
        return self.data.collater([self.data[index] for index in items])


class Stock:
    """fairseq's Transformer with its criterion; its batches are pairs."""

    def __init__(self, sizes: Sizes = BASE) -> None:
        torch.manual_seed(1)
        self.sizes = sizes
        self.words = dictionary(sizes.vocabulary)
        task = SimpleNamespace(source_dictionary=self.words, target_dictionary=self.words)
        options: dict[str, Any] = {}
        for side in ("encoder", "decoder"):
            options |= {f"{side}_layers": sizes.layers, f"{side}_embed_dim": sizes.hidden,
                        f"{side}_ffn_embed_dim": sizes.ffn, f"{side}_attention_heads": sizes.heads}  # fmt: skip
        args = Namespace(**options, share_decoder_input_output_embed=True, activation_fn="gelu", dropout=0.1,
                         attention_dropout=0.1, max_source_positions=sizes.regions + 2,
                         max_target_positions=60)  # fmt: skip
        base_architecture(args)
        self.model = TransformerModel.build_model(args, task)
        self.criterion = CrossEntropyCriterion(task, sentence_avg=False)

    def batch(self, images: int, captions: int = CAPTIONS) -> dict[str, Any]:
        """So many images with their captions, as pairs."""
        random = torch.Generator().manual_seed(1)
        shape = (images, self.sizes.regions)
        sources = torch.randint(4, len(self.words) - 1, shape, generator=random).repeat_interleave(captions, dim=0)
        target = torch.stack(list(made_up_captions(self.words, images * captions)))
        shifted = torch.cat([torch.full((len(target), 1), self.words.eos()), target[:, :-1]], dim=1)
        lengths = torch.full((len(sources),), self.sizes.regions)
        net_input = {"src_tokens": sources, "src_lengths": lengths, "prev_output_tokens": shifted}
        return {"net_input": net_input, "target": target, "ntokens": target.numel(), "nsentences": len(target)}


def optimizer(model: torch.nn.Module) -> Adam:
    """fairseq's."""
    return Adam(model.parameters(), lr=1e-5, betas=(0.9, 0.98))


def update(model: torch.nn.Module, criterion: Any, batch: dict[str, Any], adam: Adam, *, bf16: bool) -> None:
    """One update, as the trainer does it: loss, gradient, clipping, Adam."""
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss, size, _ = criterion(model, batch)
    (loss / size).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
    adam.step()
    adam.zero_grad(set_to_none=True)  # as FairseqOptimizer.zero_grad


def lines_by_precision(
    measured: str,
    against: str,
    *,
    reach: dict[str, str],
    captions: int,
    ours: Callable[[bool], float],
    stock: Callable[[], float],
    rounds: int,
) -> list[Line]:
    """How often *ours* fits into the time of *stock*, for each precision that this CPU has.

    Args:
        reach: by the name of the precision.
        captions: made in one run.
        ours: seconds of a run; its argument says whether it is in bfloat16.
        stock: seconds of a run in float32.
    """
    precisions = [name for name in reach if name != "bfloat16" or cpu_has_bfloat16()]
    runs = [lambda name=name: ours(name == "bfloat16") for name in precisions]
    times = by_turns(stock, *runs, rounds=rounds)
    speed = [captions / middle([round_[place] for round_ in times]) for place in range(len(runs) + 1)]
    return [
        Line(
            f"{measured}, {name}",
            against,
            reach[name],
            [round_[0] / round_[place] for round_ in times],
            f"{speed[place]:.2f} against {speed[0]:.2f} per second",
        )
        for place, name in enumerate(precisions, start=1)
    ]
