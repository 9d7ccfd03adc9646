"""The encoder: regions, captions, or both together, through a stack of layers."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from xgpt_fairseq.kernels.kv_cache import kept_images
from xgpt_fairseq.kernels.recompute import maybe_checkpoint
from xgpt_fairseq.models.alignment import Alignment
from xgpt_fairseq.models.embeddings import TextEmbedding
from xgpt_fairseq.models.layers import EncoderStates, JointLayer, TransformerLayer
from xgpt_fairseq.models.regions import RegionEncoder

# Those of images, in `net_input`: what a search needs of a training batch.
IMAGE_INPUTS = ("features", "boxes", "padding_mask", "padded")


class EncoderInput(TypedDict, total=False):
    """The arguments of `XGPTEncoder.forward`, for those who hand them on."""

    features: Tensor | None
    boxes: Tensor | None
    padding_mask: Tensor | None
    padded: bool
    image_index: Tensor | None
    src_tokens: Tensor | None
    text_mode: str


class XGPTEncoder(FairseqEncoder):
    """Bidirectional encoder over regions, text, or [regions ; text].

    Args:
        regions, alignment: the parts for images; None in the model of text pre-training.
        segments: embeddings (2, H) of the modalities, 0 text and 1 regions; None: the model does without.
        stack: layers, and what normalises their output (`build_layers`).
        checkpoint_activations: whether the backward pass computes the layers' activations again.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        *,
        text: TextEmbedding,
        regions: RegionEncoder | None,
        alignment: Alignment | None,
        segments: nn.Embedding | None,
        stack: tuple[nn.ModuleList, nn.Module],
        checkpoint_activations: bool,
    ) -> None:
        super().__init__(dictionary)
        self.text = text
        self.regions = regions
        self.alignment = alignment
        self.padding_idx = dictionary.pad()
        self.segments = segments
        self.layers, self.final_norm = stack
        self.checkpoint_activations = checkpoint_activations
        self.keeps_keys_values = isinstance(self.layers[0], JointLayer)  # its decoder reads them

    def segment(self, index: int) -> Tensor | None:
        """The embedding (H,) of modality *index* (0 text, 1 regions), or None if the model has none."""
        return None if self.segments is None else self.segments.weight[index]

    def forward(
        self,
        features: Tensor | None = None,
        boxes: Tensor | None = None,
        padding_mask: Tensor | None = None,
        padded: bool = True,
        image_index: Tensor | None = None,
        src_tokens: Tensor | None = None,
        text_mode: str = "joint",
    ) -> dict[str, Any]:
        """Encode images, captions, or both together.

        Args:
            features: (I, N, D) region features, as stored (float16); None: only captions.
            boxes: (I, N, 4) x1 y1 x2 y2 in 0..1.
            padding_mask: (I, N), True at padding.
            padded: False says that nothing is: attention to regions then does without a mask, which is faster. (Only
                who makes a batch knows it without waiting for the device.)
            image_index: (C,) image of each caption; None if captions are in equal groups, image by image.
            src_tokens: (C, S) captions, padded on the right; None: only images.
            text_mode: with both, `joint`: [regions ; text] (IMLM); `aligned`: only the text, each word replaced by a
                weighted sum of regions (IDA); `aligned+regions`: [regions ; aligned words].

        Returns:
            dict: `memory` (`EncoderStates`; one row per caption if there is text), and `decoder_rows`, the number of
            decoder rows that the states serve.
        """
        if features is None:
            assert src_tokens is not None, "there is nothing to encode"
            x, mask = self.embed_text(src_tokens)
            return self._encode(x, mask)
        assert boxes is not None and padding_mask is not None
        assert self.regions is not None and self.alignment is not None, "a text-only model cannot encode images"
        region_mask = ~padding_mask[:, None, None, :]  # (I, 1, 1, N)
        attended = region_mask if padded else None
        regions = self.regions(features, boxes, attended)  # (I, N, H)
        if src_tokens is None:
            return self._encode(self.with_segment(regions, 1), attended, image_index)
        x, mask = self.embed_text(src_tokens)  # (C, S, H), (C, 1, 1, S)
        if text_mode != "joint":
            # in place of token embeddings: with positions and segment, and normalised like those
            x = self.alignment(x, regions, region_mask, image_index)
            x = self.text.sum_up(x, self.text.positions.weight[: x.size(1)], self.segment(0))
        if text_mode == "aligned":
            return self._encode(x, mask)
        rows = image_of_each(src_tokens.size(0), regions.size(0), image_index, regions.device)  # (C,)
        return self.encode_pairs(self.with_segment(regions, 1), region_mask, x, mask, rows)

    def encode_pairs(
        self, regions: Tensor, region_mask: Tensor, text: Tensor, text_mask: Tensor, image_of_text: Tensor
    ) -> dict[str, Any]:
        """Encode pairs [regions ; text] that are already embedded.

        Args:
            regions: (I, N, H) refined regions with their segment (`embed_images`).
            region_mask: (I, 1, 1, N).
            text: (C, S, H) (`embed_text`).
            text_mask: (C, 1, 1, S).
            image_of_text: (C,) the image of each text.

        Returns:
            dict: as from `forward`; its states are (C, N + S, H).
        """
        x = torch.cat([regions.index_select(0, image_of_text), text], dim=1)  # (C, N + S, H)
        mask = torch.cat([region_mask.index_select(0, image_of_text), text_mask], dim=-1)
        return self._encode(x, mask)

    def embed_images(self, features: Tensor, boxes: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Refined regions (I, N, H) with their segment, the input of the layers, and their mask (I, 1, 1, N)."""
        assert self.regions is not None, "a text-only model cannot encode images"
        mask = ~padding_mask[:, None, None, :]
        return self.with_segment(self.regions(features, boxes, mask), 1), mask

    def embed_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded captions (C, S, H) of tokens (C, S), and their mask (C, 1, 1, S)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        return self.text(tokens, positions, self.segment(0)), tokens.ne(self.padding_idx)[:, None, None, :]

    def with_segment(self, x: Tensor, index: int) -> Tensor:
        segment = self.segment(index)
        return x if segment is None else x + segment

    def _encode(self, x: Tensor, mask: Tensor | None, image_index: Tensor | None = None) -> dict[str, Any]:
        recompute = self.checkpoint_activations and self.training
        layers: Any = self.layers
        kept = []
        for layer in layers:
            x, keys_values = maybe_checkpoint(layer.encode, x, mask, enabled=recompute)
            if self.keeps_keys_values:
                kept.append(keys_values)
        memory = EncoderStates(self.final_norm(x), mask, image_index, tuple(kept))
        return {"memory": memory, "decoder_rows": x.size(0)}

    def reorder_encoder_out(self, encoder_out: dict[str, Any], new_order: Tensor) -> dict[str, Any]:
        """Called by fairseq's search when it reorders its beams; copies no states for them.

        States stay one row per image, since the beams of an image stay adjacent; images whose search has finished are
        removed. The first call repeats each image index once per beam: *new_order* is (rows,).

        Raises:
            ValueError: *new_order* moves rows between images (see `kept_images`).
        """
        memory: EncoderStates = encoder_out["memory"]
        kept = kept_images(new_order, rows=encoder_out["decoder_rows"], images=memory.states.size(0))
        if kept is not None:
            memory = memory.kept(kept)
        return {"memory": memory, "decoder_rows": new_order.numel()}

    def max_positions(self) -> int:
        """fairseq needs a number; regions are not limited by the model."""
        return 100_000


def build_layers(
    layer: type[TransformerLayer], *, count: int, hidden_size: int, normalize_before: bool, **sizes: Any
) -> tuple[nn.ModuleList, nn.Module]:
    """A stack of *count* layers of one class, and what normalises its output."""
    made = (layer(hidden_size=hidden_size, normalize_before=normalize_before, **sizes) for _ in range(count))
    # post-layer-norm layers end in a LayerNorm of their own
    return nn.ModuleList(made), nn.LayerNorm(hidden_size) if normalize_before else nn.Identity()


def image_of_each(captions: int, images: int, image_index: Tensor | None, device: torch.device) -> Tensor:
    """(C,) the image of each caption; *image_index* None means equal groups."""
    if image_index is not None:
        return image_index
    return torch.arange(images, device=device).repeat_interleave(captions // images)
