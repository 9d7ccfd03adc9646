"""The detector of bottom-up attention (Anderson et al. 2018): Faster R-CNN of ResNet-101, trained on Visual Genome.

Its features are what the paper, and most of its field, saw images by. Regions are chosen as by the authors' program
that made the archives (`tools/generate_tsv.py`): 300 proposals, each with the highest probability that an object keeps
after suppression by class; those with 0.2 or more are the regions, 10 to 100 of them, with the proposals' own boxes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hashing import tensors_sha256
from xgpt_fairseq.vision.backbones.base import Origin
from xgpt_fairseq.vision.choices import VG_BOTTOM_UP, VG_FEWEST
from xgpt_fairseq.vision.detectors.base import Detector, DetectorOptions, Found, read_names
from xgpt_fairseq.vision.detectors.boxes import overlaps, pool_maxima, suppress, suppress_by_class
from xgpt_fairseq.vision.detectors.vg_weights import HEAD, RES5, RPN, read_weights
from xgpt_fairseq.vision.packing import Packed
from xgpt_fairseq.vision.photos import PhotoForm

SOURCE: Final = "https://github.com/MILVLG/bottom-up-attention.pytorch"

# Of values 0 to 255; blue, green, red.
MEANS: Final = (102.9801, 115.9465, 122.7717)
FORM: Final = PhotoForm(image_size=1000, stride=1, shorter_side=600)

STRIDE: Final = 16  # pixels per cell of the map that proposals are made from
SCALES: Final = (4, 8, 16, 32)
RATIOS: Final = (0.5, 1.0, 2.0)
ANCHORS: Final = len(SCALES) * len(RATIOS)
SMALLEST: Final = 16  # pixels of the original photo
BEFORE, AFTER = 6000, 300  # proposals before and after suppression
PROPOSAL_OVERLAP: Final = 0.7
CLASS_OVERLAP: Final = 0.3
CONFIDENCE: Final = 0.2
CELLS: Final = 14
# In Caffe's boxes x2 and y2 are the last pixels that belong to them.
PIXEL: Final = 1.0
# An attribute is named if it is at least so probable.
ATTRIBUTE_CONFIDENCE: Final = 0.1
# Proposals that pass through res5 at once: of 2 048 · 14 · 14 values, 160 MB.
PROPOSALS_AT_ONCE: Final = 100


class ConvNorm(nn.Conv2d):
    """A convolution without bias, and batch normalisation (of stored statistics, since it is never trained here)."""

    def __init__(self, width_in: int, width: int, size: int, *, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (size // 2)
        super().__init__(width_in, width, size, stride=stride, padding=padding, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, width, H / stride, W / stride)"""
        normed: Tensor = self.norm(super().forward(x))
        return normed


class Block(nn.Module):
    """A bottleneck of ResNet as Caffe has it: the stride is in the first convolution."""

    def __init__(self, width_in: int, middle: int, width: int, *, stride: int, dilation: int, projects: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width_in, middle, 1, stride=stride)
        self.conv2 = ConvNorm(middle, middle, 3, dilation=dilation)
        self.conv3 = ConvNorm(middle, width, 1)
        self.shortcut = ConvNorm(width_in, width, 1, stride=stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, width, H / stride, W / stride)"""
        found = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(found + (x if self.shortcut is None else self.shortcut(x)))


class Network(nn.Module):
    """The layers, with detectron2's names for them. Their sizes are those of the weights."""

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        stem = nn.ModuleDict({"conv1": ConvNorm(3, shapes["backbone.stem.conv1.weight"][0], 7, stride=2)})
        self.backbone = nn.ModuleDict({"stem": stem})
        for name, stride in (("res2", 1), ("res3", 2), ("res4", 2)):
            self.backbone[name] = _stage(shapes, f"backbone.{name}", stride=stride, dilation=1)
        proposals = shapes[f"{RPN}.conv.weight"]
        rpn = nn.ModuleDict(
            {
                "conv": nn.Conv2d(proposals[1], proposals[0], 3, padding=1),
                "objectness_logits": nn.Conv2d(proposals[0], 2 * ANCHORS, 1),
                "anchor_deltas": nn.Conv2d(proposals[0], 4 * ANCHORS, 1),
            }
        )
        self.proposal_generator = nn.ModuleDict({"rpn_head": rpn})
        head: dict[str, nn.Module] = {"cls_score": _linear(shapes, f"{HEAD}.cls_score")}
        if f"{HEAD}.attr_score.weight" in shapes:
            classes, width = shapes[f"{HEAD}.cls_embedding.weight"]
            head["cls_embedding"] = nn.Embedding(classes, width)
            head["fc_attr"] = _linear(shapes, f"{HEAD}.fc_attr")
            head["attr_score"] = _linear(shapes, f"{HEAD}.attr_score")
        res5 = _stage(shapes, RES5, stride=1, dilation=2)
        self.roi_heads = nn.ModuleDict({"res5": res5, "box_predictor": nn.ModuleDict(head)})

    def feature_map(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W), blue, green, red, less `MEANS` → (B, C, ≈ H / 16, ≈ W / 16)"""
        x = F.relu(self._run("backbone.stem.conv1", x))
        x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        for stage in ("res2", "res3", "res4"):
            x = self._run(f"backbone.{stage}", x)
        return x

    def propose(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """feature_map (B, C, H, W) → of each cell and anchor, whether it is an object, (B, H · W · A) probabilities;
        and the change of the anchor's box, (B, H · W · A, 4)."""
        x = F.relu(self._run(f"{RPN}.conv", feature_map))
        nothing, something = self._run(f"{RPN}.objectness_logits", x).split(ANCHORS, dim=1)
        objects = (something - nothing).sigmoid().permute(0, 2, 3, 1).flatten(1)
        changes = self._run(f"{RPN}.anchor_deltas", x).permute(0, 2, 3, 1)
        return objects, changes.flatten(1).unflatten(1, (-1, 4))

    def features(self, pooled: Tensor) -> Tensor:
        """pooled (N, C, 14, 14) → (N, D)"""
        return torch.cat([self._run(RES5, part).mean(dim=(2, 3)) for part in pooled.split(PROPOSALS_AT_ONCE)])

    def classify(self, features: Tensor) -> Tensor:
        """features (N, D) → (N, 1 + objects) probabilities, of none first"""
        return self._run(f"{HEAD}.cls_score", features).softmax(dim=1)

    def attributes(self, features: Tensor, classes: Tensor) -> Tensor:
        """features (N, D), classes (N,) from 0 for none → (N, 1 + attributes) probabilities, of none first"""
        embedded = self._run(f"{HEAD}.cls_embedding", classes)
        hidden = F.relu(self._run(f"{HEAD}.fc_attr", torch.cat([features, embedded], dim=1)))
        return self._run(f"{HEAD}.attr_score", hidden).softmax(dim=1)

    def _run(self, name: str, x: Tensor) -> Tensor:
        """What the layer *name* makes of *x*."""
        found: Tensor = self.get_submodule(name)(x)
        return found


def _stage(shapes: Mapping[str, Sequence[int]], name: str, *, stride: int, dilation: int) -> nn.Sequential:
    """The blocks of a stage. The first has the stride, and projects."""
    pattern = re.compile(rf"{re.escape(name)}\.(\d+)\.conv1\.weight")
    numbers = sorted(int(match[1]) for key in shapes if (match := pattern.fullmatch(key)))
    blocks = []
    for number in numbers:
        middle, width_in = shapes[f"{name}.{number}.conv1.weight"][:2]
        width = shapes[f"{name}.{number}.conv3.weight"][0]
        projects = f"{name}.{number}.shortcut.weight" in shapes
        blocks.append(
            Block(width_in, middle, width, stride=stride if projects else 1, dilation=dilation, projects=projects)
        )
    return nn.Sequential(*blocks)


def _linear(shapes: Mapping[str, Sequence[int]], name: str) -> nn.Linear:
    width, width_in = shapes[f"{name}.weight"]
    return nn.Linear(width_in, width)


def base_anchors() -> Tensor:
    """The boxes that are proposed at the first cell, before they are changed: (12, 4) x1 y1 x2 y2 in pixels.

    A square of 16 pixels is given each ratio of height to width, with whole sides, and then each scale.
    """
    centre = (STRIDE - 1) / 2
    found = []
    for ratio in RATIOS:
        width = round((STRIDE * STRIDE / ratio) ** 0.5)
        height = round(width * ratio)
        for scale in SCALES:
            half = (0.5 * (width * scale - 1), 0.5 * (height * scale - 1))
            found.append((centre - half[0], centre - half[1], centre + half[0], centre + half[1]))
    return torch.tensor(found)


def all_anchors(rows: int, columns: int, device: torch.device) -> Tensor:
    """The boxes of all cells, row by row, and in each of all anchors: (rows · columns · 12, 4)."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    shifts = STRIDE * torch.stack([x, y, x, y], dim=2).view(-1, 1, 4)
    return (base_anchors() + shifts).view(-1, 4).to(device)


def changed(anchors: Tensor, changes: Tensor) -> Tensor:
    """The boxes (N, 4) that *changes* (N, 4: of the centre in sides, of sides in logarithms) make of *anchors*."""
    sides = anchors[:, 2:] - anchors[:, :2] + PIXEL
    centres = anchors[:, :2] + 0.5 * sides + changes[:, :2] * sides
    half = 0.5 * sides * changes[:, 2:].exp()
    return torch.cat([centres - half, centres + half], dim=1)


class VGBottomUp(Detector):
    """See the module.

    Args:
        state: of `read_weights`.
        objects, attributes: names, without that of none; empty: numbers, and no attributes.

    Raises:
        DataError: an entry is missing, or of another shape.
    """

    fewest: ClassVar[int | None] = VG_FEWEST
    most: ClassVar[int] = 100

    def __init__(self, state: Mapping[str, Tensor], objects: Sequence[str], attributes: Sequence[str]) -> None:
        origin = Origin(tensors_sha256(state), versions={"torch": torch.__version__})
        super().__init__(VG_BOTTOM_UP, form=FORM, origin=origin, packed=self._packed)
        try:
            self.network = Network({name: tuple(value.shape) for name, value in state.items()})
            self.network.load_state_dict({**_counts(self.network), **state})
        except KeyError as error:
            raise DataError(f"{VG_BOTTOM_UP}: the weights have no entry {error}") from None
        except RuntimeError as error:
            raise DataError(f"{VG_BOTTOM_UP}: the weights don't fit: {' '.join(str(error).split())[:300]}") from None
        self.objects, self.attribute_names = objects, attributes
        self.feature_dim = len(state[f"{RES5}.0.conv3.weight"])
        self.register_buffer("means", torch.tensor(MEANS).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    means: Tensor

    def _packed(self) -> Packed:
        state = self.network.state_dict()
        return Packed({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")})

    @property
    def rules(self) -> dict[str, Any]:
        """What decides boxes and features besides weights and the form of photos."""
        return {
            "proposals": [BEFORE, AFTER],
            "suppression": [PROPOSAL_OVERLAP, CLASS_OVERLAP],
            "confidence": CONFIDENCE,
        }

    def detect(
        self, pixels: Tensor, sizes: Sequence[tuple[int, int]], *, min_regions: int, max_regions: int
    ) -> list[Found]:
        """See `Detector.detect`. If fewer than *min_regions* proposals are kept, the most confident are."""
        x = pixels.permute(0, 3, 1, 2).flip(1).float() - self.means  # (B, 3, H, W)
        maps = self.network.feature_map(x)
        objects, changes = self.network.propose(maps)
        height, width = pixels.shape[1:3]
        anchors = all_anchors(maps.shape[2], maps.shape[3], maps.device)
        found = []
        for image in range(len(pixels)):
            scale = width / sizes[image][0]
            boxes = self._proposals(anchors, objects[image], changes[image], height, width, SMALLEST * scale)
            pooled = pool_maxima(maps[image], boxes, scale=1 / STRIDE, cells=CELLS)
            features = self.network.features(pooled)
            found.append(self._chosen(boxes, features, scale, min_regions, max_regions))
        return found

    def _proposals(
        self, anchors: Tensor, objects: Tensor, changes: Tensor, height: int, width: int, smallest: float
    ) -> Tensor:
        """The best boxes (n, 4) of one photo, clipped to it; at least one."""
        boxes = changed(anchors, changes)
        corner = torch.tensor([width - 1, height - 1] * 2, device=boxes.device, dtype=boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), corner)
        is_large = (boxes[:, 2:] - boxes[:, :2] + PIXEL >= smallest).all(dim=1)
        places = is_large.nonzero()[:, 0]
        if not len(places):
            return torch.cat([corner.new_zeros(2), corner[:2]])[None]
        best = objects[places].argsort(descending=True, stable=True)[:BEFORE]
        places = places[best]
        kept = suppress(boxes[places], objects[places], threshold=PROPOSAL_OVERLAP, limit=AFTER, pixel=PIXEL)
        return boxes[places[kept]]

    def _chosen(self, boxes: Tensor, features: Tensor, scale: float, min_regions: int, max_regions: int) -> Found:
        """The regions among the proposals, boxes (n, 4) and features (n, D) of one photo at *scale*."""
        probabilities = self.network.classify(features)
        confidence = highest_kept(probabilities[:, 1:], boxes / scale, at_least=min_regions)
        order = confidence.argsort(descending=True, stable=True)
        confident = int((confidence >= CONFIDENCE).sum())
        kept = order[: min(max(confident, min_regions), max_regions)]
        names = self._labels(features[kept], probabilities[kept])
        return Found(features[kept], boxes[kept], confidence[kept], names, truncated=confident > max_regions)

    def _labels(self, features: Tensor, probabilities: Tensor) -> tuple[str, ...]:
        objects = probabilities[:, 1:].argmax(dim=1).tolist()
        names = [self.objects[number] if self.objects else str(number + 1) for number in objects]
        if self.attribute_names:
            best, numbers = self.network.attributes(features, probabilities.argmax(dim=1))[:, 1:].max(dim=1)
            names = [
                f"{self.attribute_names[number]} {name}" if confidence >= ATTRIBUTE_CONFIDENCE else name
                for name, confidence, number in zip(names, best.tolist(), numbers.tolist(), strict=True)
            ]
        return tuple(names)


def highest_kept(probabilities: Tensor, boxes: Tensor, *, at_least: int) -> Tensor:
    """The highest probability of each box among the objects that it is kept for, after suppression by object.

    Args:
        probabilities: (N, C) of box and object.
        boxes: (N, 4) in pixels of the original, in which the authors' program compares them; the same for all objects.
        at_least: boxes that are wanted at least. Where so many are confident, objects of which no box is confident
            aren't looked at: they change no confident box.

    Returns:
        (N,); 0 where a box is kept for none. Values below `CONFIDENCE` may be too low where they aren't wanted.
    """
    doubles = overlaps(boxes, boxes, pixel=PIXEL) >= CLASS_OVERLAP
    for objects in (probabilities.amax(dim=0) >= CONFIDENCE, torch.ones_like(probabilities[0], dtype=torch.bool)):
        of_objects = probabilities[:, objects]
        kept = suppress_by_class(of_objects, doubles)
        highest = torch.cat([of_objects * kept, torch.zeros_like(probabilities[:, :1])], dim=1).amax(dim=1)
        if int((highest >= CONFIDENCE).sum()) >= at_least:
            break
    return highest


def _counts(network: nn.Module) -> dict[str, Tensor]:
    """What BatchNorm2d counts in training, which some of the files don't have."""
    return {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}


def load(name: str, options: DetectorOptions) -> Detector:
    """Load the detector with the weights of a file.

    Raises:
        DataError: no file is given, or it isn't of this detector.
    """
    if options.weights is None:
        raise DataError(
            f"{name} needs the file of its weights, --weights FILE: bua-caffe-frcn-r101….pth of {SOURCE}, "
            "faster_rcnn_from_caffe_attr….pkl of py-bottom-up-attention, or pytorch_model.bin of "
            "unc-nlp/frcnn-vg-finetuned"
        )
    state = read_weights(name, options.weights, base_anchors())
    rows = [state.get(f"{HEAD}.{each}.weight", ()) for each in ("cls_score", "attr_score")]
    counts = [len(each) - 1 for each in rows if len(each)]
    if len(options.label_names) > len(counts):
        kinds = "objects and attributes" if len(counts) == 2 else "objects alone"
        raise DataError(f"--label-names: {len(options.label_names)} files; these weights know {kinds}")
    names = [read_names(path, count) for path, count in zip(options.label_names, counts, strict=False)]
    return VGBottomUp(state, *[*names, (), ()][:2])
