"""Bundles: folders with everything that captioning needs, and nothing that only training needs.

    bundle.json            format version; the model's structure and sizes; settings for the regions of photos; what the
                           model was trained on
    model.safetensors      the parameters, float32 or float16
    backbone.safetensors   the weights of the network that sees photos, if `xgpt-export --with-backbone` packed them
    novelty.safetensors    what the training images look like, to warn of others (`NoveltyDetector`); not in all bundles
    dict.txt, vocabulary.json, bpe.codes or bpe.model
    README.md              the model card, if `xgpt-export --card` gave one

`xgpt-export` writes them.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError, foreign_bytes
from xgpt_fairseq.hashing import tensors_sha256
from xgpt_fairseq.io.atomic import atomic_directory, check_output_folder, read_description, write_json
from xgpt_fairseq.loading import load_model, model_config, trained_width
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.regions.limits import DEFAULT_REGIONS, MAX_REGIONS
from xgpt_fairseq.regions.novelty import NoveltyDetector
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.text.vocabulary import FILES, Vocabulary
from xgpt_fairseq.vision.packing import Packed

BUNDLE_VERSION: Final = 1
DESCRIPTION: Final = "bundle.json"
WEIGHTS: Final = "model.safetensors"
BACKBONE: Final = "backbone.safetensors"
NOVELTY: Final = "novelty.safetensors"
CARD: Final = "README.md"

OWN_FILES: Final = (WEIGHTS, BACKBONE, NOVELTY, CARD, DESCRIPTION)

# The captioner that comes with the package.
RELEASED: Final = Path(__file__).parent / "released"

DTYPES: Final = {"float32": torch.float32, "float16": torch.float16}


@dataclass
class Bundle:
    """A trained captioner.

    Attributes:
        model: the model, for inference.
        config: the configuration that it was built from.
        vocabulary: its vocabulary.
        extractor_settings: settings of the region extractor (`PhotoExtractor.settings`) for its training regions; None
            if they did not come from our extractor: then only region stores can be captioned.
        trained_on: origin of the training regions in words, for error messages.
        training: what it was trained on: `data` (name of the data directory), `images`, `captions`, `updates`,
            `started_from` (name of the checkpoint); empty in bundles of earlier versions.
        novelty: detects images unlike its training images; None if that is not known.
        card: the model card (Markdown); empty if there is none.
        backbone: the weights of the network that sees photos: what is to be written, or the file in the bundle that was
            read; None: they are not in the bundle.
        max_regions: most regions of a training image, the whole photo included, where boxes came from a file.
    """

    model: XGPTModel
    config: XGPTConfig
    vocabulary: Vocabulary
    extractor_settings: Mapping[str, Any] | None
    trained_on: str
    training: Mapping[str, Any] = field(default_factory=dict)
    novelty: NoveltyDetector | None = None
    card: str = ""
    backbone: Packed | Path | None = None
    max_regions: int = DEFAULT_REGIONS

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Read the bundle in the folder *path*.

        Raises:
            DataError: it is none, is damaged or of a newer version, or safetensors is not installed.
        """
        file = path / DESCRIPTION
        value = read_description(file, what="a bundle", made_by="xgpt-export", newest=BUNDLE_VERSION)
        vocabulary = Vocabulary(path)
        try:
            options = dict(value["model"])
            options.pop("tifg_target", None)  # in bundles of earlier versions; now an option of TIFG
            config = XGPTConfig(**options)
            extractor_settings, trained_on = value["extractor"], value["trained_on"]
            max_regions = value.get("max_regions", DEFAULT_REGIONS)  # not in bundles of earlier versions
            if not isinstance(max_regions, int) or not 1 <= max_regions <= MAX_REGIONS:
                raise TypeError(f"max_regions is {max_regions!r:.60}")
        except (KeyError, TypeError, ValueError) as error:  # the last one of text in place of the model's options
            raise DataError(f"{file} is damaged: {error}") from None
        model = load_model(path / WEIGHTS, config, vocabulary, _load(path / WEIGHTS))
        novelty = _novelty_of(_load(path / NOVELTY)) if (path / NOVELTY).exists() else None
        with foreign_bytes(path / CARD):
            card = (path / CARD).read_text(encoding="utf-8") if (path / CARD).exists() else ""
        training = value.get("training", {})
        backbone = path / BACKBONE if (path / BACKBONE).exists() else None
        return cls(
            model.eval(), config, vocabulary, extractor_settings, trained_on, training, novelty, card, backbone,
            max_regions,
        )  # fmt: skip

    @classmethod
    def of_checkpoint(cls, path: Path, data: Path | str | None, regions: Path | str | None = None) -> Bundle:
        """The captioner of a checkpoint.

        Args:
            path: the checkpoint.
            data: its data directory; None: the one that it was trained on.
            regions: its region store; None: see `training_regions`.

        Raises:
            DataError: it is no checkpoint of a captioner, or its data directory or region store is not there or
                another's.
        """
        state = load_checkpoint(path)
        config, cfg = model_config(path, state), state.get("cfg") or {}
        task = cfg.get("task") or {}
        if data is None and "data" not in task:
            raise DataError(f"{path} does not say which data it was trained on: name the data directory")
        regions = regions or training_regions(path, task, data)
        directory = DataDirectory(data if data is not None else task["data"], regions=regions)
        source = directory.regions.source
        config.feature_dim = trained_width(path, state)
        model = load_model(path, config, directory.vocabulary, state["model"], directory=directory)
        name = ", ".join(Path(each).name for each in str(source.get("path", directory.regions_path)).split(" … "))
        trained_on = f"regions of {source.get('format', 'an unknown format')} ({name})"
        training, novelty = {}, None
        if directory.has_split("train"):
            split = directory.manifest.splits["train"]
            training = {
                "data": directory.path.resolve().name,
                "images": split.images,
                "captions": split.captions,
                "updates": (state.get("optimizer_history") or [{}])[-1].get("num_updates"),
                "started_from": Path((cfg.get("checkpoint") or {}).get("finetune_from_model") or "").name or None,
            }
            novelty = NoveltyDetector.fit(directory.regions, directory.pairs("train"))
        return cls(
            model.eval(),
            config,
            directory.vocabulary,
            source.get("extractor"),
            trained_on,
            training,
            novelty,
            max_regions=source.get("max_regions") or DEFAULT_REGIONS,
        )

    def sha256(self) -> str:
        """The checksum of its parameters."""
        return tensors_sha256(self.model.state_dict())

    def write(self, output: Path, *, dtype: str = "float32") -> None:
        """Write the bundle to the folder *output*, complete or not at all.

        Args:
            output: the folder; a bundle that is there is replaced.
            dtype: of the stored parameters, one of `DTYPES`; they are read as float32.

        Raises:
            DataError: *output* is a file, or a folder with other things than a bundle; safetensors is not installed; or
                a parameter is too large for *dtype*.
        """
        check_output_folder(output, "a bundle", DESCRIPTION, overwrite=True)
        safetensors = _safetensors()
        fields = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(XGPTConfig)}
        model = {name: str(v) if isinstance(v, str) else v for name, v in fields.items() if not name.startswith("_")}
        value = {
            "version": BUNDLE_VERSION,
            "model": model,
            "extractor": self.extractor_settings,
            "trained_on": self.trained_on,
            "training": self.training,
            "max_regions": self.max_regions,
        }
        state = {name: _stored(name, tensor, dtype) for name, tensor in self.model.state_dict().items()}
        with atomic_directory(output, last=DESCRIPTION, files=[*FILES, *OWN_FILES]) as aside:
            (aside / WEIGHTS).write_bytes(safetensors.save(state))
            if isinstance(self.backbone, Path):
                shutil.copyfile(self.backbone, aside / BACKBONE)
            elif self.backbone is not None:
                self.backbone.write(aside / BACKBONE)
            if self.novelty is not None:
                (aside / NOVELTY).write_bytes(safetensors.save(_tensors_of(self.novelty)))
            if self.card:
                (aside / CARD).write_text(self.card, encoding="utf-8")
            self.vocabulary.copy_to(aside)
            write_json(aside / DESCRIPTION, value)


def training_regions(path: Path, task: Mapping[str, Any], data: Path | str | None) -> Path | None:
    """The region store that a checkpoint was trained on by --regions; None: that of its data directory.

    A store of an absolute path is also that of another data directory, such as the same one by another name, if it
    holds the images that this was prepared for.

    Args:
        path: the checkpoint.
        task: the configuration of its training's task. Paths in it are as fairseq-train took them, from its folder.
        data: the data directory that the user names; None: the one that it was trained on.

    Raises:
        DataError: the store is not there; or *data* is another directory, whose own store may have other features.
    """
    if not task.get("regions"):
        return None
    regions, trained_on = Path(task["regions"]), task.get("data")
    said = f"{path} was trained on {trained_on} with --regions {regions}"
    is_other = data is not None and (trained_on is None or os.path.realpath(data) != os.path.realpath(trained_on))
    if is_other and not (regions.is_absolute() and regions.exists() and _holds_images_of(regions, Path(data or ""))):
        if trained_on is not None and not (Path(trained_on).is_absolute() or Path(trained_on).exists()):
            raise DataError(
                f"{said}: {trained_on} is not found from this folder, so that {data} may be another data directory: "
                "name the store by --regions STORE"
            )
        raise DataError(f"{said}: of another data directory, {data}, name the store of the same features by --regions")
    if not regions.exists():
        raise DataError(f"{said}, which is not there: name it by --regions STORE, or put it (or a link to it) there")
    return regions


def _holds_images_of(regions: Path, data: Path) -> bool:
    """Whether the store *regions* holds the images, in the order, that the directory *data* was prepared for."""
    return RegionStore(regions).ids_crc32 == DataDirectory(data).manifest.regions_ids_crc32


def _stored(name: str, tensor: Tensor, dtype: str) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.contiguous()
    stored = tensor.to(DTYPES[dtype]).contiguous()
    if not stored.isfinite().all():
        raise DataError(f"parameter {name} has values that are not finite in {dtype}")
    return stored


def _tensors_of(novelty: NoveltyDetector) -> dict[str, Tensor]:
    scalars = torch.tensor([novelty.median, novelty.limit, novelty.group_limit])
    return {
        "mean": torch.from_numpy(novelty.mean),
        "directions": torch.from_numpy(novelty.directions).half(),
        "limits": scalars,
    }


def _novelty_of(tensors: Mapping[str, Tensor]) -> NoveltyDetector:
    median, limit, group_limit = tensors["limits"].tolist()
    return NoveltyDetector(tensors["mean"].numpy(), tensors["directions"].float().numpy(), median, limit, group_limit)


def _load(path: Path) -> dict[str, Tensor]:
    safetensors = _safetensors()
    try:
        state: dict[str, Tensor] = safetensors.load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; export the model again") from None
    except Exception as error:  # bytes that are damaged
        raise DataError(f"{path} is damaged or cut short: {error}") from None
    return state


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise DataError('bundles need the package safetensors: pip install "xgpt-fairseq[bundle]"') from None
    return safetensors.torch
