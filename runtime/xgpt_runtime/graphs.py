"""The graphs of a captioner, run by onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime import OrtValue

from xgpt_runtime.errors import DataError

Array = npt.NDArray[Any]

PHOTO: Final = "photo.onnx"
REGIONS: Final = "regions.onnx"
STEP: Final = "step.onnx"
LOOK: Final = "look.onnx"


def open_graph(file: Path) -> onnxruntime.InferenceSession:
    """Open a graph, on all cores that this process may use.

    Raises:
        DataError: the file or the weights beside it are missing or damaged.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _cores()
    # Three graphs take turns: the threads of one would keep the cores busy while another computes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of any class of onnxruntime
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{file} can't be opened; export the captioner again: {reason}") from None


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


class Images:
    """Images with their keys and values, and those of their captions so far: the `Decoder` of a search.

    Args:
        regions: the graph of regions.
        step: the graph of steps.
        features: of each image (n, D) float16.
        boxes: of each image (n, 4).
        sizes: the model's layers, heads and head width.

    Attributes:
        memory: keys, then values, of each layer (I, heads, N, d), of all images; they stay also when images are
            forgotten.
    """

    def __init__(
        self,
        regions: onnxruntime.InferenceSession,
        step: onnxruntime.InferenceSession,
        features: Sequence[Array],
        boxes: Sequence[Array],
        sizes: Mapping[str, int],
    ) -> None:
        self._step = step
        self._layers = sizes["layers"]
        self._shape = (sizes["attention_heads"], 0, sizes["hidden_size"] // sizes["attention_heads"])
        padded, corners, self._real = _padded(features, boxes)
        found = regions.run_with_ort_values(
            [output.name for output in regions.get_outputs()],
            {"features": _value(padded), "boxes": _value(corners), "real": _value(self._real)},
        )
        self.memory: tuple[OrtValue, ...] = tuple(found)
        self._all_real = self._real
        self._memory = found  # of the images that are left
        self._past: list[OrtValue] = []  # likewise (I, heads, t · B, d); before the first step there are none

    def step(self, tokens: Array, position: int, mask: Array, count: int) -> tuple[Array, Array, Array]:
        """See `search.Decoder`."""
        if not self._past:
            self._past = [_value(np.empty((len(tokens), *self._shape), dtype=np.float32))] * (2 * self._layers)
        inputs = {
            "tokens": _value(np.ascontiguousarray(tokens)),
            "position": _value(np.array([position])),
            "count": _value(np.array([count])),
            "mask": _value(mask),
            "real": _value(self._real),
        }
        for kind, values in (("memory", self._memory), ("past", self._past)):
            for layer in range(self._layers):
                inputs[f"{kind}_key_{layer}"] = values[layer]
                inputs[f"{kind}_value_{layer}"] = values[self._layers + layer]
        kept = [f"{name}_{layer}" for name in ("key", "value") for layer in range(self._layers)]
        best, ids, end, *self._past = self._step.run_with_ort_values(["best", "ids", "end", *kept], inputs)
        return best.numpy(), ids.numpy(), end.numpy()

    def look(self, graph: onnxruntime.InferenceSession, captions: Sequence[Sequence[int]], eos: int) -> Array:
        """Where the model looks for each token of a caption of each image, by the graph of `LOOK`.

        Args:
            graph: the graph.
            captions: token ids, without the end of the sentence.
            eos: the end of the sentence.

        Returns:
            (layers, I, heads, T, N) float32; padding behind a caption's tokens and an image's regions.
        """
        longest = 1 + max(map(len, captions))
        tokens = np.full((len(captions), longest), eos)
        for row, caption in enumerate(captions):
            tokens[row, 1 : 1 + len(caption)] = caption
        causal = np.tril(np.ones((longest, longest), dtype=bool))
        inputs = {
            "tokens": _value(tokens),
            "mask": _value(np.repeat(causal[None, None], len(captions), axis=0)),
            "real": _value(self._all_real),
        }
        for layer in range(self._layers):
            inputs[f"memory_key_{layer}"] = self.memory[layer]
            inputs[f"memory_value_{layer}"] = self.memory[self._layers + layer]
        wanted = {each.name for each in graph.get_inputs()}  # the last layer's values are in no weight
        [weights] = graph.run_with_ort_values(["weights"], {n: v for n, v in inputs.items() if n in wanted})
        found: Array = weights.numpy()
        return found

    def keep(self, images: Array) -> None:
        """See `search.Decoder`."""
        self._real = self._real[images]
        self._memory = [_value(each.numpy()[images]) for each in self._memory]
        self._past = [_value(each.numpy()[images]) for each in self._past]


def _value(array: Array) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(array)


def _padded(features: Sequence[Array], boxes: Sequence[Array]) -> tuple[Array, Array, Array]:
    """(I, N, D) float16, (I, N, 4) float32 and (I, N) bool: True at real regions."""
    counts = np.array([len(each) for each in features])
    longest = int(counts.max())
    padded = np.zeros((len(features), longest, features[0].shape[1]), dtype=np.float16)
    corners = np.zeros((len(features), longest, 4), dtype=np.float32)
    for image, count in enumerate(counts.tolist()):
        padded[image, :count] = features[image]
        corners[image, :count] = boxes[image]
    return padded, corners, np.arange(longest)[None, :] < counts[:, None]
