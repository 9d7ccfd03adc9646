"""The program `xgpt-parameters`: counts against the model's own parameters and against formulas."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary

from xgpt_fairseq.cli.parameters import PARTS, count_parameters, program
from xgpt_fairseq.models.xgpt import ARCHITECTURES, XGPTConfig, XGPTModel, apply_architecture
from xgpt_fairseq.objectives import build_objectives


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("vocabulary", "width"), [(104, 16), (10_000, 2048)])
def test_the_total_is_the_models(arch: str, vocabulary: int, width: int) -> None:
    dictionary = Dictionary()
    for number in range(vocabulary - len(dictionary)):
        dictionary.add_symbol(f"w{number}")
    assert len(dictionary) == vocabulary
    cfg = XGPTConfig(feature_dim=width)
    apply_architecture(arch, cfg)
    with torch.device("meta"):
        task = SimpleNamespace(target_dictionary=dictionary, objectives=build_objectives(["ic", "tifg"], dictionary))
        model = XGPTModel.build_model(cfg, task)
    counts = count_parameters(arch, vocabulary_size=vocabulary, feature_dim=width)
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert list(counts) == list(PARTS)


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def test_base_is_one_stack_of_layers() -> None:
    """The paper's model: encoder and decoder are one stack, self- and cross-attention one module, the output tied."""
    h, ffn, vocabulary, width, positions = 768, 3072, 10_000, 2048, 60
    norm = 2 * h
    layer = linear(h, 3 * h) + linear(h, h) + norm + linear(h, ffn) + linear(ffn, h) + norm
    expected = {
        "token embedding (tied output)": vocabulary * h,
        "position, segment, embedding norm": positions * h + 2 * h + norm,
        "region input": linear(width + 5, h) + norm,
        # Q, K, V; then gate and information from the query and the attended, each h wide
        "AoA refiner": linear(h, 3 * h) + 2 * linear(2 * h, h) + norm,
        "transformer layers": 12 * layer,
        "decoder's own layers": 0,
        # how words and regions match, and the words' projection
        "IDA alignment": 2 * h + linear(h, h),
        # the output's bias; what stands before the first region, and the regions' projection
        "heads (word bias, TIFG regions)": vocabulary + h + linear(h, h),
    }
    counts = count_parameters("xgpt_base", vocabulary_size=vocabulary, feature_dim=width)
    assert counts == expected
    # BERT-base's stack has 85 million parameters in 12 layers; unshared, there would be three attentions a layer
    assert counts["transformer layers"] == 85_054_464


def test_table(call_program: Callable[..., Any]) -> None:
    done = call_program(program, "--arch", "xgpt_tiny", "xgpt_demo", "--vocabulary-size", 500, "--feature-dim", 64)
    assert done.status == 0
    head, line, *rows = done.stdout.splitlines()
    assert head == "| part | xgpt_tiny | xgpt_demo |"
    assert line == "|---|---:|---:|"
    tables = [count_parameters(arch, vocabulary_size=500, feature_dim=64) for arch in ("xgpt_tiny", "xgpt_demo")]
    parts = [part for part in PARTS if part != "decoder's own layers"]
    expected = [f"| {part} | {tables[0][part]:,} | {tables[1][part]:,} |" for part in parts]
    expected += [f"| total | {sum(tables[0].values()):,} | {sum(tables[1].values()):,} |"]
    assert rows == expected
    apart = call_program(
        program, "--arch", "xgpt_tiny", "--arch", "xgpt_demo", "--vocabulary-size", 500, "--feature-dim", 64
    )
    assert apart.stdout == done.stdout


def test_structures(call_program: Callable[..., Any]) -> None:
    """Section 6: EncDecShare has as many parameters as Enc, and nearly half of EncDec's."""
    share, enc, enc_dec = (
        count_parameters("xgpt_tiny", vocabulary_size=10_000, feature_dim=2048, sharing=sharing)
        for sharing in ("enc-dec-share", "enc", "enc-dec")
    )
    assert share == enc
    attention = linear(768, 3 * 768) + linear(768, 768) + 2 * 768
    assert enc_dec == {**share, "decoder's own layers": share["transformer layers"] + 6 * attention}
    own = enc_dec["decoder's own layers"]
    done = call_program(program, "--arch", "xgpt_tiny", "--sharing", "enc-dec-share", "enc-dec")
    assert "| part | xgpt_tiny enc-dec-share | xgpt_tiny enc-dec |" in done.stdout
    assert f"| decoder's own layers | 0 | {own:,} |" in done.stdout
    apart = call_program(program, "--arch", "xgpt_tiny", "--sharing", "enc-dec-share", "--sharing", "enc-dec")
    assert apart.stdout == done.stdout


def test_without_options_all_architectures(call_program: Callable[..., Any]) -> None:
    done = call_program(program, "--vocabulary-size", 500, "--feature-dim", 64)
    assert done.stdout.startswith(f"| part | {' | '.join(ARCHITECTURES)} |\n")


@pytest.mark.parametrize(("option", "value", "least"), [("--vocabulary-size", 4, 5), ("--feature-dim", 0, 1)])
def test_refused(call_program: Callable[..., Any], option: str, value: int, least: int) -> None:
    done = call_program(program, option, value)
    assert done.status == 1
    assert done.error.startswith(f"{option} must be at least {least}")
    assert done.error.endswith(f"got {value}")
    assert done.stdout == ""


def test_unknown_architecture(call_program: Callable[..., Any]) -> None:
    done = call_program(program, "--arch", "xgpt_large")
    assert done.status == 2
    assert "xgpt_base" in done.stderr
