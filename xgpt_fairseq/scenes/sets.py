"""The sets of drawn scenes and their splits, with the options that say how many images each has."""

from __future__ import annotations

from typing import Final

WEB: Final = "web"
SCENES: Final = "scenes"

# (data set, split) → option that says how many, and its default
SPLITS: Final = {
    (WEB, "train"): ("web_train", 1500),
    (WEB, "val"): ("web_val", 100),
    (SCENES, "train"): ("train", 800),
    (SCENES, "val"): ("val", 100),
    (SCENES, "test"): ("test", 100),
    (SCENES, "unseen"): ("unseen", 100),
}
