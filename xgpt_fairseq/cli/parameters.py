"""Count the parameters of the architectures, by part.

example:
    xgpt-parameters --vocabulary-size 10000 --feature-dim 2048
    xgpt-parameters --arch xgpt_tiny xgpt_base --sharing enc-dec-share enc enc-dec
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import check_at_least
from xgpt_fairseq.models.architectures import ARCHITECTURES, STRUCTURES

_SHARING = "enc-dec-share"  # the paper's structure

# part of the table → beginnings of parameter names
PARTS = {
    "token embedding (tied output)": ("encoder.text.tokens.",),
    "position, segment, embedding norm": ("encoder.text.positions.", "encoder.text.norm.", "encoder.segments."),
    "region input": ("encoder.regions.embedding.",),
    "AoA refiner": ("encoder.regions.refiner.",),
    "transformer layers": ("encoder.layers.",),
    "decoder's own layers": ("decoder.layers.",),
    "IDA alignment": ("encoder.alignment.",),
    "heads (word bias, TIFG regions)": ("decoder.output.", "heads."),
}


def count_parameters(arch: str, *, vocabulary_size: int, feature_dim: int, sharing: str = _SHARING) -> dict[str, int]:
    """Parameters of *arch* by part, for image-text pre-training; every parameter belongs to exactly one part."""
    import torch
    from fairseq.data import Dictionary

    from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel, apply_architecture
    from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, build_objectives

    dictionary = Dictionary()
    for number in range(vocabulary_size - len(dictionary)):
        dictionary.add_symbol(f"word{number}")
    cfg = XGPTConfig(feature_dim=feature_dim, sharing=sharing)
    apply_architecture(arch, cfg)
    images = [name for name, objective in PRETRAINING_OBJECTIVES.items() if objective.uses_regions]
    task = SimpleNamespace(target_dictionary=dictionary, objectives=build_objectives(images, dictionary))
    with torch.device("meta"):  # only shapes: nothing is allocated
        model = XGPTModel.build_model(cfg, task)
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        (part,) = (part for part, beginnings in PARTS.items() if name.startswith(beginnings))
        counts[part] += parameter.numel()
    return counts


def program() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", action="extend", choices=ARCHITECTURES, help="architectures [all]")
    parser.add_argument("--sharing", nargs="+", action="extend", choices=STRUCTURES, help=f"structures [{_SHARING}]")
    parser.add_argument("--vocabulary-size", type=int, default=10000, help="symbols of the dictionary")
    parser.add_argument("--feature-dim", type=int, default=2048, help="width of the region features")
    args = parser.parse_args()
    check_at_least("--vocabulary-size", args.vocabulary_size, 5, "fairseq's special symbols")
    check_at_least("--feature-dim", args.feature_dim, 1)
    # no defaults of argparse's: what is given would be added to them
    structures = args.sharing or [_SHARING]
    models = [(arch, sharing) for arch in args.arch or ARCHITECTURES for sharing in structures]
    sizes = {"vocabulary_size": args.vocabulary_size, "feature_dim": args.feature_dim}
    tables = [count_parameters(arch, sharing=sharing, **sizes) for arch, sharing in models]
    names = [arch if structures == [_SHARING] else f"{arch} {sharing}" for arch, sharing in models]
    print(f"| part | {' | '.join(names)} |")
    print(f"|---|{'---:|' * len(tables)}")
    for part in PARTS:
        if not any(table[part] for table in tables):
            continue
        print(f"| {part} | {' | '.join(f'{table[part]:,}' for table in tables)} |")
    print(f"| total | {' | '.join(f'{sum(table.values()):,}' for table in tables)} |")


def main() -> None:
    run(program)


if __name__ == "__main__":
    main()
