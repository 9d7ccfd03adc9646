"""Captions of photos by the ONNX graphs of `xgpt-export --onnx`: numpy, onnxruntime and Pillow, and nothing else.

from xgpt_runtime import Captioner

captioner = Captioner("captioner")  # or (): the captioner in the package
captioner.caption(["photo.jpg", "another.jpg"])  # ["a man rides a horse.", …]
"""

from xgpt_runtime.attention import Heads, WordAttention
from xgpt_runtime.captioner import RELEASED, Candidate, Captioned, Captioner
from xgpt_runtime.errors import DataError
from xgpt_runtime.photos import PhotoError
from xgpt_runtime.search import SearchOptions

__version__ = "0.1.0"
__all__ = [
    "RELEASED",
    "Candidate",
    "Captioned",
    "Captioner",
    "DataError",
    "Heads",
    "PhotoError",
    "SearchOptions",
    "WordAttention",
]
