"""XGPT (Xia et al. 2020): one transformer that encodes image regions and generates captions.

Configuration, architectures, and the model over `XGPTEncoder` and `XGPTDecoder`. fairseq's configuration is known to
`XGPTModel.build_model` alone; everything below it takes plain keyword arguments.
"""

import hashlib
from argparse import Namespace
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Unpack

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import (
    ARCH_CONFIG_REGISTRY,
    FairseqEncoderDecoderModel,
    register_model,
    register_model_architecture,
)
from torch import Tensor, nn

from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.models.alignment import Alignment
from xgpt_fairseq.models.architectures import ARCHITECTURES
from xgpt_fairseq.models.decoder import XGPTDecoder
from xgpt_fairseq.models.embeddings import TextEmbedding
from xgpt_fairseq.models.encoder import EncoderInput, XGPTEncoder, build_layers
from xgpt_fairseq.models.feature_statistics import STATISTICS, statistics_of
from xgpt_fairseq.models.layers import CrossAttentionLayer, JointLayer, SharedLayer, TransformerLayer
from xgpt_fairseq.models.regions import RegionEncoder
from xgpt_fairseq.models.transfer import (
    LoadMode,
    check_boxes,
    check_features,
    check_structure,
    decode_structure,
    encode_structure,
    refuse_old_optimizer,
    transfer,
    upgrade_names,
    warn_of_other_features,
)
from xgpt_fairseq.regions.feature_settings import compared_settings
from xgpt_fairseq.workarounds import correct_options

# The structures of section 6: the encoder's layers, and the decoder's where they are not the same.
SHARING_LAYERS: dict[str, tuple[type[TransformerLayer], type[TransformerLayer] | None]] = {
    "enc-dec-share": (SharedLayer, None),
    "enc-dec": (TransformerLayer, CrossAttentionLayer),
    "enc": (JointLayer, None),
}
SHARING = ChoiceEnum(list(SHARING_LAYERS))


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
        metadata={"help": "structure of the model. enc-dec-share: encoder and decoder are one stack of layers, and "
                  "self- and cross-attention share their weights (section 4.2). enc-dec: a stack for each. enc: one "
                  "stack, and text attends to the image and to the text so far at once (section 6)"},
    )  # fmt: skip
    max_target_positions: int = field(
        default=60, metadata={"help": "longest text in tokens, end of sentence included (appendix A.2)"}
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout rate (section 5.3)"})
    attention_dropout: float = field(default=0.1, metadata={"help": "dropout rate of attention weights"})
    normalize_before: bool = field(
        default=False, metadata={"help": "LayerNorm before each sublayer instead of after it"}
    )
    checkpoint_activations: bool = field(
        default=False,
        metadata={"help": "keep only each layer's input for the backward pass and compute the rest again: less memory, "
                  "more time"},
    )  # fmt: skip


def apply_architecture(name: str, cfg: Namespace | FairseqDataclass) -> None:
    """Fill the sizes that *cfg* leaves open with those of architecture *name*."""
    for size, value in ARCHITECTURES[name].items():
        if getattr(cfg, size, None) is None:
            setattr(cfg, size, value)


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
    """Encoder and decoder, over one stack of layers or two, and the heads of the objectives that train them.

    It is called with a batch's `net_input`; see `XGPTEncoder.forward` and `XGPTDecoder.forward` for the shapes.

    Args:
        structure: options that decide what the model computes and that no shape shows, by name; kept in checkpoints.
        heads: an objective's own parameters, by its name: see `Objective.build_head`.
        spare_heads: objectives whose heads a checkpoint may have that this model is loaded from without them.

    Attributes:
        load_mode: what the next checkpoint is loaded for.
        checkpoint: its name, for messages.
        store_name: the region store that the model is for, for messages; None: it knows none.
        has_boxes: whether the regions of its store have boxes; None: it is of whatever kind its checkpoint is.
    """

    dictionary_digest: Tensor
    structure: Tensor  # (bytes,) uint8

    def __init__(
        self,
        encoder: XGPTEncoder,
        decoder: XGPTDecoder,
        *,
        structure: Mapping[str, Any],
        heads: Mapping[str, nn.Module],
        spare_heads: Collection[str] = (),
    ) -> None:
        super().__init__(encoder, decoder)
        self.heads = nn.ModuleDict(dict(heads))
        self.spare_heads = spare_heads
        self.load_mode = LoadMode.INFERENCE
        self.checkpoint: str | None = None
        self.store_name: str | None = None
        self.has_boxes: bool | None = None
        self.register_buffer("dictionary_digest", dictionary_digest(encoder.dictionary))
        self.register_buffer("structure", encode_structure(structure))
        self.apply(initialize)

    @classmethod
    def build_model(cls, cfg: XGPTConfig, task: Any) -> "XGPTModel":
        """Build from fairseq's configuration; the region width comes from the task's store where *cfg* has none.

        A task without images builds a model without image parts, unless *cfg* names a width. The heads are those of
        task.objectives.
        """
        apply_architecture("xgpt_base", cfg)  # `--arch xgpt`, or a YAML file that names no sizes
        for size, least in {**dict.fromkeys(ARCHITECTURES["xgpt_base"], 1), "refine_layers": 0}.items():
            check_at_least(f"--{size.replace('_', '-')}", getattr(cfg, size), least)
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(cfg, name) <= 1:
                raise DataError(f"--{name.replace('_', '-')} must be a probability, got {getattr(cfg, name)}")
        store_dim = getattr(task, "feature_dim", None)
        if cfg.feature_dim is None:
            cfg.feature_dim = store_dim
        elif store_dim is not None and store_dim != cfg.feature_dim:
            raise DataError(
                f"the region store {task.store_name} has features of width {store_dim}, but the model was built for "
                f"width {cfg.feature_dim}; use the features the model was trained on, or train a new model"
            )
        assert cfg.layers and cfg.hidden_size and cfg.ffn_size and cfg.attention_heads  # for mypy
        dictionary = task.target_dictionary
        encoder_layer, decoder_layer = SHARING_LAYERS[str(cfg.sharing)]
        attention: dict[str, Any] = {
            "hidden_size": cfg.hidden_size,
            "heads": cfg.attention_heads,
            "dropout": cfg.dropout,
            "attention_dropout": cfg.attention_dropout,
        }
        count = cfg.layers

        def build_stack(layer: type[TransformerLayer]) -> tuple[nn.ModuleList, nn.Module]:
            return build_layers(
                layer, count=count, ffn_size=cfg.ffn_size, normalize_before=cfg.normalize_before, **attention
            )

        regions = alignment = None
        if cfg.feature_dim is not None:
            regions = RegionEncoder(
                feature_dim=cfg.feature_dim,
                refine_layers=cfg.refine_layers,
                normalize=cfg.normalize_regions,
                **attention,
            )
            alignment = Alignment(hidden_size=cfg.hidden_size)
        encoder = XGPTEncoder(
            dictionary,
            text=TextEmbedding(
                vocabulary_size=len(dictionary),
                padding_idx=dictionary.pad(),
                hidden_size=cfg.hidden_size,
                max_positions=cfg.max_target_positions,
                dropout=cfg.dropout,
            ),
            regions=regions,
            alignment=alignment,
            segments=None if cfg.no_segment_embedding else nn.Embedding(2, cfg.hidden_size),
            stack=build_stack(encoder_layer),
            checkpoint_activations=cfg.checkpoint_activations,
        )
        decoder = XGPTDecoder(
            dictionary,
            encoder,
            stack=None if decoder_layer is None else build_stack(decoder_layer),
            max_positions=cfg.max_target_positions,
        )
        heads = {
            name: objective.build_head(hidden_size=cfg.hidden_size, feature_dim=cfg.feature_dim, dropout=cfg.dropout)
            for name, objective in getattr(task, "objectives", {}).items()
        }
        structure: dict[str, Any] = {"sharing": str(cfg.sharing), "attention_heads": cfg.attention_heads}
        if cfg.feature_dim is not None:
            structure["normalize_regions"] = cfg.normalize_regions
        has_boxes: bool | None = getattr(task, "has_boxes", None)
        if has_boxes is False:
            structure["boxes"] = False  # where it is not there, as in earlier versions, there are boxes
        if (settings := getattr(task, "feature_settings", None)) is not None:
            structure["features"] = compared_settings(settings)
        model = cls(
            encoder,
            decoder,
            structure=structure,
            heads={name: head for name, head in heads.items() if head is not None},
            spare_heads=getattr(task, "spare_heads", ()),
        )
        model.has_boxes = has_boxes
        model.store_name = getattr(task, "store_name", None)
        return model

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str | None = None,
        checkpoint_file: str | None = None,
        data_name_or_path: str | None = None,
        regions: str | None = None,
        *,
        backbone_weights: str | None = None,
        offline: bool = False,
    ) -> Any:
        """A model that captions photos (`XGPTHubInterface`).

        Args:
            model_name_or_path: a bundle that xgpt-export wrote, a checkpoint, or the folder of *checkpoint_file*; None:
                the captioner in the package, in versions that have one.
            checkpoint_file: a checkpoint in that folder; without one, its path.
            data_name_or_path: the data directory of a checkpoint; None: the one that it was trained on.
            regions: the region store of a checkpoint; None: the one that it was trained on.
            backbone_weights, offline: see `XGPTHubInterface.from_path`.
        """
        from xgpt_fairseq.hub_interface import XGPTHubInterface

        path = model_name_or_path if checkpoint_file is None else str(Path(model_name_or_path or "", checkpoint_file))
        return XGPTHubInterface.from_path(
            path, data=data_name_or_path, regions=regions, backbone_weights=backbone_weights, offline=offline
        )

    def forward(self, method: str = "predict_words", **inputs: Any) -> Any:
        """`predict_words`, or a head by its objective's name, which is given the model and *inputs*.

        The wrappers of several processes and of half precision hand on `forward` alone, so that an objective calls the
        model itself, and says by *method* what it wants.
        """
        if method in self.heads:
            return self.heads[method](self, **inputs)
        return getattr(self, method)(**inputs)

    def predict_words(
        self,
        prev_output_tokens: Tensor | None = None,
        positions: Tensor | None = None,
        output_index: Tensor | None = None,
        **encoder_input: Unpack[EncoderInput],
    ) -> tuple[Tensor, dict[str, Any]]:
        """Encode each image once, decode all its captions: logits as `XGPTDecoder.forward` returns them.

        Without *prev_output_tokens*, words are predicted from the encoder's states (MLM).
        """
        encoder_out = self.encoder(**encoder_input)
        if prev_output_tokens is None:
            return self.decoder.predict_words(encoder_out["memory"].states, output_index), {}
        logits: tuple[Tensor, dict[str, Any]] = self.decoder(
            prev_output_tokens, encoder_out=encoder_out, output_index=output_index, positions=positions
        )
        return logits

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """Load a checkpoint's parameters, whatever version wrote them, for what `load_mode` says.

        Raises:
            DataError: it is of another dictionary, region width or structure; see `transfer` for what may differ where
                a training starts from it.
        """
        digest = state_dict.get("dictionary_digest")
        if digest is not None and not torch.equal(digest.cpu(), self.dictionary_digest.cpu()):
            raise DataError(
                "the data directory's dict.txt is not the dictionary of the checkpoint: all stages must share one "
                "vocabulary (prepare the data with the --vocabulary that the checkpoint was trained with)"
            )
        if self.load_mode is LoadMode.RESUME:
            refuse_old_optimizer(state_dict)
        given = decode_structure(state_dict.get("structure"))
        check_structure(decode_structure(self.structure), given, self.load_mode)
        if self.encoder.regions is not None and any(name.startswith("encoder.regions.") for name in state_dict):
            self._settle_boxes(given.get("boxes", True))
            self._settle_features(given.get("features"))
        state = {**upgrade_names(state_dict), "structure": self.structure}
        own = self.state_dict()
        name = "encoder.regions.embedding.project.weight"  # (H, D + 5)
        if name in state and name in own and state[name].size(1) != own[name].size(1):
            raise DataError(
                f"the checkpoint was trained on region features of width {state[name].size(1) - 5}, the region "
                f"store has width {own[name].size(1) - 5}"
            )
        statistics = self._settle_statistics(statistics_of(state))
        own, state = (
            {name: tensor for name, tensor in each.items() if name not in STATISTICS} for each in (own, state)
        )
        if strict:
            state = transfer(own, state, self.load_mode, spare_heads=self.spare_heads)
        return super().load_state_dict({**state, **statistics}, strict=strict, model_cfg=model_cfg, args=args)

    def _settle_boxes(self, given: bool) -> None:
        """Check that the checkpoint is for regions of the store's kind; a model that knows no store is of its kind.

        Raises:
            DataError: it is of the other kind.
        """
        if self.has_boxes is None:
            self.has_boxes = given
            if not given:
                structure = encode_structure({**decode_structure(self.structure), "boxes": False})
                self.structure = structure.to(self.structure.device)
        check_boxes(self.has_boxes, given, self.store_name)

    def _settle_features(self, given: Mapping[str, Any] | None) -> None:
        """Check that the checkpoint is for features like the store's, where both are known.

        A model that knows no store keeps what the checkpoint says of its own.

        Raises:
            DataError: it is for others, and no training starts from it.
        """
        structure = decode_structure(self.structure)
        if given is None:
            return
        if "features" in structure:
            check_features(
                structure["features"], given, self.load_mode, store=self.store_name, checkpoint=self.checkpoint
            )
        elif self.store_name is None:
            self.structure = encode_structure({**structure, "features": given}).to(self.structure.device)

    def _settle_statistics(self, given: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
        """The statistics of features, by name, after loading a checkpoint that has *given*.

        A training that starts from the checkpoint keeps those of its own store; a resumed one, and a model that
        generates, has the checkpoint's. Where both are known, they are compared. Checkpoints of text, and old ones,
        have none.
        """
        regions = self.encoder.regions
        if regions is None:
            return {}
        if given is not None:
            own = statistics_of(self.state_dict())
            if own is not None:
                warn_of_other_features(own, given, store=self.store_name, checkpoint=self.checkpoint)
            if self.load_mode is not LoadMode.START or own is None:
                regions.keep_statistics(*given)
        return {name: tensor for name, tensor in self.state_dict().items() if name in STATISTICS}


def _register(name: str) -> None:
    @register_model_architecture("xgpt", name)
    def architecture(cfg: Namespace) -> None:
        apply_architecture(name, cfg)
        correct_options(cfg)


for _name in ARCHITECTURES:
    _register(_name)
# `--arch xgpt`, which fairseq has registered with the model; `build_model` fills its sizes
ARCH_CONFIG_REGISTRY["xgpt"] = correct_options
