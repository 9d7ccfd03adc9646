"""The names and sizes of the architectures, and the names of the structures of section 6."""

from __future__ import annotations

from typing import Final

# Sizes by architecture. A size that is named on the command line or in a YAML file wins over its architecture's.
ARCHITECTURES: Final[dict[str, dict[str, int]]] = {
    # the paper's model (section 4.2 and 5.3)
    "xgpt_base": {"layers": 12, "hidden_size": 768, "ffn_size": 3072, "attention_heads": 8},
    # the paper's "Tiny" (section 6)
    "xgpt_tiny": {"layers": 6, "hidden_size": 768, "ffn_size": 3072, "attention_heads": 8},
    # small enough to learn on a CPU in minutes
    "xgpt_demo": {"layers": 4, "hidden_size": 256, "ffn_size": 1024, "attention_heads": 4},
}

STRUCTURES: Final = ("enc-dec-share", "enc-dec", "enc")
