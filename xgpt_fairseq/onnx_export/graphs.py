"""What is exported: modules of tensors alone, around the model and the network that sees photos.

    photo     pixels → features of regions
    regions   features of regions → the image's keys and values for each layer of the decoder
    step      the newest tokens of a search, and all keys and values → the best next tokens, and more keys and values
    look      whole captions, and the images' keys and values → where the model looks for each token

The search itself, which joins them, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xgpt_fairseq.kernels.kv_cache import KeysValues
from xgpt_fairseq.models.layers import EncoderStates
from xgpt_fairseq.models.xgpt import XGPTModel
from xgpt_fairseq.vision.backbones.base import Backbone
from xgpt_fairseq.vision.pooling import map_cells, pool_regions


class StatelessCache:
    """The cache of one step, without a state of its own: what was kept comes in, and what is to be kept goes out.

    Rows, mask and order of keys are those of `SearchCache`. Nothing is written in place, and no length is a number of
    Python: tracing would make a constant of it.

    Args:
        mask: (I, 1, B, (t + 1) · B), True where a row may attend.
        memory: by layer, keys and values of the images, (I, heads, N, d).
        past: by layer, those of the text so far, (I, heads, t · B, d); t may be 0.

    Attributes:
        kept: by layer, keys and values of the text up to this step, (I, heads, (t + 1) · B, d).
    """

    mask: Tensor | None

    def __init__(self, mask: Tensor, memory: Sequence[KeysValues], past: Sequence[KeysValues]) -> None:
        self.mask = mask
        self._memory = memory
        self._past = past
        self.kept: dict[int, KeysValues] = {}

    def append(self, layer: int, k: Tensor, v: Tensor) -> KeysValues:
        """All keys and values of the text: see `SearchCache.append`."""
        past_k, past_v = self._past[layer]
        self.kept[layer] = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
        return self.kept[layer]

    def of_memory(self, layer: int, project: Callable[[], KeysValues]) -> KeysValues:
        """The image's keys and values, which `RegionsGraph` has projected."""
        return self._memory[layer]


class PhotoGraph(nn.Module):
    """The features of a photo's regions, as `RegionExtractor` computes them.

    Args:
        backbone: the network that sees photos.
        of_boxes: whether regions are boxes that are given, the whole photo first; else the photo's mean and the cells
            of the network's own map.
    """

    def __init__(self, backbone: Backbone, *, of_boxes: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.of_boxes = of_boxes

    def forward(self, pixels: Tensor, boxes: Tensor | None = None) -> Tensor:
        """pixels (B, H, W, 3) uint8, and boxes (B, N, 4) in 0..1 where they are needed → (B, N, D) float16."""
        maps = self.backbone(pixels).float()
        if not self.of_boxes:
            return map_cells(maps).half()
        assert boxes is not None
        return pool_regions(maps, boxes).half()


class RegionsGraph(nn.Module):
    """Keys and values of images, which each layer of the decoder attends to."""

    def __init__(self, model: XGPTModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, boxes: Tensor, real: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Encode images.

        Args:
            features: (I, N, D) float16.
            boxes: (I, N, 4).
            real: (I, N), False at padding.

        Returns:
            tuple: keys, and values, of each layer, (I, heads, N, d).
        """
        memory: EncoderStates = self.model.encoder(features=features, boxes=boxes, padding_mask=~real)["memory"]
        layers = self.model.decoder.layers
        pairs = memory.keys_values or [layer.cross_attention.keys_values(memory.states) for layer in layers]
        return [k.contiguous() for k, _ in pairs], [v.contiguous() for _, v in pairs]


class StepGraph(nn.Module):
    """One step of a search: the best next tokens of each row.

    Args:
        model: the model.
        never: ids of the tokens that no caption has.
        eos: the id of the end of a sentence.
        count: how many tokens are wanted, k. Traced, it is a constant.
    """

    barred: Tensor

    def __init__(self, model: XGPTModel, *, never: Sequence[int], eos: int, count: int) -> None:
        super().__init__()
        self.model = model
        self.eos = eos
        self.count = count
        barred = torch.zeros(len(model.decoder.dictionary))
        barred[list(never)] = -torch.inf
        self.register_buffer("barred", barred)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        mask: Tensor,
        real: Tensor,
        memory_keys: Sequence[Tensor],
        memory_values: Sequence[Tensor],
        past_keys: Sequence[Tensor],
        past_values: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Compute a step.

        Args:
            tokens: (I, B) int64, the newest token of each row; at first the end of sentence.
            position: (1,) int64, t, from 0.
            mask, memory_keys, memory_values, past_keys, past_values: see `StatelessCache`.
            real: (I, N), as in `RegionsGraph`.

        Returns:
            tuple: the best tokens' log-probabilities (I, B, k), without those that no caption has, and their ids; the
            log-probability of the end of the sentence (I, B); and what the next step needs as past keys and values.
        """
        decoder = self.model.decoder
        embedding, segment = decoder.encoder.text, decoder.encoder.segment(0)
        memory = tuple(zip(memory_keys, memory_values, strict=True))
        cache = StatelessCache(mask, memory, tuple(zip(past_keys, past_values, strict=True)))
        x = embedding(tokens, position, segment)  # (I, B, H)
        states = EncoderStates(x, real[:, None, None, :], keys_values=memory)  # of x, nothing is read
        logits = decoder.predict_words(decoder.run_layers(x, states, cache), None)  # (I, B, V)
        log_probabilities = torch.log_softmax(logits, dim=-1)
        best, ids = torch.topk(log_probabilities + self.barred, self.count)
        kept = [cache.kept[layer] for layer in range(len(past_keys))]
        end = log_probabilities[..., self.eos]
        return best, ids, end, [keys for keys, _ in kept], [values for _, values in kept]


class LookGraph(nn.Module):
    """Where the model looks for each token of whole captions: `XGPTDecoder.image_weights`, one caption per image.

    The positions of a caption are the rows of a first step whose mask is causal, so that the layers are those of a
    search.
    """

    def __init__(self, model: XGPTModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        real: Tensor,
        memory_keys: Sequence[Tensor],
        memory_values: Sequence[Tensor],
    ) -> Tensor:
        """Compute the weights.

        Args:
            tokens: (I, T) int64, the text before each token: the end of sentence, then all tokens but the last one,
                and anything as padding.
            mask: (I, 1, T, T) bool, True where a position may attend: to itself and those before.
            real, memory_keys, memory_values: as in `StepGraph`.

        Returns:
            (layers, I, heads, T, N), float32; in Enc, where text and image share a softmax, the image's part.
        """
        decoder = self.model.decoder
        memory = tuple(zip(memory_keys, memory_values, strict=True))
        nothing = tuple((k[:, :, :0], v[:, :, :0]) for k, v in memory)
        cache = StatelessCache(mask, memory, nothing)
        x = decoder.encoder.text(tokens, torch.arange(tokens.size(1)), decoder.encoder.segment(0))  # (I, T, H)
        states = EncoderStates(x, real[:, None, None, :], keys_values=memory)  # of x, nothing is read
        weights = []
        for layer_index, layer in enumerate(decoder.layers):
            weights.append(layer.image_weights(x, states, layer_index, cache))
            x = layer.decode(x, states, layer_index, cache)
        return torch.stack(weights)
