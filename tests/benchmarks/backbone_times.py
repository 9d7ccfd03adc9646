"""What each network that sees photos costs: seconds and bytes a photo.

    python -m tests.benchmarks.backbone_times PHOTOS [--photos 24]

EfficientNet-lite has its own weights. The others have random weights of their published sizes, since time does not
depend on values, and nothing is fetched. Prints a table in Markdown. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import cores, seconds
from tests.vision.backbones.tiny import import_torchvision

import torch  # isort: skip

from xgpt_fairseq.vision.backbones.base import BackboneOptions  # isort: skip
from xgpt_fairseq.vision.backbones.broken_packages import hide_broken  # isort: skip
from xgpt_fairseq.vision.choices import TOKENS  # isort: skip
from xgpt_fairseq.vision.extractor import RegionExtractor  # isort: skip
from xgpt_fairseq.vision.malloc import keep_freed_memory  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="PHOTOS")
    parser.add_argument(
        "--photos", type=int, default=24, metavar="N", help="photos of the folder (default: %(default)s)"
    )
    args = parser.parse_args()
    photos = sorted(args.folder.iterdir())[: args.photos]
    torch.set_num_threads(1)
    keep_freed_memory()
    hide_broken("torchvision", "torchaudio")
    print("| network | pixels | regions | width | ms a photo | kB a photo |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as name:
        for shown, size, grid, make in networks(Path(name)):
            backbone, weights = make()
            extractor = RegionExtractor(
                backbone=backbone,
                options=BackboneOptions(weights=weights, offline=True),
                grid=grid,
                image_size=size,
                device="cpu",
                threads=cores(),
            )
            loaded = [extractor.load(photo) for photo in photos]
            extractor.extract(loaded[:2])
            time = 1000 * seconds(lambda: extractor.extract(loaded)) / len(loaded)  # noqa: B023  (called at once)
            regions = max(len(each.boxes) for each in extractor.extract(loaded[:4]))
            kilobytes = regions * (2 * extractor.feature_dim + 16) / 1000
            numbers = [shown, size, regions, extractor.feature_dim, f"{time:.0f}", f"{kilobytes:.0f}"]
            print("| " + " | ".join(map(str, numbers)) + " |", flush=True)


LITE_SIZES = {224: 4, 384: 7, 768: 6}  # pixels, and cells of the grid
Network = tuple[str, int, int | str, Callable[[], tuple[str, Path | None]]]


def networks(folder: Path) -> list[Network]:
    import transformers as hf

    def lite(number: int) -> Callable[[], tuple[str, Path | None]]:
        return lambda: (f"efficientnet-lite{number}", None)

    def of_transformers(config: Any, size: int) -> Callable[[], tuple[str, Path | None]]:
        return lambda: (f"transformers:{save(config, size, folder)}", None)

    def of_timm(name: str) -> Callable[[], tuple[str, Path | None]]:
        return lambda: (f"timm:{name}", save_timm(name, folder))

    base = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    dino = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 14, "image_size": 518}
    return [
        *((f"`efficientnet-lite{n}`", size, grid, lite(n)) for n in range(3) for size, grid in LITE_SIZES.items()),
        ("CLIP ViT-B/32", 224, TOKENS, of_transformers(hf.CLIPVisionConfig(**base, patch_size=32), 224)),
        ("CLIP ViT-L/14", 224, TOKENS, of_transformers(hf.CLIPVisionConfig(**large, patch_size=14), 224)),
        ("SigLIP B/16", 224, TOKENS, of_transformers(hf.SiglipVisionConfig(**base, patch_size=16), 224)),
        ("DINOv2 B/14", 224, TOKENS, of_transformers(hf.Dinov2Config(**dino), 518)),
        ("DINOv2 B/14", 434, TOKENS, of_transformers(hf.Dinov2Config(**dino), 518)),
        ("ConvNeXt-T", 384, 7, of_timm("convnext_tiny")),
        ("ResNet-50", 384, 7, of_timm("resnet50")),
    ]  # fmt: skip


def save(config: Any, size: int, folder: Path) -> Path:
    from transformers import AutoModel

    path = folder / config.model_type
    AutoModel.from_config(config).save_pretrained(path)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": size}, "resample": 3}
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


def save_timm(name: str, folder: Path) -> Path:
    import_torchvision()
    import timm

    torch.save(timm.create_model(name, num_classes=0).state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


if __name__ == "__main__":
    main()
