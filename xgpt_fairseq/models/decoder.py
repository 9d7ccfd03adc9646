"""The decoder: the encoder's own layers, or a stack of its own, run causally over words or regions."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from xgpt_fairseq.kernels.kv_cache import SearchCache
from xgpt_fairseq.models.embeddings import TiedOutputProjection
from xgpt_fairseq.models.encoder import XGPTEncoder, kept_images
from xgpt_fairseq.models.layers import EncoderStates

CACHE = "search"  # its key in fairseq's incremental state


class XGPTDecoder(FairseqIncrementalDecoder):
    """Layers run causally over the text, with attention to what the encoder made of the image.

    Args:
        encoder: its embeddings, and its layers unless there is a *stack*.
        stack: layers and final norm of the decoder's own (EncDec); None: the encoder's (EncDecShare, Enc).
        region_output_dim: width of what TIFG predicts; None: a model of text alone.
    """

    layers: nn.ModuleList
    final_norm: nn.Module
    shared: XGPTEncoder

    def __init__(
        self,
        dictionary: Dictionary,
        encoder: XGPTEncoder,
        *,
        stack: tuple[nn.ModuleList, nn.Module] | None,
        max_positions: int,
        region_output_dim: int | None,
    ) -> None:
        super().__init__(dictionary)
        # Not registered as submodules: shared parameters must appear once in the state dict, under the encoder's names.
        object.__setattr__(self, "shared", encoder)
        if stack is None:
            object.__setattr__(self, "layers", encoder.layers)
            object.__setattr__(self, "final_norm", encoder.final_norm)
        else:
            self.layers, self.final_norm = stack
        self.output = TiedOutputProjection(vocabulary_size=len(dictionary))
        self._max_positions = max_positions
        hidden_size = encoder.text.tokens.embedding_dim
        self.region_start: nn.Parameter | None = None  # TIFG: before the first region
        self.region_output: nn.Linear | None = None
        if region_output_dim is not None:
            self.region_start = nn.Parameter(torch.empty(hidden_size).normal_(0, 0.02))
            self.region_output = nn.Linear(hidden_size, region_output_dim)

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any] | None = None,
        incremental_state: dict[str, SearchCache] | None = None,
        output_index: Tensor | None = None,
        positions: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Predict the next token at each position.

        Args:
            prev_output_tokens: (C, T) the text so far, end-of-sentence first, padded on the right.
            encoder_out: what the encoder returned.
            incremental_state: cache of a search; only the last position is computed then.
            positions: (C, T) positions of the tokens where they are not 0, 1, …
            output_index: (M,) flat positions (row · T + column) to predict at; None: everywhere.

        Returns:
            tuple: logits (C, T, V), or (M, V) with *output_index*, and what fairseq expects beside them (no
            attention weights are kept).
        """
        x = self.extract_features(prev_output_tokens, encoder_out, incremental_state, positions)  # (C, T, H)
        return self.predict_words(x, output_index), {"attn": [None]}

    def predict_words(self, states: Tensor, output_index: Tensor | None) -> Tensor:
        """Logits of states (C, T, H), everywhere or at the flat positions *output_index* (M,)."""
        if output_index is not None:
            states = states.reshape(-1, states.size(-1)).index_select(0, output_index)  # (M, H)
        return self.output(states, self.shared.text.tokens.weight)

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any] | None,
        incremental_state: dict[str, SearchCache] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """The decoder's final states (C, T, H), T = 1 in incremental decoding."""
        assert encoder_out is not None, "the decoder needs the encoder's output"
        if positions is None:
            positions = torch.arange(prev_output_tokens.size(1), device=prev_output_tokens.device)  # (T,)
        if incremental_state is not None:
            prev_output_tokens, positions = prev_output_tokens[:, -1:], positions[..., -1:]
        x = self.shared.text(prev_output_tokens, positions, self.shared.segment(0))
        return self._decode(x, encoder_out["images"], incremental_state)

    def predict_regions(self, embedded: Tensor, encoder_out: dict[str, Any]) -> Tensor:
        """Each region from the caption and the regions before it (TIFG).

        Args:
            embedded: (C, N, H) the regions' embeddings before the refiner, which would show each region the others.

        Returns:
            Tensor: (C, N, H or D) predicted representations.
        """
        assert self.region_start is not None and self.region_output is not None, "a model of text alone has no regions"
        start = self.region_start.expand(embedded.size(0), 1, -1)
        x = torch.cat([start, embedded[:, :-1]], dim=1)  # shifted right: (C, N, H)
        return self.region_output(self._decode(self.shared.with_segment(x, 1), encoder_out["images"], None))

    def _decode(self, x: Tensor, images: EncoderStates, incremental_state: dict[str, SearchCache] | None) -> Tensor:
        layers: Any = self.layers
        if incremental_state is None:
            for number, layer in enumerate(layers):
                x = self.shared.maybe_checkpoint(layer.decode, x, images, number)
            return self.final_norm(x)
        rows, count = x.size(0), images.mask.size(0)
        if CACHE not in incremental_state:
            incremental_state[CACHE] = SearchCache(images=count, rows=rows, device=x.device)
        cache = incremental_state[CACHE]
        cache.next_position()
        x = x.view(count, rows // count, -1)  # (rows, 1, H) → (I, B, H)
        for number, layer in enumerate(layers):
            x = layer.decode(x, images, number, cache)
        return self.final_norm(x).view(rows, 1, -1)

    def reorder_incremental_state(
        self, incremental_state: dict[str, SearchCache], new_order: Tensor, **unused: Any
    ) -> None:
        """Make each row continue row new_order[row]; drop the images whose search has ended."""
        cache = incremental_state.get(CACHE)
        if cache is not None:
            kept = kept_images(new_order, rows=cache.images * cache.group, images=cache.images)
            cache.reorder(new_order, kept)

    def max_positions(self) -> int:
        """Longest text in tokens."""
        return self._max_positions
