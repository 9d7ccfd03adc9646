"""The command line of fairseq's programs, before fairseq reads it."""

from __future__ import annotations

import pytest
import torch

import xgpt_fairseq.plugin  # noqa: F401  (the names are fairseq's registries')
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.programs.command_line import check_command_line

ARCHITECTURES = ["xgpt_base", "xgpt_demo"]


def check(program: str | None, command: str) -> None:
    check_command_line(program, command.split(), architectures=ARCHITECTURES)


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("fairseq-train", "data --task xgpt_caption --arch xgpt_base --criterion xgpt --lr 1e-3 --optimizer adam"),
        ("fairseq-train", "data --task=xgpt_caption -a xgpt_demo --captions-per-image 5 --optimizer adam"),
        ("fairseq-train", "data --task translation --arch transformer"),
        ("fairseq-train", "--help"),
        ("fairseq-generate", "data --task xgpt_caption --path a.pt --beam 2"),
        ("fairseq-hydra-train", "--config-dir x"),
        ("fairseq-preprocess", "whatever"),
        (None, "--task nonsense"),
    ],
)
def test_what_is_right_passes(program, command):
    check(program, command)


@pytest.mark.parametrize(
    ("program", "command", "message"),
    [
        ("fairseq-train", "data --task xgpt_captoin --arch xgpt_base", "--task xgpt_captoin is unknown; did you mean "),
        ("fairseq-train", "data --task xgpt_caption --arch xgpt_bas", "xgpt_bas is unknown; did you mean xgpt_base"),
        ("fairseq-train", "data --task xgpt_caption --arch xgpt_base --criterion xgtp", "did you mean xgpt?"),
        ("fairseq-train", "data --task xgpt_caption --arch xgpt_base --optimizer adm", "--optimizer adm is unknown"),
        ("fairseq-train", "data --task xgpt_caption --arch xgpt_base --batch-size x", "invalid int value: 'x'"),
        ("fairseq-train", "data --task xgpt_caption --arch xgpt_base --lr", "--lr: expected one argument"),
        ("fairseq-train", "data --task xgpt_caption --arch transformer", "--arch transformer is no model of xgpt_capt"),
        ("fairseq-train", "data --task xgpt_caption --arch xgpt_base", "--optimizer is missing"),
        (
            "fairseq-train",
            "data --task xgpt_caption --arch xgpt_base --optimizer adam --lr-scheduler polynomial_decay",
            "--lr-scheduler polynomial_decay needs --total-num-update: ",
        ),
        ("fairseq-train", "data --task xgpt_caption --arch xgpt_base --save-async", "asynchronously (--save-async): "),
        (
            "fairseq-train",
            "data --task xgpt_caption --fp16 --bf16",
            "--fp16 and --bf16 are two kinds of half precision",
        ),
        ("fairseq-generate", "data --task xgpt_caption --fp16 --memory-efficient-bf16", "--fp16 and --bf16 are two"),
        ("fairseq-generate", "data --task xgpt_caption --replace-unk", "<unk> is never generated"),
        (
            "fairseq-train",
            "data --task xgpt_caption --optimizer-overrides lr=1e-5",
            "--optimizer-overrides needs a dict",
        ),
        ("fairseq-train", "data --task xgpt_caption", "--arch is missing: xgpt_base, xgpt_demo"),
        ("fairseq-train", "data --arch xgpt_base", "--task is missing: xgpt_caption, "),
        ("fairseq-generate", "data --path a.pt", "--task is missing: xgpt_caption, "),
        ("fairseq-validate", "data --task xgpt_caption", "--path CHECKPOINT is missing"),
        ("fairseq-validate", "data --task xgpt_caption --path none.pt", "checkpoint none.pt does not exist"),
        ("fairseq-validate", "data --task xgpt_caption --path a.pt:b.pt", "a.pt:b.pt: fairseq-validate validates one"),
        ("fairseq-interactive", "data --task xgpt_caption --path a.pt", "xgpt-caption"),
        ("fairseq-eval-lm", "data --task xgpt_text_pretrain --path a.pt", "fairseq-validate"),
    ],
)
def test_what_is_wrong_is_said(program, command, message):
    with pytest.raises(DataError) as caught:
        check(program, command)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_overrides_of_a_validation(tmp_path):
    """fairseq evaluates them before it makes a task."""
    torch.save({"model": {}}, tmp_path / "a.pt")
    command = f"data --task xgpt_caption --path {tmp_path / 'a.pt'} --model-overrides "
    check("fairseq-validate", command + "{'dropout':0}")
    with pytest.raises(DataError, match=r"--model-overrides needs a dictionary, such as .*, got dropout=0"):
        check("fairseq-validate", command + "dropout=0")


def test_the_nearest_name_comes_first():
    with pytest.raises(DataError, match="did you mean xgpt_pretrain"):
        check("fairseq-train", "data --task xgpt_pretran --arch xgpt_base")
    with pytest.raises(DataError, match="did you mean xgpt_caption, xgpt_pretrain, "):  # nothing is near: ours
        check("fairseq-train", "data --task qqq --arch xgpt_base")
