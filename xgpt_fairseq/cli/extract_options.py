"""Make a region store from photos, with features of grid cells or of any detector's boxes.

    xgpt-extract-regions photos --output data/regions
    xgpt-extract-regions photos --output data/regions --detector vg-bottom-up --weights bua-caffe-frcn-r101.pth
    xgpt-extract-regions photos --output data/regions --detections results.json

PHOTOS are files, folders with all that is in them, tars (WebDataset), and tables with photos inside (Parquet files and
what Hugging Face's `save_to_disk` writes). Features are those of EfficientNet-lite0, whose weights come with the extra
`photos`, or of another --backbone: a network of timm, torchvision or transformers, with its own preprocessing. Or a
--detector finds the regions, and makes their features. Killed or stopped, the same command resumes. Files that cannot
be read are listed in STORE.unreadable.txt. The store appears under its name when it is whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.cli.path_lists import add_list_option, with_listed_paths
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.regions.limits import DEFAULT_REGIONS, MAX_REGIONS
from xgpt_fairseq.vision.backbones.registry import DEFAULT, FAMILIES
from xgpt_fairseq.vision.choices import GRID, IMAGE_SIZE, MOST_CELLS, TOKENS, VG_BOTTOM_UP, VG_FEWEST
from xgpt_fairseq.vision.detectors import registry as detectors

if TYPE_CHECKING:
    from xgpt_fairseq.vision.photo_extractor import PhotoExtractor

# More loaders than this outrun the consumer.
MOST_WORKERS = 8


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "photos", metavar="PHOTOS", type=Path, nargs="*", help="photos, folders, tars and tables of photos"
    )
    add_list_option(parser)
    parser.add_argument("--output", metavar="STORE", type=Path, required=True, help="the region store to write")
    regions = parser.add_mutually_exclusive_group()
    regions.add_argument(
        "--grid",
        "--pool",
        metavar="N",
        type=int,
        help="regions are the whole photo and a grid of N x N cells, with averages of the backbone's map as features; "
        f"N from 1 to {MOST_CELLS} (default: {GRID})",
    )
    regions.add_argument(
        "--tokens",
        dest="grid",
        action="store_const",
        const=TOKENS,
        help="regions are the whole photo and each cell of the backbone's map: each token of a ViT",
    )
    regions.add_argument(
        "--detector",
        metavar="NAME",
        help=f"regions are what a detector finds, with its features: {', '.join(detectors.FAMILIES)}. "
        f"{VG_BOTTOM_UP} needs --weights",
    )
    regions.add_argument(
        "--detections",
        metavar="JSON",
        type=Path,
        help="regions are the whole photo and these boxes: COCO's detection results, [{image_id, bbox, category_id, "
        "score}, …] with bbox [x, y, width, height] in pixels of the upright photo",
    )
    parser.add_argument(
        "--max-regions",
        metavar="N",
        type=int,
        help="most regions per photo, the whole photo included: the most confident detections are kept (default: "
        f"{DEFAULT_REGIONS}, or as many as the grid has; {MAX_REGIONS} at most)",
    )
    parser.add_argument(
        "--min-regions",
        metavar="N",
        type=int,
        help=f"least regions per photo, for {VG_BOTTOM_UP}: with fewer confident boxes, the most confident are "
        f"kept (default: {VG_FEWEST})",
    )
    parser.add_argument(
        "--label-names",
        metavar="FILE",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        help="names of the detector's objects, one a line, and perhaps a second file with those of attributes "
        "(default: the detector's own, or numbers)",
    )
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=int,
        help="longer side of the photo for the backbone, a multiple of its stride, 32 for the default backbone "
        f"(default: {IMAGE_SIZE} for EfficientNet-lite, else what the backbone was trained on)",
    )
    parser.add_argument(
        "--square",
        action="store_true",
        help="squeeze photos to squares of --image-size, so that xgpt-caption does it, too: for training photos that "
        "were squeezed before, as those of some data sets are",
    )
    parser.add_argument(
        "--view",
        metavar="N",
        type=int,
        help="features of a changed copy of each photo, for a training's --views: cropped at random, and mirrored if N "
        "(1, 2 …) is odd",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help=f"the network whose last map makes the features: {', '.join(FAMILIES)} (default: {DEFAULT})",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=Path,
        help="weights of the backbone or the detector, for transformers a folder (default: the published ones, which "
        "are fetched where they are not here)",
    )
    parser.add_argument("--layer", metavar="LAYER", help="the backbone's layer: a number, or a module of torchvision's")
    parser.add_argument("--offline", action="store_true", help="fetch nothing: weights must be in a cache or --weights")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: cuda if there is one, else cpu)")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, help="photos per batch (default: 16 on a GPU, 1 on a CPU)"
    )
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="the backbone computes in bfloat16: faster on GPUs, with slightly other features",
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the backbone: worth it for many photos of few shapes"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help=f"processes that load photos; 0: only this one (default: one per core, {MOST_WORKERS} at most)",
    )
    parser.add_argument(
        "--num-shards",
        metavar="N",
        type=int,
        help="make one of N parts of the store, in STORE.parts; xgpt-regions merge joins them (default: as torchrun or "
        "an array of SLURM says, else 1)",
    )
    parser.add_argument(
        "--shard-id", metavar="I", type=int, help="which part, from 0 (default: as torchrun or SLURM says)"
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if any file could not be read")
    parser.add_argument("--overwrite", action="store_true", help="replace STORE, or an unfinished extraction to it")
    args = parser.parse_args(arguments)
    if args.grid is None:  # set afterwards, since argparse takes a given 6 for none where 6 is the default
        args.grid = GRID
    return with_listed_paths(parser, args)


def check_options(args: argparse.Namespace) -> None:
    """Refuse numbers out of range, and options that mean nothing here.

    Raises:
        DataError: names the option.
    """
    if args.max_regions is not None and not 1 <= args.max_regions <= MAX_REGIONS:
        raise DataError(f"--max-regions is {args.max_regions}; 1 to {MAX_REGIONS} are allowed")
    of_backbones = {"--backbone": args.backbone, "--layer": args.layer, "--image-size": args.image_size}
    of_backbones |= {"--view": args.view, "--square": args.square or None}
    of_backbones |= {"--bf16": args.bf16 or None, "--compile": args.compile or None}
    of_detectors = {"--min-regions": args.min_regions, "--label-names": args.label_names or None}
    without = of_detectors if args.detector is None else of_backbones
    for name, value in without.items():
        if value is not None:
            where = "needs --detector" if args.detector is None else f"means nothing with --detector {args.detector}"
            raise DataError(f"{name} {where}")
    if args.view is not None:
        check_at_least("--view", args.view, 1)
        if args.detections is not None:
            raise DataError("--view changes photos, whose boxes in --detections are those of the unchanged ones")


def build_extractor(args: argparse.Namespace) -> PhotoExtractor:
    """The extractor that the options describe.

    Raises:
        DataError: it can't be built, or --max-regions is below the regions of its grid.
    """
    import torch

    from xgpt_fairseq.devices import own_device, usable_device
    from xgpt_fairseq.vision.backbones.base import BackboneOptions
    from xgpt_fairseq.vision.detector_extractor import DetectorExtractor
    from xgpt_fairseq.vision.detectors.base import DetectorOptions
    from xgpt_fairseq.vision.extractor import RegionExtractor
    from xgpt_fairseq.vision.malloc import keep_freed_memory

    device = usable_device(args.device or own_device())
    threads = 1
    if device == "cpu":
        # One photo per core, instead of all cores for each photo: faster, and independent of the number of cores.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        keep_freed_memory()
    if args.detector is not None:
        return DetectorExtractor(
            args.detector,
            options=DetectorOptions(weights=args.weights, offline=args.offline, label_names=args.label_names),
            min_regions=args.min_regions,
            max_regions=args.max_regions,
            device=device,
            batch_size=args.batch_size,
            threads=threads,
        )
    extractor = RegionExtractor(
        backbone=args.backbone or DEFAULT,
        options=BackboneOptions(weights=args.weights, layer=args.layer, offline=args.offline),
        grid=args.grid if args.detections is None else None,
        image_size=args.image_size,
        square=args.square,
        device=device,
        batch_size=args.batch_size,
        threads=threads,
        bf16=args.bf16,
        compile=args.compile,
    )
    if args.max_regions is not None and args.max_regions < extractor.regions:
        what = "--tokens" if args.grid == TOKENS else f"--grid {args.grid}"
        raise DataError(
            f"{what} makes {extractor.regions} regions, the whole photo included; --max-regions is {args.max_regions}"
        )
    return extractor
