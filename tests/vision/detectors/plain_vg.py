"""The Visual Genome detector read once more, from Caffe's model and the authors' programs, in plain float64 loops.

Sources: test.prototxt (layers), generate_anchors.py, proposal_layer.py, bbox_transform.py (proposals), generate_tsv.py
(which of them are regions), of github.com/peteanderson80/bottom-up-attention.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.vision.detectors.test_boxes import greedy, overlap, pooled_plainly

Array = Any
State = dict[str, Array]
RPN, HEAD = "proposal_generator.rpn_head", "roi_heads.box_predictor"


def conv(x: Array, weight: Array, *, stride: int = 1, pad: int = 0, dilation: int = 1) -> Array:
    """x (C, H, W), weight (D, C, n, n) → (D, H', W')"""
    size = weight.shape[2]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    reach = dilation * (size - 1)
    height, width = ((side - reach - 1) // stride + 1 for side in x.shape[1:])
    found = np.zeros((len(weight), height, width))
    for row in range(height):
        for column in range(width):
            y, x0 = row * stride, column * stride
            patch = x[:, y : y + reach + 1 : dilation, x0 : x0 + reach + 1 : dilation]
            found[:, row, column] = np.tensordot(weight, patch, axes=3)
    return found


def conv_norm(state: State, name: str, x: Array, **options: int) -> Array:
    x = conv(x, state[f"{name}.weight"], **options)
    mean, variance = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
    scale = state[f"{name}.norm.weight"] / np.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.norm.bias"][:, None, None]


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def block(state: State, name: str, x: Array, stride: int, dilation: int) -> Array:
    y = relu(conv_norm(state, f"{name}.conv1", x, stride=stride))
    y = relu(conv_norm(state, f"{name}.conv2", y, pad=dilation, dilation=dilation))
    y = conv_norm(state, f"{name}.conv3", y)
    if f"{name}.shortcut.weight" in state:
        x = conv_norm(state, f"{name}.shortcut", x, stride=stride)
    return relu(x + y)


def stage(state: State, name: str, x: Array, stride: int, dilation: int = 1) -> Array:
    number = 0
    while f"{name}.{number}.conv1.weight" in state:
        x = block(state, f"{name}.{number}", x, stride if number == 0 else 1, dilation)
        number += 1
    return x


def pool(x: Array) -> Array:
    """Maxima of 3 × 3, every second, no padding; the last window may reach beyond the end."""
    height, width = (math.ceil((side - 3) / 2) + 1 for side in x.shape[1:])
    return np.array(
        [
            [[plane[2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max() for c in range(width)] for r in range(height)]
            for plane in x
        ]
    )


def feature_map(state: State, pixels: Array) -> Array:
    """pixels (H, W, 3) red, green, blue"""
    x = pixels[:, :, ::-1].astype(np.float64) - [102.9801, 115.9465, 122.7717]
    x = relu(conv_norm(state, "backbone.stem.conv1", x.transpose(2, 0, 1), stride=2, pad=3))
    x = pool(x)
    x = stage(state, "backbone.res2", x, 1)
    x = stage(state, "backbone.res3", x, 2)
    return stage(state, "backbone.res4", x, 2)


# x1 y1 x2 y2 of the first cell, by ratio of height to width 0.5, 1 and 2, and in each by scale 4, 8, 16 and 32.
ANCHORS = [
    [-38, -16, 53, 31],
    [-84, -40, 99, 55],
    [-176, -88, 191, 103],
    [-360, -184, 375, 199],
    [-24, -24, 39, 39],
    [-56, -56, 71, 71],
    [-120, -120, 135, 135],
    [-248, -248, 263, 263],
    [-14, -36, 29, 51],
    [-36, -80, 51, 95],
    [-80, -168, 95, 183],
    [-168, -344, 183, 359],
]


def proposals(state: State, x: Array, height: int, width: int, scale: float) -> list[list[float]]:
    y = relu(conv(x, state[f"{RPN}.conv.weight"], pad=1) + state[f"{RPN}.conv.bias"][:, None, None])
    logits, deltas = (
        conv(y, state[f"{RPN}.{name}.weight"]) + state[f"{RPN}.{name}.bias"][:, None, None]
        for name in ("objectness_logits", "anchor_deltas")
    )
    found = []
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            for number, anchor in enumerate(ANCHORS):
                nothing, something = np.exp(logits[number, row, column]), np.exp(logits[12 + number, row, column])
                x1, y1, x2, y2 = np.add(anchor, [16 * column, 16 * row] * 2)
                dx, dy, dw, dh = deltas[4 * number : 4 * number + 4, row, column]
                w, h = x2 - x1 + 1, y2 - y1 + 1
                centre_x, centre_y = x1 + 0.5 * w + dx * w, y1 + 0.5 * h + dy * h
                w, h = w * math.exp(dw), h * math.exp(dh)
                box = [
                    min(max(centre_x - 0.5 * w, 0), width - 1),
                    min(max(centre_y - 0.5 * h, 0), height - 1),
                    min(max(centre_x + 0.5 * w, 0), width - 1),
                    min(max(centre_y + 0.5 * h, 0), height - 1),
                ]
                if box[2] - box[0] + 1 >= 16 * scale and box[3] - box[1] + 1 >= 16 * scale:
                    found.append((something / (nothing + something), box))
    found.sort(key=lambda each: -each[0])
    found = found[:6000]
    kept = greedy([box for _, box in found], [score for score, _ in found], 0.7, 1.0)
    return [found[place][1] for place in kept[:300]]


def softmax(x: Array) -> Array:
    return np.exp(x) / np.exp(x).sum()


def linear(state: State, name: str, x: Array) -> Array:
    return state[f"{HEAD}.{name}.weight"] @ x + state[f"{HEAD}.{name}.bias"]


def detect(state: State, pixels: Array, scale: float, fewest: int, most: int) -> dict[str, Any]:
    """Features, boxes, confidences, objects and attributes of the regions of a photo.

    Args:
        state: in Caffe's order.
        pixels: (H, W, 3).
        scale: pixels here per pixel of the original.
    """
    x = feature_map(state, pixels)
    boxes = proposals(state, x, *pixels.shape[:2], scale)
    features, probabilities = [], []
    for box in boxes:
        pooled = pooled_plainly(x, box, 1 / 16, 14).astype(np.float64)
        features.append(stage(state, "roi_heads.res5", pooled, 1, 2).mean(axis=(1, 2)))
        probabilities.append(softmax(linear(state, "cls_score", features[-1])))
    highest = [0.0] * len(boxes)
    originals = [[corner / scale for corner in box] for box in boxes]  # cls_boxes of generate_tsv.py
    for number in range(1, len(probabilities[0])):
        scores = [each[number] for each in probabilities]
        for place in greedy(originals, scores, 0.3, 1.0):
            highest[place] = max(highest[place], scores[place])
    order = sorted(range(len(boxes)), key=lambda place: -highest[place])
    kept = [place for place in order if highest[place] >= 0.2]
    if len(kept) < fewest:
        kept = order[:fewest]
    kept = kept[:most]
    attributes = []
    for place in kept:
        embedded = state[f"{HEAD}.cls_embedding.weight"][probabilities[place].argmax()]
        hidden = relu(linear(state, "fc_attr", np.concatenate([features[place], embedded])))
        attributes.append(softmax(linear(state, "attr_score", hidden)))
    return {
        "features": np.array([features[place] for place in kept]),
        "boxes": np.array([boxes[place] for place in kept]),
        "scores": np.array([highest[place] for place in kept]),
        "objects": [int(probabilities[place][1:].argmax()) for place in kept],
        "attributes": np.array(attributes),
        "proposals": boxes,
        "overlaps": [[overlap(one, other, 1.0) for other in boxes] for one in boxes],
    }
