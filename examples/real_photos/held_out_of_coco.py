#!/usr/bin/env python
"""Print the ids of validation and test images whose captions are among those of a part of COCO 2014, one per line.

Captions of such images must not be in the text of pre-training (xgpt-caption-text --exclude-ids). Only photos that are
named as COCO names them are looked at, by a number of twelve digits: elsewhere, 1.jpg is another photo.

example:
    python examples/real_photos/held_out_of_coco.py --part train2014 captions.json --hold-out val=0.1
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from xgpt_fairseq.captions.options import add_caption_options, parse_columns, parse_files, read_caption_options
from xgpt_fairseq.captions.registry import open_source, read_sources
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.caption_text import PARTS, jar_path, read_coco

COCO_NAME = re.compile(r"(?:.*/)?(?:COCO_(?:train|val|test)2014_)?(\d{12})(?:\.\w+)?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="+", metavar="[SPLIT=]SOURCE", help="caption file, or several")
    parser.add_argument("--part", choices=PARTS, required=True)
    add_caption_options(parser, "the captions")
    args = parser.parse_args()
    files, named_splits = parse_files(args.source)
    sources = [open_source(Path(file), args.format, parse_columns(args.columns)) for file in files]
    alone = len(sources) == 1
    options = replace(read_caption_options(args, named_splits), is_only_source=alone, columns_of_others=not alone)
    held_out = {
        str(int(found[1]))
        for image in read_sources(sources, options)
        if image.split != "train" and (found := COCO_NAME.fullmatch(image.file_name or image.image_id))
    }
    if held_out:
        for image_id in sorted(held_out & set(read_coco(jar_path(), [args.part]).image_ids), key=int):
            print(image_id)


if __name__ == "__main__":
    run(main)
