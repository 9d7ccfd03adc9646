"""The decoder: the encoder's layers, or separate ones, run causally over words or regions."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from xgpt_fairseq.kernels.kv_cache import SearchCache, StepCache
from xgpt_fairseq.kernels.recompute import maybe_checkpoint
from xgpt_fairseq.models.embeddings import TiedOutputProjection
from xgpt_fairseq.models.encoder import XGPTEncoder
from xgpt_fairseq.models.layers import EncoderStates

CACHE = "search"  # its key in fairseq's incremental state


class XGPTDecoder(FairseqIncrementalDecoder):
    """Layers run causally over the text, with attention to the encoder's output.

    Args:
        encoder: its embeddings are shared, and its layers unless there is a *stack*.
        stack: separate layers and final norm (EncDec); None: the encoder's (EncDecShare, Enc).
    """

    layers: nn.ModuleList
    final_norm: nn.Module
    encoder: XGPTEncoder

    def __init__(
        self,
        dictionary: Dictionary,
        encoder: XGPTEncoder,
        *,
        stack: tuple[nn.ModuleList, nn.Module] | None,
        max_positions: int,
    ) -> None:
        super().__init__(dictionary)
        # Not registered as submodules: shared parameters must appear once in the state dict, under the encoder's names.
        object.__setattr__(self, "encoder", encoder)
        if stack is None:
            object.__setattr__(self, "layers", encoder.layers)
            object.__setattr__(self, "final_norm", encoder.final_norm)
        else:
            self.layers, self.final_norm = stack
        self.output = TiedOutputProjection(vocabulary_size=len(dictionary))
        self._max_positions = max_positions

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
            encoder_out: the encoder's output.
            incremental_state: cache of a search; only the last position is computed then.
            positions: (C, T) positions of the tokens unless they are 0, 1, …
            output_index: (M,) flat positions (row · T + column) to predict at; None: everywhere.

        Returns:
            tuple: logits (C, T, V), or (M, V) with *output_index*, and the second value that fairseq expects (without
            attention weights).
        """
        x = self.extract_features(prev_output_tokens, encoder_out, incremental_state, positions)  # (C, T, H)
        return self.predict_words(x, output_index), {"attn": [None]}

    def predict_words(self, states: Tensor, output_index: Tensor | None) -> Tensor:
        """Logits of states (C, T, H), everywhere or at the flat positions *output_index* (M,)."""
        if output_index is not None:
            states = states.reshape(-1, states.size(-1)).index_select(0, output_index)  # (M, H)
        return self.output(states, self.encoder.text.tokens.weight)

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
        x = self.encoder.text(prev_output_tokens, positions, self.encoder.segment(0))
        memory: EncoderStates = encoder_out["memory"]
        if incremental_state is None:
            return self.run_layers(x, memory)
        rows, images = x.size(0), memory.states.size(0)
        if CACHE not in incremental_state:
            incremental_state[CACHE] = SearchCache(images=images, rows=rows, device=x.device, dtype=x.dtype)
        cache = incremental_state[CACHE]
        cache.next_position()
        x = x.view(images, rows // images, -1)  # (rows, 1, H) → (I, B, H)
        return self.run_layers(x, memory, cache).view(rows, 1, -1)

    def begin_search(
        self, encoder_out: dict[str, Any], *, beam: int, longest: int
    ) -> tuple[EncoderStates, SearchCache]:
        """What `next_words` needs, for texts of up to *longest* tokens in *beam* rows an image."""
        memory: EncoderStates = encoder_out["memory"]
        images, states = memory.states.size(0), memory.states
        cache = SearchCache(
            images=images, rows=images * beam, device=states.device, dtype=states.dtype, room=longest
        )  # fmt: skip
        return memory, cache

    def next_words(self, tokens: Tensor, memory: EncoderStates, cache: SearchCache) -> Tensor:
        """Logits (I, B, V) of what follows the newest *tokens* (I, B) of a search, the end of sentence at first.

        Nothing in it waits for the device. The caller reorders the *cache* itself.
        """
        cache.next_position()
        x = self.encoder.text(tokens, cache.position, self.encoder.segment(0))  # (I, B, H)
        return self.predict_words(self.run_layers(x, memory, cache), None)

    def image_weights(self, prev_output_tokens: Tensor, encoder_out: dict[str, Any]) -> Tensor:
        """The layers' attention to images for whole captions (C, T), in one pass: (layers, C, heads, T, N), float32.

        Position t is where token t is predicted. In Enc, where text and image share a softmax, the image's part.
        """
        positions = torch.arange(prev_output_tokens.size(1), device=prev_output_tokens.device)
        x = self.encoder.text(prev_output_tokens, positions, self.encoder.segment(0))
        memory: EncoderStates = encoder_out["memory"]
        weights = []
        layers: Any = self.layers
        for layer_index, layer in enumerate(layers):
            weights.append(layer.image_weights(x, memory, layer_index))
            x = layer.decode(x, memory, layer_index)
        return torch.stack(weights)

    def run_layers(self, x: Tensor, memory: EncoderStates, cache: StepCache | None = None) -> Tensor:
        """Final states of inputs (C, T, H), words or regions; positions attend causally, and to *memory*.

        With a *cache*, inputs are the newest positions (I, B, H) of a search.
        """
        recompute = self.encoder.checkpoint_activations and self.training
        layers: Any = self.layers
        for layer_index, layer in enumerate(layers):
            x = maybe_checkpoint(layer.decode, x, memory, layer_index, cache, enabled=recompute)
        return self.final_norm(x)

    def reorder_incremental_state(
        self, incremental_state: dict[str, SearchCache], new_order: Tensor, **unused: Any
    ) -> None:
        """Make each row continue row new_order[row]; drop the images whose search has finished."""
        if CACHE in incremental_state:
            incremental_state[CACHE].reorder(new_order)

    def max_positions(self) -> int:
        """Longest text in tokens."""
        return self._max_positions
