#!/usr/bin/env python
"""Repeat a table of the paper: its rows, several seeds each, through the stage scripts of examples/xgpt_base.

Stages that rows share are run once. As many runs go at once as there are GPUs (or, without any, cores). Started again,
it skips what is done and resumes what was interrupted. OUTPUT/TABLE.md and OUTPUT/TABLE.png are written anew.

examples:
    python examples/ablations/ablations.py table3 --scale demo
    python examples/ablations/ablations.py features --scale demo --features grid=data/a --features tokens=data/b
    python examples/ablations/ablations.py table2 --data data/coco --out-of-domain-data data/cc \\
        --start checkpoints/text/averaged.pt --rows ic,ic+imlm+ida+tifg --seeds 1,2,3
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from xgpt_fairseq.captions.references import read_references
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.experiments.program import (
    add_options,
    check_environment,
    check_variable,
    chosen,
    run_quickstart,
    run_table,
    split_at_dashes,
)
from xgpt_fairseq.experiments.rows import Row, Script, Stage, Table

METRICS = ("CIDEr", "BLEU@4", "METEOR", "SPICE")  # the columns of the paper's tables

EXAMPLES = Path(__file__).resolve().parent.parent
RECIPE = EXAMPLES / "xgpt_base"
OUT_OF_DOMAIN = Script(RECIPE, "2_out_of_domain.sh", "out_of_domain", reads=("OUT_OF_DOMAIN_DATA",))
IN_DOMAIN = Script(RECIPE, "3_in_domain.sh", "captions/in_domain", reads=("IN_DOMAIN_DATA",))
FINETUNE = Script(
    RECIPE, "4_finetune.sh", "captions/finetune", scored_by="5_caption.sh", scoring=("METRICS", "SEGMENT"),
    reads=("IN_DOMAIN_DATA",),
)  # fmt: skip


def _pretrained(
    objectives: str,
    paper: tuple[float, ...],
    *,
    in_domain: bool = False,
    name: str | None = None,
    arguments: tuple[str, ...] = (),
    against: tuple[str, ...] | None = None,
) -> Row:
    """A row that pre-trains with *objectives*, out of domain and perhaps in domain, and fine-tunes.

    It is compared with the row of IC alone; one that continues in domain, with the same objectives out of domain.
    """
    label = "-".join([objectives, *(a.removeprefix("--") for a in arguments[-1:])])
    stages = [Stage(f"out_of_domain-{label}", OUT_OF_DOMAIN, objectives, arguments)]
    if in_domain:
        stages.append(Stage(f"in_domain-{label}", IN_DOMAIN, objectives, arguments))
    stages.append(Stage("finetune", FINETUNE))
    if against is None:
        against = (objectives,) if in_domain else ("ic",) if objectives != "ic" else ()
    return Row(name or objectives + (" in domain" if in_domain else ""), tuple(stages), paper, against)


def _structure(name: str, size: Literal["tiny", "base"], sharing: str, paper: tuple[float, ...], *against: str) -> Row:
    """A row that trains image captioning alone, from scratch."""
    stage = Stage(f"captions-{size}-{sharing}", FINETUNE, None, ("--sharing", sharing), size)
    return Row(name, (stage,), paper, against)


def _captions_per_image(count: int, *against: str) -> Row:
    """A row that trains image captioning alone, from scratch, with up to *count* captions of an image side by side."""
    stage = Stage(f"captions-{count}", FINETUNE, None, ("--captions-per-image", str(count)))
    return Row(f"{count} caption" + "s" * (count > 1), (stage,), (), against)


_ALL = "ic+imlm+ida+tifg"

# Demo scale: the same recipe, shorter; as many iterations for all rows of a table.
_DEMO_PRETRAINED: dict[Script, dict[str, str]] = {
    OUT_OF_DOMAIN: {"ITERATIONS": "750", "VALIDATIONS": "5"},
    IN_DOMAIN: {"ITERATIONS": "200", "VALIDATIONS": "5"},
    FINETUNE: {"ITERATIONS": "300", "VALIDATIONS": "5"},
}
_DEMO_STRUCTURES: dict[Script, dict[str, str]] = {FINETUNE: {"ITERATIONS": "600", "VALIDATIONS": "10"}}
# Shorter still: for each seed, table 2 has nine pre-trainings and nine fine-tunings.
_DEMO_OBJECTIVES: dict[Script, dict[str, str]] = {
    OUT_OF_DOMAIN: {"ITERATIONS": "300", "VALIDATIONS": "5"},
    IN_DOMAIN: {"ITERATIONS": "100", "VALIDATIONS": "5"},
    FINETUNE: {"ITERATIONS": "200", "VALIDATIONS": "5"},
}

TABLES: dict[str, Table] = {
    "table2": Table(
        "pre-training objectives, out of domain and then in domain",
        (
            _pretrained("ic", (116.4, 35.9, 28.2, 21.1)),
            _pretrained("ic+imlm", (117.7, 36.2, 28.2, 21.2)),
            _pretrained("ic+ida", (118.1, 36.4, 28.3, 21.3)),
            _pretrained("ic+tifg", (117.3, 36.0, 28.2, 21.2)),
            _pretrained(_ALL, (118.3, 36.5, 28.4, 21.3)),
            _pretrained("ic+imlm", (119.1, 36.7, 28.5, 21.5), in_domain=True),
            _pretrained("ic+ida", (119.2, 36.6, 28.5, 21.6), in_domain=True),
            _pretrained("ic+tifg", (118.2, 36.4, 28.4, 21.3), in_domain=True),
            _pretrained(_ALL, (120.1, 37.2, 28.6, 21.8), in_domain=True),
        ),
        METRICS,
        _DEMO_OBJECTIVES,
    ),
    "table3": Table(
        "structures of the model, image captioning alone, from scratch",
        (
            _structure("Tiny Enc", "tiny", "enc", (112.1, 34.1, 27.9, 20.6)),
            _structure("Tiny EncDec", "tiny", "enc-dec", (110.8, 33.7, 27.6, 20.5), "Tiny Enc"),
            _structure(
                "Tiny EncDecShare", "tiny", "enc-dec-share", (112.7, 34.6, 27.9, 20.7), "Tiny Enc", "Tiny EncDec"
            ),
            _structure("Base EncDecShare", "base", "enc-dec-share", (112.9, 35.0, 27.9, 20.8), "Tiny EncDecShare"),
        ),
        METRICS,
        _DEMO_STRUCTURES,
    ),
    # As the text has it: multi loses 0.3 CIDEr. Single is what the other tables use: the ic+ida of Table 2.
    # The last row is not the paper's.
    "table6": Table(
        "what IDA puts for a masked fragment: one [MASK], or one for each token",
        (
            _pretrained("ic+ida", (118.1, 36.4, 28.3, 21.3), name="single [MASK]", against=("multi [MASK]",)),
            _pretrained("ic+ida", (117.8,), name="multi [MASK]", arguments=("--ida-placeholder", "multi"), against=()),
            _pretrained(
                "ic+ida",
                (),
                name="single [MASK] with regions",
                arguments=("--ida-keep-regions",),
                against=("single [MASK]",),
            ),
        ),
        METRICS,
        _DEMO_PRETRAINED,
    ),
    # Not in the paper: how many captions of an image share its encoding, and with it the batch.
    "captions_per_image": Table(
        "captions of an image in a batch of captions, image captioning alone, from scratch",
        (_captions_per_image(1), _captions_per_image(5, "1 caption")),
        METRICS,
        _DEMO_STRUCTURES,
    ),
}


# Not in the paper, and its rows are the user's.
FEATURES = "features"


def features_table(named: Sequence[tuple[str, Path]]) -> Table:
    """Captioning from scratch on each of several data directories, the first of which the others are compared with.

    Args:
        named: a name for each directory. They hold the same captions, with other regions of the same images.

    Raises:
        DataError: there are fewer than two, or two of one name.
    """
    names = [name for name, _ in named]
    if len(names) < 2 or len(set(names)) < len(names):
        given = f"--features {' --features '.join(names)}" if names else "none"
        raise DataError(f"{FEATURES} compares two or more data directories, --features NAME=DATA each: {given}")
    rows = []
    for name, data in named:
        stage = Stage(f"captions-{name}", FINETUNE, variables=(("IN_DOMAIN_DATA", str(data.absolute())),))
        rows.append(Row(name, (stage,), against=() if name == names[0] else (names[0],)))
    return Table("features of regions, image captioning alone, from scratch", tuple(rows), METRICS, _DEMO_STRUCTURES)


def check_same_images(named: Sequence[tuple[str, Path]]) -> None:
    """Check that the test images of all data directories are those of the first, with which they are compared.

    Raises:
        DataError: one lacks some, or has others: xgpt-prepare-captions --missing-images skip leaves out photos without
            regions.
    """
    images = {name: set(read_references(data / "test.references.json").captions) for name, data in named}
    (first, data), *others = named
    for name, other in others:
        for here, there, lacking in ((name, other, images[first] - images[name]),
                                     (first, data, images[name] - images[first])):  # fmt: skip
            if lacking:
                some = ", ".join(sorted(lacking)[:3]) + (" …" if len(lacking) > 3 else "")
                raise DataError(
                    f"--features {first} and {name}: {there} ({here}) lacks {len(lacking)} of the other's test images "
                    f"({some}): rows are compared image by image, so prepare both with the same images"
                )


def named_data(text: str) -> tuple[str, Path]:
    """NAME=DATA, as argparse reads it."""
    name, _, data = text.partition("=")
    if not name or not data or not re.fullmatch(r"[\w.+-]+", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DATA, with a name of letters, digits, . + - and _")
    return name, Path(data)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What follows -- goes to every fairseq-train.",
    )
    parser.add_argument("table", choices=sorted([*TABLES, FEATURES]))
    add_options(parser)
    parser.add_argument("--data", type=Path, help="data directory in domain [paper: data/coco; demo: drawn scenes]")
    parser.add_argument(
        "--out-of-domain-data", type=Path, metavar="DATA", help="of tables 2 and 6 [paper: data/cc; demo: --data]"
    )
    parser.add_argument(
        "--features",
        type=named_data,
        action="append",
        default=[],
        metavar="NAME=DATA",
        help="of the table features: data directories of the same captions with other regions; the others are compared "
        "with the first",
    )
    parser.add_argument("--start", default="none", metavar="FILE", help="of tables 2 and 6: checkpoint of all [none]")
    parser.add_argument("--output", type=Path, help="folder for runs and tables [ablations/SCALE/TABLE]")
    own, training = split_at_dashes(sys.argv[1:])
    args = parser.parse_args(own)
    if args.features and args.table != FEATURES:
        raise DataError(f"--features belongs to the table {FEATURES}, not to {args.table}")
    table = features_table(args.features) if args.table == FEATURES else TABLES[args.table]
    pretrains = any(stage.script == OUT_OF_DOMAIN for row in table.rows for stage in row.stages)
    if not pretrains and args.start != "none":
        raise DataError(f"--start {args.start} has no effect on {args.table}, whose rows are trained from scratch")
    if not pretrains and args.out_of_domain_data is not None:
        raise DataError(f"--out-of-domain-data has no effect on {args.table}, whose rows are not pre-trained")
    if args.table == FEATURES and args.data is not None:
        raise DataError(f"--data has no effect on {FEATURES}: its data directories are those of --features")
    demo = args.scale == "demo"
    draws = demo and args.table != FEATURES and args.data is None
    data = args.data if demo else args.data or Path("data/coco")
    out_of_domain = args.out_of_domain_data or (data if demo else Path("data/cc"))
    options: dict[str, tuple[str, object]] = {"IN_DOMAIN_DATA": ("--data", data), "FROM": ("--start", args.start)}
    if args.table == FEATURES:
        options["IN_DOMAIN_DATA"] = ("--features", None)
    if pretrains:
        options["OUT_OF_DOMAIN_DATA"] = ("--out-of-domain-data", out_of_domain)
    check_environment(args, options, draws=draws)
    check_variable("OBJECTIVES", None, "rows have objectives of their own")
    rows = chosen(table.rows, args.rows, args.table)
    if args.features:
        data = out_of_domain = args.features[0][1]
        check_same_images([each for each in args.features if each[0] in {row.name for row in rows}])
    if draws:
        scenes = run_quickstart(EXAMPLES / "quickstart" / "run.sh", prepare_only=True)
        data, out_of_domain = scenes / "captions", out_of_domain or scenes / "web"
    run_table(
        table,
        rows,
        args,
        name=args.table,
        output=(args.output or Path("ablations", args.scale, args.table)).resolve(),
        start=args.start,
        # not resolved: a data directory may find its regions from the link that leads to it
        environment={"IN_DOMAIN_DATA": str(data.absolute()), "OUT_OF_DOMAIN_DATA": str(out_of_domain.absolute())},
        training=training,
    )


if __name__ == "__main__":
    run(main)
