"""Where a model looks as it says each word of a caption: its attention to the image's regions.

The finished captions go through the decoder once more, in one teacher-forced pass, and the weights are the model's own:
those of the attention from the position that predicts a token to the regions, averaged over layers and heads. A word of
several subwords has the mean of theirs. In Enc, whose text and image share one softmax, it is the image's part of that,
and is divided by its sum, so that each word's weights sum to 1 in every structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.text.vocabulary import Vocabulary
from xgpt_fairseq.text.word_pieces import Word, words_of_pieces

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Heads:
    """Whose attention is averaged: all layers and heads, or chosen ones, counted from 1."""

    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None

    def check(self, *, layers: int, heads: int) -> None:
        """Check them against what a model has.

        Raises:
            DataError: it has no such layer or head.
        """
        for name, chosen, most in (("layer", self.layers, layers), ("head", self.heads, heads)):
            for number in chosen or ():
                if not 1 <= number <= most:
                    raise DataError(f"attention of {name} {number}: the model's are 1 to {most}")


@dataclass(frozen=True)
class WordAttention:
    """The words of a caption, and where the model looks for each.

    Attributes:
        words: with their places in the caption's text.
        weights: (words, n) of the image's n regions; each row sums to 1.
        boxes: (n, 4) of the regions, x1 y1 x2 y2 in 0..1.
    """

    words: Sequence[Word]
    weights: FloatArray
    boxes: FloatArray


@torch.inference_mode()
def image_attention(
    model: Any, images: Mapping[str, Tensor], captions: Sequence[Tensor], heads: Heads | None = None
) -> list[FloatArray]:
    """The attention of each caption's tokens to its image's regions.

    Args:
        model: an `XGPTModel`, in evaluation mode.
        images: `features` (I, N, D), `boxes` (I, N, 4), `padding_mask` (I, N), as from `pad_regions`.
        captions: of each image its token ids (T,), int64, the end of sentence included.
        heads: whose; None: all.

    Returns:
        list: for each caption (T, n), for each token the weights of the image's n regions, which sum to 1.

    Raises:
        DataError: the model has no such layer or head.
    """
    assert not model.training, "dropout would be part of the weights"
    heads = heads or Heads()
    decoder = model.decoder
    heads.check(layers=len(decoder.layers), heads=decoder.layers[0].attention.heads)
    device = next(model.parameters()).device
    dictionary = decoder.dictionary
    previous = [torch.cat([tokens.new_tensor([dictionary.eos()]), tokens[:-1]]) for tokens in captions]
    padded = torch.nn.utils.rnn.pad_sequence(previous, batch_first=True, padding_value=dictionary.pad()).to(device)
    encoded = model.encoder(**{name: tensor.to(device) for name, tensor in images.items()})
    weights = decoder.image_weights(padded, encoded)  # (layers, I, heads, T, N)
    if heads.layers is not None:
        weights = weights[[number - 1 for number in heads.layers]]
    if heads.heads is not None:
        weights = weights[:, :, [number - 1 for number in heads.heads]]
    mean = weights.mean(dim=(0, 2))  # (I, T, N)
    mean = (mean / mean.sum(dim=-1, keepdim=True)).cpu()
    regions = (~images["padding_mask"]).sum(dim=1).tolist()
    return [
        each[: len(tokens), :count].float().numpy() for each, tokens, count in zip(mean, captions, regions, strict=True)
    ]


def word_attention(tokens: Tensor, text: str, weights: FloatArray, boxes: FloatArray, bpe: Vocabulary) -> WordAttention:
    """The attention by words of a caption, from that by tokens.

    Args:
        tokens: (T,) token ids, the end of sentence included.
        text: the caption, as the vocabulary decodes it.
        weights: (T, n), from `image_attention`.
        boxes: (n, 4).
        bpe: the vocabulary.
    """
    pieces = [bpe.dictionary[int(token)] for token in tokens[:-1]]
    words = words_of_pieces(pieces, text, bpe.bpe)
    means = [weights[word.first : word.last].mean(axis=0) for word in words]
    return WordAttention(words, np.array(means, dtype=np.float32).reshape(len(words), len(boxes)), boxes)
