"""Detectors of torchvision with boxes' heads: `torchvision:fasterrcnn_resnet50_fpn_v2`, …

Regions are the whole photo and what the detector finds, each with the output of its box head, for its refined box. That
is one more run of the box head than detection needs, of 100 boxes where proposals are 1 000.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hashing import tensors_sha256
from xgpt_fairseq.vision.backbones.base import Origin, needs_package, per_channel
from xgpt_fairseq.vision.backbones.broken_packages import torchvision_advice
from xgpt_fairseq.vision.backbones.torchvision_models import published_state
from xgpt_fairseq.vision.detectors.base import Detector, DetectorOptions, Found, read_names
from xgpt_fairseq.vision.packing import Packed, load_tensors
from xgpt_fairseq.vision.photos import PhotoForm
from xgpt_fairseq.vision.pooling import FULL_IMAGE_BOX, WHOLE_LABEL, max_boxes

# Their published weights were trained with batch normalisation that adds nothing to the variance.
WITHOUT_EPSILON: Final = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn")


class TorchvisionDetector(Detector):
    """See the module.

    Args:
        name: as the user names it.
        model: of torchvision, with `roi_heads`.
        labels: names of its classes, of none first.
        origin: of the weights.
        entries: names of the weights that were loaded.
    """

    most: ClassVar[int] = 100
    mean: Tensor  # (1, 3, 1, 1), as std
    std: Tensor

    def __init__(self, name: str, model: Any, *, labels: Sequence[str], origin: Origin, entries: Sequence[str]) -> None:
        transform = model.transform
        form = PhotoForm(transform.max_size, stride=1, shorter_side=transform.min_size[-1])
        super().__init__(name, form=form, origin=origin, packed=self._packed)
        self.model = model
        self._entries = entries
        self.labels = labels
        self.feature_dim = model.roi_heads.box_predictor.cls_score.in_features
        for key, values in (("mean", transform.image_mean), ("std", transform.image_std)):
            self.register_buffer(key, torch.tensor(per_channel(values)).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def _packed(self) -> Packed:
        """The weights under their own names, so that they have their checksum.

        Published ones of normalisation that was frozen have no number of batches; the model here has one, which it does
        not use.
        """
        state = self.model.state_dict()
        return Packed({name: state[name] for name in self._entries})

    @property
    def rules(self) -> dict[str, Any]:
        """What decides boxes and features besides weights and the form of photos."""
        rpn, heads = self.model.rpn, self.model.roi_heads
        return {
            "proposals": [rpn.pre_nms_top_n(), rpn.post_nms_top_n()],
            "suppression": [rpn.nms_thresh, heads.nms_thresh],
            "confidence": heads.score_thresh,
        }

    def detect(
        self, pixels: Tensor, sizes: Sequence[tuple[int, int]], *, min_regions: int, max_regions: int
    ) -> list[Found]:
        """See `Detector.detect`. Region 0 is the whole photo."""
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std  # (B, 3, H, W)
        height, width = pixels.shape[1:3]
        images = self.model.transform.batch_images(list(x))  # sides are padded to multiples of 32
        from torchvision.models.detection.image_list import ImageList

        shapes = [(height, width)] * len(x)
        maps = self.model.backbone(images)
        proposals, _ = self.model.rpn(ImageList(images, shapes), maps)
        heads = self.model.roi_heads
        heads.detections_per_img = max_boxes(max_regions) + 1  # one more, to see whether there were more
        detected, _ = heads(maps, proposals, shapes)
        whole = x.new_tensor(FULL_IMAGE_BOX) * x.new_tensor([width, height] * 2)
        boxes = [torch.cat([whole[None], each["boxes"][: max_boxes(max_regions)]]) for each in detected]
        features = heads.box_head(heads.box_roi_pool(maps, boxes, shapes)).split([len(each) for each in boxes])
        return [
            Found(
                of_photo,
                corners,
                torch.cat([each["scores"].new_ones(1), each["scores"]])[: len(corners)],
                (WHOLE_LABEL, *(self.labels[number] for number in each["labels"].tolist()))[: len(corners)],
                truncated=len(each["boxes"]) >= len(corners),
            )
            for of_photo, corners, each in zip(features, boxes, detected, strict=True)
        ]


def load(name: str, options: DetectorOptions) -> Detector:
    """Load a detector by torchvision's name for it, with its default weights or those of a file.

    Raises:
        DataError: torchvision is not installed, knows no such detector, or the weights are missing or damaged.
    """
    try:
        from torchvision import models
    except Exception as error:  # also what torchvision raises
        advice = torchvision_advice()
        raise DataError(f"{name}: {advice}") if advice else needs_package(name, "torchvision", error) from None
    model_name = name.removeprefix("torchvision:")
    if model_name not in models.list_models(module=models.detection):
        raise DataError(f"{name}: torchvision has no such detector; {', '.join(_usable(models))} are known")
    if "rcnn" not in model_name:  # before anything is fetched
        raise DataError(f"{name} has no box head; {', '.join(_usable(models))} have one")
    published = models.get_model_weights(model_name).DEFAULT
    state = published_state(name, published, offline=options.offline) if options.weights is None else None
    if options.weights is not None:
        state = load_tensors(name, options.weights)
    classes = state.get("roi_heads.box_predictor.cls_score.bias") if state else None
    if state is None or classes is None:
        raise DataError(f"{name}: {options.weights} has no weights of a box head")
    model = models.get_model(model_name, weights=None, weights_backbone=None, num_classes=len(classes))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"{name}: {options.weights or 'the weights'} do not fit: {' '.join(str(error).split())[:300]}"
        ) from None
    model.roi_heads.mask_roi_pool = model.roi_heads.keypoint_roi_pool = None  # neither is computed
    if model_name in WITHOUT_EPSILON:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    origin = Origin(tensors_sha256(state), versions={each: version(each) for each in ("torch", "torchvision")})
    labels = _labels(published, len(classes), options)
    return TorchvisionDetector(name, model, labels=labels, origin=origin, entries=list(state))


def _labels(published: Any, count: int, options: DetectorOptions) -> Sequence[str]:
    if len(options.label_names) > 1:
        raise DataError(f"--label-names: {len(options.label_names)} files; this detector knows objects alone")
    if options.label_names:
        return ("", *read_names(options.label_names[0], count - 1))
    names = published.meta["categories"]
    return names if len(names) == count else [str(number) for number in range(count)]


def _usable(models: Any) -> list[str]:
    return [f"torchvision:{each}" for each in models.list_models(module=models.detection) if "rcnn" in each]
