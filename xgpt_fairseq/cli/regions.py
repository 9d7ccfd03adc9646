"""xgpt-regions: inspect, verify and merge region stores.

xgpt-regions info data/regions
xgpt-regions verify data/regions
xgpt-regions show data/regions COCO_val2014_000000000042
xgpt-regions merge data/regions.parts --output data/regions
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BAR_WIDTH = 40


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="xgpt-regions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="counts, sizes, regions per image, how the store was made")
    check = commands.add_parser("verify", help="read every byte and check it; status 1 names the first bad file")
    show = commands.add_parser("show", help="the regions of one image")
    for command in (info, check, show):
        command.add_argument("store", metavar="STORE", type=Path, help="a region store")
    join = commands.add_parser("merge", help="make one store of the parts of xgpt-extract-regions --num-shards")
    join.add_argument("parts", metavar="PARTS", type=Path, nargs="+", help="the parts, or the folder STORE.parts")
    join.add_argument("--output", metavar="STORE", type=Path, required=True, help="the region store to write")
    ways = join.add_mutually_exclusive_group()
    for way, meaning in (
        ("link", "features are the parts' files, hard-linked; the parts can be removed (default)"),
        ("copy", "features are copied: byte for byte the store of one run"),
        ("refer", "the store names the parts' files, which must stay where they are"),
    ):
        ways.add_argument(f"--{way}", dest="way", action="store_const", const=way, default="link", help=meaning)
    join.add_argument("--overwrite", action="store_true", help="replace STORE")
    show.add_argument("image_id", metavar="IMAGE_ID", help="such as 42 or COCO_val2014_000000000042")
    return parser.parse_args(arguments)


def main() -> None:
    run(_main)


def _main() -> None:
    args = parse_arguments()
    try:
        if args.command == "info":
            lines = info(args.store)
        elif args.command == "verify":
            lines = [verified(args.store)]
        elif args.command == "merge":
            lines = [merged(args.parts, args.output, args.way, args.overwrite)]
        else:
            lines = image_table(args.store, args.image_id)
    except OSError as error:
        raise DataError(str(error)) from None
    print("\n".join(lines))


def info(path: Path) -> list[str]:
    from xgpt_fairseq.regions.store import RegionStore

    store = RegionStore(path)
    counts = store.region_counts()
    manifest = store.manifest
    optional = [name for name in ("scores", "labels", "sizes") if name in manifest.arrays]
    return [
        f"store          {store.path}",
        f"images         {len(store)}",
        f"regions        {store.num_regions}",
        f"per image      min {counts.min()}, mean {counts.mean():.1f}, max {counts.max()}",
        f"cut            {manifest.truncated_images} images had more regions than were kept",
        f"feature width  {store.feature_dim}",
        f"stored with    {', '.join(optional) or 'no scores, labels or sizes'}",
        f"shards         {len(manifest.shards)}",
        f"size on disk   {store.num_bytes / 1e6:.1f} MB",
        "regions per image",
        *_histogram(counts),
        "source",
        *(
            f"  {name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
            for name, value in store.source.items()
        ),
    ]


def _histogram(counts: npt.NDArray[np.int64]) -> list[str]:
    """One line per bin of ten region counts, for bins that occur: 1 to 10, 11 to 20, …"""
    import numpy as np

    bins = np.bincount((counts - 1) // 10)
    return [
        f"  {10 * index + 1:>3}-{10 * index + 10:<3} {number:>9} {'#' * max(round(BAR_WIDTH * number / bins.max()), 1)}"
        for index, number in enumerate(bins.tolist())
        if number
    ]


def verified(path: Path) -> str:
    from tqdm import tqdm

    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.regions.verify import verify

    total = RegionStore(path).num_bytes
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
        store = verify(path, progress=bar.update)
    return f"OK: {len(store)} images, {store.num_regions} regions, {len(store.manifest.shards)} shard(s), {total} bytes"


def merged(parts: Sequence[Path], output: Path, way: str, overwrite: bool) -> str:
    from tqdm import tqdm

    from xgpt_fairseq.io.atomic import writing
    from xgpt_fairseq.io.resumable import partial_path
    from xgpt_fairseq.regions.merge import merge

    with tqdm(unit=" images", disable=None) as bar, writing(output, partial_path(output.resolve())):
        store = merge(parts, output, way=way, overwrite=overwrite, progress=bar.update)
    return f"wrote {output}: {len(store)} images, {store.num_regions} regions, {len(store.manifest.shards)} shard(s)"


def image_table(path: Path, image_id: str) -> list[str]:
    import numpy as np

    from xgpt_fairseq.regions.store import RegionStore

    store = RegionStore(path)
    row = store.image_index(image_id)
    size = store.size(row)
    scores = store.scores(row)
    labels = store.labels(row)
    norms = np.linalg.norm(store.features(row).astype(np.float32), axis=1)
    in_pixels = "" if size is None else f", {size[0]} x {size[1]} pixels"
    lines = [
        f"image {store.image_id(row)}, row {row}: {store.region_count(row)} regions{in_pixels}",
        "region      x1      y1      x2      y2     score      norm  label",
    ]
    for region, (x1, y1, x2, y2) in enumerate(store.boxes(row).tolist()):
        score = "-" if scores is None else f"{scores[region]:.4f}"
        label = "-" if labels is None else labels[region]
        lines.append(f"{region:>6}  {x1:.4f}  {y1:.4f}  {x2:.4f}  {y2:.4f}  {score:>8}  {norms[region]:>8.3f}  {label}")
    return lines


if __name__ == "__main__":
    main()
