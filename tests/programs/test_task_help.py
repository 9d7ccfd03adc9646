"""`--help` of fairseq's programs."""

from __future__ import annotations

import pytest

from tests.end_to_end.programs import PLUGIN, run


def helped(program: str, *arguments: str) -> str:
    return run(program, "--user-dir", PLUGIN, *arguments, "--help").stdout


def test_training_lists_the_options_of_task_architecture_criterion_and_optimizer():
    said = helped("fairseq-train", "--task", "xgpt_pretrain", "--optimizer", "adam", "--lr-scheduler", "inverse_sqrt")
    groups = ["--task xgpt_pretrain:", "--arch xgpt_base:", "--criterion xgpt:", "--optimizer adam:"]
    assert all(f"\n{group}\n" in said for group in [*groups, "--lr-scheduler inverse_sqrt:"])
    options = ["--objectives", "--captions-per-image", "--hidden-size", "--label-smoothing", "--adam-betas"]
    assert all(f"\n  {option}" in said for option in [*options, "--warmup-updates", "--max-update"])


def test_generation_lists_the_options_of_the_task():
    said = helped("fairseq-generate", "--task", "xgpt_caption")
    assert "\n--task xgpt_caption:\n" in said and "\n  --regions" in said and "--arch" not in said


@pytest.mark.parametrize("arguments", [(), ("--task", "translation")])
def test_without_a_task_of_ours_fairseqs_help_follows(arguments):
    said = helped("fairseq-train", *arguments)
    assert said.startswith("The plugin's options are listed for a task: --task xgpt_caption --help\n\nusage: ")


def test_a_task_that_does_not_exist():
    done = run("fairseq-train", "--user-dir", PLUGIN, "--task", "xgpt_captoin", "--help", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: --task xgpt_captoin is unknown; did you mean xgpt_caption")
