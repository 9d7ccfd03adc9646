"""XGPT (Xia et al. 2020): one transformer that encodes image regions and generates captions.

The model reads top to bottom: configuration and architectures, encoder, decoder, model. fairseq's configuration is
known to `XGPTModel.build_model` alone; everything below it takes plain keyword arguments.
"""

import hashlib
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import (
    FairseqEncoder,
    FairseqEncoderDecoderModel,
    FairseqIncrementalDecoder,
    register_model,
    register_model_architecture,
)
from torch import Tensor, nn

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.layers import EncoderStates, TransformerLayer
from xgpt_fairseq.models.regions import RegionEncoder
from xgpt_fairseq.models.text import TextEmbedding, WordPrediction

SHARING = ChoiceEnum(["enc-dec-share"])

# Sizes by architecture. A size that is named on the command line or in a YAML file wins over its architecture's.
ARCHITECTURES: dict[str, dict[str, int]] = {
    # the paper's model (section 4.2 and 5.3)
    "xgpt_base": {"layers": 12, "hidden_size": 768, "ffn_size": 3072, "attention_heads": 8},
    # the paper's "Tiny" (section 6)
    "xgpt_tiny": {"layers": 6, "hidden_size": 768, "ffn_size": 3072, "attention_heads": 8},
    # small enough to learn on a CPU in minutes
    "xgpt_demo": {"layers": 4, "hidden_size": 256, "ffn_size": 1024, "attention_heads": 4},
}


@dataclass
class XGPTConfig(FairseqDataclass):
    layers: Optional[int] = field(
        default=None, metadata={"help": "transformer layers; one stack serves as encoder and decoder [arch: base 12]"}
    )
    hidden_size: Optional[int] = field(default=None, metadata={"help": "width h of the model [arch: base 768]"})
    ffn_size: Optional[int] = field(
        default=None, metadata={"help": "inner width of the feed-forward networks [arch: base 3072]"}
    )
    attention_heads: Optional[int] = field(default=None, metadata={"help": "attention heads [arch: base 8]"})
    feature_dim: Optional[int] = field(
        default=None, metadata={"help": "width of the region features [the region store's]"}
    )
    refine_layers: int = field(
        default=1, metadata={"help": "AoA layers that refine the regions before the encoder (appendix A.1); 0: none"}
    )
    normalize_regions: bool = field(
        default=False, metadata={"help": "scale every region feature to length 1 before the embedding, as M3P does"}
    )
    no_segment_embedding: bool = field(
        default=False, metadata={"help": "leave out the learned embedding that tells text from regions"}
    )
    sharing: SHARING = field(  # type: ignore[valid-type]
        default="enc-dec-share",
        metadata={"help": "enc-dec-share: encoder and decoder are one stack of layers, and self- and cross-attention "
                  "share their weights (section 4.2)"},
    )  # fmt: skip
    max_target_positions: int = field(
        default=60, metadata={"help": "longest text in tokens, end of sentence included (appendix A.2)"}
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout rate (section 5.3)"})
    attention_dropout: float = field(default=0.1, metadata={"help": "dropout rate of attention weights"})
    normalize_before: bool = field(
        default=False, metadata={"help": "LayerNorm before each sublayer instead of after it"}
    )


def apply_architecture(name: str, cfg: Namespace | FairseqDataclass) -> None:
    """Fill the sizes that *cfg* leaves open with those of architecture *name*."""
    for size, value in ARCHITECTURES[name].items():
        if getattr(cfg, size, None) is None:
            setattr(cfg, size, value)


class XGPTEncoder(FairseqEncoder):
    """Regions → refined regions → the layers, each region seeing all regions of its image."""

    def __init__(
        self,
        dictionary: Dictionary,
        *,
        feature_dim: int,
        hidden_size: int,
        layers: int,
        heads: int,
        ffn_size: int,
        refine_layers: int,
        max_positions: int,
        dropout: float,
        attention_dropout: float,
        normalize_before: bool,
        normalize_regions: bool,
        segment_embedding: bool,
    ) -> None:
        super().__init__(dictionary)
        self.text = TextEmbedding(
            vocabulary_size=len(dictionary),
            padding_idx=dictionary.pad(),
            hidden_size=hidden_size,
            max_positions=max_positions,
            dropout=dropout,
        )
        self.regions = RegionEncoder(
            feature_dim=feature_dim,
            hidden_size=hidden_size,
            heads=heads,
            refine_layers=refine_layers,
            dropout=dropout,
            attention_dropout=attention_dropout,
            normalize=normalize_regions,
        )
        self.segments = nn.Embedding(2, hidden_size) if segment_embedding else None  # 0: text, 1: regions
        self.layers = nn.ModuleList(
            TransformerLayer(
                hidden_size=hidden_size,
                heads=heads,
                ffn_size=ffn_size,
                dropout=dropout,
                attention_dropout=attention_dropout,
                normalize_before=normalize_before,
            )
            for _ in range(layers)
        )
        # post-layer-norm layers end in a LayerNorm of their own
        self.final_norm = nn.LayerNorm(hidden_size) if normalize_before else nn.Identity()

    def segment(self, index: int) -> Tensor | None:
        """The embedding (H,) of modality *index* (0 text, 1 regions), or None where the model has none."""
        return None if self.segments is None else self.segments.weight[index]

    def forward(
        self, features: Tensor, boxes: Tensor, padding_mask: Tensor, image_index: Tensor | None = None
    ) -> dict[str, Any]:
        """Encode images.

        Args:
            features: (I, N, D) region features, as stored (float16).
            boxes: (I, N, 4) x1 y1 x2 y2 in 0..1.
            padding_mask: (I, N), True at padding.
            image_index: (C,) image of each caption; None where captions come in equal groups, image by image.

        Returns:
            dict: `images` (`EncoderStates`), and `rows`: how many decoder rows the states stand for.
        """
        mask = ~padding_mask[:, None, None, :]  # (I, 1, 1, N)
        x = self.regions(features, boxes, mask)  # (I, N, H)
        segment = self.segment(1)
        if segment is not None:
            x = x + segment
        for layer in self.layers:
            x = layer.encode(x, mask)  # type: ignore[operator]  # a ModuleList forgets its modules' class
        return {"images": EncoderStates(self.final_norm(x), mask, image_index), "rows": features.size(0)}

    def reorder_encoder_out(self, encoder_out: dict[str, Any], new_order: Tensor) -> dict[str, Any]:
        """Follow a search without copying states for its beams.

        The rows of an image stay adjacent in every fairseq search, so the states stay one row an image, and only
        images whose search has ended are taken out. *new_order* (rows,) first repeats each image once a beam.

        Raises:
            ValueError: where *new_order* moves rows between images (checked on CPU only: a check waits for the GPU).
        """
        images: EncoderStates = encoder_out["images"]
        kept = kept_images(new_order, rows=encoder_out["rows"], images=images.states.size(0))
        if kept is not None:
            images = EncoderStates(images.states.index_select(0, kept), images.mask.index_select(0, kept))
        return {"images": images, "rows": new_order.numel()}

    def max_positions(self) -> int:
        """The number of regions has no limit of the model's own."""
        return 100_000


def kept_images(new_order: Tensor, *, rows: int, images: int) -> Tensor | None:
    """Which images a reordering keeps: their indices, or None when it keeps all of them.

    Args:
        new_order: (new rows,), the old row that each new row continues; rows of an image are adjacent.
        rows: decoder rows before.
        images: images before; each has rows / images rows, or the search is just starting and has one row each.
    """
    new_rows = new_order.numel()
    if new_rows >= rows:
        group = new_rows // images
        expected = torch.arange(images, device=new_order.device)
    else:
        group = rows // images
        expected = None
    if new_order.device.type == "cpu":
        old_group = max(1, rows // images)
        by_image = (new_order // old_group).view(-1, group)
        regular = (by_image == by_image[:, :1]).all() and (expected is None or torch.equal(by_image[:, 0], expected))
        if not regular:
            raise ValueError(f"a reordering must keep the rows of an image adjacent, in image order; got {new_order}")
    return None if expected is not None else new_order[::group] // group


class XGPTDecoder(FairseqIncrementalDecoder):
    """The encoder's own layers, run causally over the text and with attention to the encoder's final states."""

    def __init__(self, dictionary: Dictionary, encoder: XGPTEncoder, *, max_positions: int) -> None:
        super().__init__(dictionary)
        # Outside the module registry, so that shared parameters have one name, the encoder's, in a state dict.
        object.__setattr__(self, "shared", encoder)
        self.output = WordPrediction(vocabulary_size=len(dictionary))
        self._max_positions = max_positions

    shared: XGPTEncoder

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any] | None = None,
        incremental_state: dict[str, dict[str, Tensor]] | None = None,
        output_index: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Predict the next token at each position.

        Args:
            prev_output_tokens: (C, T) the text so far, end-of-sentence first, padded on the right.
            encoder_out: what the encoder returned.
            incremental_state: cache of a search; only the last position is computed then.
            output_index: (M,) flat positions (row · T + column) to predict at; None: everywhere.

        Returns:
            tuple: logits (C, T, V), or (M, V) with *output_index*, and what fairseq expects beside them (no
            attention weights are kept).
        """
        x = self.extract_features(prev_output_tokens, encoder_out, incremental_state)  # (C, T, H)
        if output_index is not None:
            x = x.reshape(-1, x.size(-1)).index_select(0, output_index)  # (M, H)
        return self.output(x, self.shared.text.tokens.weight), {"attn": [None]}

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any] | None,
        incremental_state: dict[str, dict[str, Tensor]] | None = None,
    ) -> Tensor:
        """The decoder's final states (C, T, H), T = 1 in incremental decoding."""
        assert encoder_out is not None, "the decoder needs the encoder's output"
        length = prev_output_tokens.size(1)
        positions = torch.arange(length, device=prev_output_tokens.device)  # (T,)
        if incremental_state is not None:
            prev_output_tokens, positions = prev_output_tokens[:, -1:], positions[-1:]
        x = self.shared.text(prev_output_tokens, positions, self.shared.segment(0))
        for number, layer in enumerate(self.shared.layers):
            cache = None if incremental_state is None else incremental_state.setdefault(f"layer{number}", {})
            x = layer.decode(x, encoder_out["images"], cache)  # type: ignore[operator]
        return self.shared.final_norm(x)

    def reorder_incremental_state(
        self, incremental_state: dict[str, dict[str, Tensor]], new_order: Tensor, **unused: Any
    ) -> None:
        """Make each row of the caches continue row new_order[row]; drop the images whose search has ended."""
        for cache in incremental_state.values():
            rows, images = cache["self_key"].size(0), cache["cross_key"].size(0)
            kept = kept_images(new_order, rows=rows, images=images)
            for name in ("self_key", "self_value"):
                cache[name] = cache[name].index_select(0, new_order)
            if kept is not None:
                for name in ("cross_key", "cross_value"):
                    cache[name] = cache[name].index_select(0, kept)

    def max_positions(self) -> int:
        """Longest text in tokens."""
        return self._max_positions


def dictionary_digest(dictionary: Dictionary) -> Tensor:
    """SHA-256 of the dictionary's symbols in order, as uint8 (32,): travels in every checkpoint."""
    return torch.tensor(list(hashlib.sha256("\n".join(dictionary.symbols).encode()).digest()), dtype=torch.uint8)


def initialize(module: nn.Module) -> None:
    """BERT's initialisation: every weight matrix and embedding N(0, 0.02), biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, mean=0.0, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


@register_model("xgpt", dataclass=XGPTConfig)
class XGPTModel(FairseqEncoderDecoderModel):
    """Encoder and decoder over one stack of layers.

    `net_input` is `features`, `boxes`, `padding_mask`, `prev_output_tokens` and, where captions do not come in equal
    groups, `image_index`; see `XGPTEncoder.forward` and `XGPTDecoder.forward` for their shapes.
    """

    dictionary_digest: Tensor

    def __init__(self, encoder: XGPTEncoder, decoder: XGPTDecoder) -> None:
        super().__init__(encoder, decoder)
        self.register_buffer("dictionary_digest", dictionary_digest(encoder.dictionary))
        self.apply(initialize)

    @classmethod
    def build_model(cls, cfg: XGPTConfig, task: Any) -> "XGPTModel":
        """Build from fairseq's configuration; the region width comes from the task's store where *cfg* has none."""
        apply_architecture("xgpt_base", cfg)  # `--arch xgpt`, or a YAML file that names no sizes
        store_dim = getattr(task, "feature_dim", None)
        if cfg.feature_dim is None:
            cfg.feature_dim = store_dim
        elif store_dim is not None and store_dim != cfg.feature_dim:
            raise DataError(
                f"the region store {task.store_name} has features of width {store_dim}, but the model was built for "
                f"width {cfg.feature_dim}; use the features the model was trained on, or train a new model"
            )
        assert cfg.feature_dim and cfg.layers and cfg.hidden_size and cfg.ffn_size and cfg.attention_heads
        dictionary = task.target_dictionary
        encoder = XGPTEncoder(
            dictionary,
            feature_dim=cfg.feature_dim,
            hidden_size=cfg.hidden_size,
            layers=cfg.layers,
            heads=cfg.attention_heads,
            ffn_size=cfg.ffn_size,
            refine_layers=cfg.refine_layers,
            max_positions=cfg.max_target_positions,
            dropout=cfg.dropout,
            attention_dropout=cfg.attention_dropout,
            normalize_before=cfg.normalize_before,
            normalize_regions=cfg.normalize_regions,
            segment_embedding=not cfg.no_segment_embedding,
        )
        return cls(encoder, XGPTDecoder(dictionary, encoder, max_positions=cfg.max_target_positions))

    def forward(
        self,
        features: Tensor,
        boxes: Tensor,
        padding_mask: Tensor,
        prev_output_tokens: Tensor,
        image_index: Tensor | None = None,
        output_index: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Encode each image once, decode all its captions: logits as `XGPTDecoder.forward` returns them."""
        encoder_out = self.encoder(features, boxes, padding_mask, image_index)
        return self.decoder(prev_output_tokens, encoder_out=encoder_out, output_index=output_index)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """Load a checkpoint's parameters, refusing those of another dictionary or region width.

        Raises:
            DataError: the checkpoint's dictionary or feature width is not this model's.
        """
        digest = state_dict.get("dictionary_digest")
        if digest is not None and not torch.equal(digest.cpu(), self.dictionary_digest.cpu()):
            raise DataError(
                "the data directory's dict.txt is not the dictionary of the checkpoint: all stages must share one "
                "vocabulary (prepare the data with the --vocabulary that the checkpoint was trained with)"
            )
        name = "encoder.regions.embedding.project.weight"  # (H, D + 5)
        if name in state_dict and state_dict[name].size(1) != self.encoder.regions.embedding.project.in_features:
            raise DataError(
                f"the checkpoint was trained on region features of width {state_dict[name].size(1) - 5}, the region "
                f"store has width {self.encoder.regions.embedding.project.in_features - 5}"
            )
        return super().load_state_dict(state_dict, strict=strict, model_cfg=model_cfg, args=args)


def _register(name: str) -> None:
    @register_model_architecture("xgpt", name)
    def architecture(cfg: Namespace) -> None:
        apply_architecture(name, cfg)


for _name in ARCHITECTURES:
    _register(_name)
