"""Extractors of regions, rebuilt from the settings that a store or a bundle remembers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.feature_settings import SETTINGS_VERSION, settings_that_differ
from xgpt_fairseq.vision.backbones.base import BackboneOptions
from xgpt_fairseq.vision.detector_extractor import DetectorExtractor
from xgpt_fairseq.vision.detectors.base import DetectorOptions
from xgpt_fairseq.vision.extractor import RegionExtractor, grid_in_words
from xgpt_fairseq.vision.photo_extractor import PhotoExtractor


def rebuild(
    settings: Mapping[str, Any],
    *,
    weights: Path | None = None,
    offline: bool = False,
    device: str | None = None,
    batch_size: int | None = None,
) -> PhotoExtractor:
    """An extractor of the same features, on any device.

    Args:
        settings: `PhotoExtractor.settings`.
        weights: where the weights of the backbone or the detector lie here, if they are not the published ones.
        offline: never fetch them.
        device, batch_size: as `PhotoExtractor`.

    Raises:
        DataError: the settings are of another program or version, or of other weights than those found here.
    """
    version = settings.get("version")
    if not isinstance(version, int) or version > SETTINGS_VERSION:
        raise DataError(
            f"settings of the region extractor have version {version!r}, this xgpt_fairseq reads versions up to "
            f"{SETTINGS_VERSION}: upgrade it"
        )
    place = {"device": device, "batch_size": batch_size}
    try:
        extractor = (
            _with_detector(settings, weights, offline, place)
            if settings.get("detector")
            else _with_backbone(settings, weights, offline, place)
        )
    except DataError:  # which is a ValueError: a package or weights are missing, for instance
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"settings of the region extractor are damaged: {type(error).__name__} {error}") from None
    for name, then, now in settings_that_differ(settings, extractor.settings):
        raise DataError(f"the region extractor was made with {name} {then!r}; here it is {now!r}, with other features")
    return extractor


def _with_backbone(
    settings: Mapping[str, Any], weights: Path | None, offline: bool, place: Mapping[str, Any]
) -> PhotoExtractor:
    options = BackboneOptions(
        weights=weights, layer=settings.get("layer"), offline=offline, revision=settings.get("revision")
    )
    return RegionExtractor(
        backbone=settings["backbone"],
        options=options,
        grid=settings["grid"],
        image_size=settings["image_size"],
        square=bool(settings.get("square", False)),
        bf16=settings.get("dtype") == "bfloat16",
        **place,
    )


def _with_detector(
    settings: Mapping[str, Any], weights: Path | None, offline: bool, place: Mapping[str, Any]
) -> PhotoExtractor:
    options = DetectorOptions(weights=weights, offline=offline)
    return DetectorExtractor(
        settings["detector"],
        options=options,
        min_regions=settings["min_regions"],
        max_regions=settings["max_regions"],
        **place,
    )


def in_words(settings: Mapping[str, Any]) -> str:
    """The network, size and regions of an extractor's *settings*, in a line."""
    if settings.get("detector"):
        return f"{settings['detector']}, {settings['min_regions']} to {settings['max_regions']} boxes"
    squeezed = " (squares)" if settings.get("square") else ""
    return f"{settings['backbone']} at {settings['image_size']} pixels{squeezed}, {grid_in_words(settings['grid'])}"


def needs_boxes(settings: Mapping[str, Any]) -> bool:
    """Whether an extractor of these *settings* needs boxes with the photos."""
    return not settings.get("detector") and settings["grid"] is None
