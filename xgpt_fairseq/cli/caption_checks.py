"""What `xgpt-caption` refuses before a model is read: options that make no sense together, or would do nothing."""

from __future__ import annotations

import argparse
import os

from xgpt_fairseq.cli.parser import refuse_options
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import check_writable
from xgpt_fairseq.serving.limits import BEAMS


def check_effects(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that would do nothing.

    Raises:
        DataError: there are any.
    """
    if args.about:
        used_or_refused_later = {"about", "path", "data", "regions", "offline", "photos", "list", "serve"}
        refuse_options(parser, args, set(vars(args)) - used_or_refused_later, "with --about")
    elif args.serve:
        refuse_options(parser, args, ("batch_size", "num_shards", "shard_id"), "with --serve")
    else:
        refuse_options(parser, args, ("port",), "without --serve")


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse files that cannot be written, or are the photos themselves, and outputs that do not go together.

    Raises:
        DataError: there are any.
    """
    if args.jsonl is not None and (args.json is not None or args.html is not None):
        raise DataError(
            "--jsonl is for collections that take hours; --json and --html, for those that fit on a page: one of them"
        )
    if args.attention and args.html is None:
        raise DataError("--attention is drawn on the page of --html FILE")
    for output in (args.json, args.html):
        if output is not None:
            check_writable(output, overwrite=args.overwrite)
    if args.jsonl is not None and not args.jsonl.parent.is_dir():  # else the list of photos would make it
        raise DataError(f"{args.jsonl}: no folder {args.jsonl.parent}")
    # Not `Path.resolve`, which takes no links that lead in a circle; such a photo is one that can't be read.
    outputs = [os.path.realpath(output) for output in (args.json, args.html, args.jsonl) if output is not None]
    photos = set(map(os.path.realpath, args.photos)) if outputs else set()
    for output in outputs:
        if output in photos:
            raise DataError(f"{output} is one of the photos; name another file for the captions")
    if len(set(outputs)) < len(outputs):
        raise DataError(f"{outputs[0]} is named twice: --json and --html need a file each")


def check_serve(args: argparse.Namespace) -> None:
    """Refuse what makes no sense with --serve.

    Raises:
        DataError: there is any of it.
    """
    if args.photos:
        raise DataError(
            "--serve captions the photos that are dropped on its page; without --serve, those of the command are "
            f"captioned: {', '.join(map(str, args.photos))}"
        )
    for name in ("json", "jsonl", "html", "attention", "detections", "strict", "overwrite"):
        if getattr(args, name):
            raise DataError(f"--{name} is for the photos of a command, not for --serve")
    if args.beam not in BEAMS:
        raise DataError(f"--beam must be {BEAMS[0]} to {BEAMS[-1]} with --serve, got {args.beam}")
    if not 0 <= args.port <= 65535:
        raise DataError(f"--port must be 0 to 65535, got {args.port}")


def check_store(args: argparse.Namespace) -> None:
    """Refuse what makes no sense with a region store.

    Raises:
        DataError: there is any of it.
    """
    if len(args.photos) > 1:
        raise DataError(f"one region store at a time: {', '.join(map(str, args.photos))}")
    for name in ("detections", "backbone_weights"):
        if getattr(args, name):
            raise DataError(f"--{name.replace('_', '-')} is for photos; a region store has its regions")
