"""Reading fairseq's training logs: lines of real runs in both formats, from files and from terminals."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.thorough import examples
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.training_log import TrainingLog, read_training_log

# xgpt_caption, --log-format simple, what stdout got; the configuration's line is cut
SIMPLE = """\
2026-11-24 10:17:01 | INFO | fairseq_cli.train | {'_name': None, 'common': {'_name': None, 'log_interval': 10, 'max_epoch': 10}}
2026-11-24 10:17:05 | INFO | fairseq.trainer | begin training epoch 1
2026-11-24 10:17:05 | INFO | fairseq_cli.train | Start iterating over samples
2026-11-24 10:17:58 | INFO | train_inner | epoch 001:     30 / 34 loss=6.256, nll_loss=5.623, accuracy=29.58, ic_nll_loss=5.623, ic_accuracy=29.58, ic_updates=10, ppl=49.2987, ic_ppl=49.2987, ic_pairs_per_s=43.1, wps=639.4, ups=0.72, wpb=889.5, bsz=60, num_updates=30, lr=0.00021, gnorm=1.174, clip=0, train_wall=14, wall=52
2026-11-24 10:18:04 | INFO | fairseq_cli.train | begin validation on "valid" subset
2026-11-24 10:18:11 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 6.562 | nll_loss 5.935 | accuracy 27.45 | ic_nll_loss 5.935 | ic_accuracy 27.45 | ppl 61.1878 | ic_ppl 61.1878 | cider 0.1243 | bleu4 0.0641 | wps 693.5 | wpb 2650 | bsz 168 | num_updates 34
2026-11-24 10:18:11 | INFO | fairseq.checkpoint_utils | Saved checkpoint ck/checkpoint1.pt (epoch 1 @ 34 updates, score 0.1243) (writing took 0.3 seconds)
2026-11-24 10:18:11 | INFO | fairseq_cli.train | end of epoch 1 (average epoch stats below)
2026-11-24 10:18:11 | INFO | train | epoch 001 | loss 6.436 | nll_loss 5.835 | accuracy 27.93 | ic_nll_loss 5.835 | ic_accuracy 27.93 | ic_updates 34 | ppl 57.0832 | ic_ppl 57.0832 | ic_pairs_per_s 32.8 | wps 508.8 | ups 0.56 | wpb 913.4 | bsz 58.8 | num_updates 34 | lr 0.000238 | gnorm 1.28 | clip 0 | train_wall 53 | wall 65
2026-11-24 10:18:20 | INFO | train_inner | epoch 002:      6 / 34 loss=6.377, nll_loss=5.765, accuracy=28.87, ic_nll_loss=5.765, ic_accuracy=28.87, ic_updates=10, ppl=54.3936, ic_ppl=54.3936, ic_pairs_per_s=27.2, wps=412.6, ups=0.45, wpb=911.8, bsz=60, num_updates=40, lr=0.00028, gnorm=1.16, clip=0, train_wall=14, wall=74
2026-11-24 10:18:30 | INFO | valid | epoch 002 | valid on 'valid' subset | loss 6.518 | nll_loss 5.89 | accuracy 27.91 | ic_nll_loss 5.89 | ic_accuracy 27.91 | ppl 59.2853 | ic_ppl 59.2853 | cider 0.1272 | bleu4 0.0539 | wps 690.2 | wpb 2650 | bsz 168 | num_updates 40 | best_cider 0.1272
"""  # noqa: E501

# xgpt_pretrain, --log-format json, what stdout got
JSON = """\
2026-11-24 10:14:54 | INFO | train_inner | {"epoch": 2, "update": 1.912, "loss": "11.607", "nll_loss": "6.62", "accuracy": "24.31", "ic_nll_loss": "6.62", "ic_accuracy": "24.31", "ic_updates": "2", "imlm_nll_loss": "7.022", "imlm_accuracy": "19.78", "imlm_updates": "2", "ida_nll_loss": "6.436", "ida_accuracy": "24.46", "ida_updates": "3", "tifg_mse": "115.996", "tifg_updates": "3", "ppl": "98.3332", "ic_ppl": "98.3332", "imlm_ppl": "129.929", "ida_ppl": "86.5613", "ic_pairs_per_s": "5", "imlm_pairs_per_s": "5", "ida_pairs_per_s": "7.5", "tifg_pairs_per_s": "7.5", "wps": "387.9", "ups": "0.41", "wpb": "935.3", "bsz": "60", "num_updates": "260", "lr": "0.000877058", "gnorm": "53.771", "clip": "30", "train_wall": "24", "wall": "201"}
2026-11-24 10:15:48 | INFO | valid | {"epoch": 2, "valid_loss": "9.082", "valid_nll_loss": "6.136", "valid_accuracy": "26.08", "valid_ic_nll_loss": "6.136", "valid_ic_accuracy": "26.08", "valid_imlm_nll_loss": "6.562", "valid_imlm_accuracy": "21.08", "valid_ida_nll_loss": "6.136", "valid_ida_accuracy": "26.21", "valid_tifg_mse": "67.633", "valid_ppl": "70.3489", "valid_ic_ppl": "70.3489", "valid_cider": "0.0748", "valid_bleu4": "0.0377", "valid_imlm_ppl": "94.4808", "valid_ida_ppl": "70.3424", "valid_wps": "576.1", "valid_wpb": "2295.9", "valid_bsz": "168", "valid_num_updates": "272", "valid_best_loss": "9.082"}
2026-11-24 10:15:48 | INFO | train | {"epoch": 2, "train_loss": "11.714", "train_nll_loss": "6.746", "train_accuracy": "23.52", "train_ic_nll_loss": "6.746", "train_ic_accuracy": "23.52", "train_ic_updates": "34", "train_imlm_nll_loss": "7.197", "train_imlm_accuracy": "17.86", "train_imlm_updates": "34", "train_ida_nll_loss": "6.564", "train_ida_accuracy": "24.44", "train_ida_updates": "34", "train_tifg_mse": "127.148", "train_tifg_updates": "34", "train_ppl": "107.309", "train_ic_ppl": "107.309", "train_imlm_ppl": "146.738", "train_ida_ppl": "94.5825", "train_ic_pairs_per_s": "7.7", "train_imlm_pairs_per_s": "7.8", "train_ida_pairs_per_s": "7.9", "train_tifg_pairs_per_s": "7.9", "train_wps": "425.1", "train_ups": "0.54", "train_wpb": "791.8", "train_bsz": "58.8", "train_num_updates": "272", "train_lr": "0.000857493", "train_gnorm": "44.641", "train_clip": "25.7", "train_train_wall": "222", "train_wall": "256"}
"""  # noqa: E501


def bare(log: str) -> str:
    """As --log-file has it: without date and logger."""
    return "".join(line.split(" | ", 3)[-1] + "\n" for line in log.splitlines())


def as_hydra(log: str) -> str:
    """As fairseq-hydra-train's job log has it."""
    lines = [line.split(" | ", 3) for line in log.splitlines()]
    return "".join(f"[{date},123][{name}][{level}] - {text}\n" for date, level, name, text in lines)


def read(tmp_path: Path, text: str) -> TrainingLog:
    path = tmp_path / "train.log"
    path.write_text(text, encoding="utf-8")
    return read_training_log(path)


@pytest.mark.parametrize("written", [str, bare, as_hydra])
def test_simple(tmp_path: Path, written) -> None:
    log = read(tmp_path, written(SIMPLE))
    assert log.steps["ic_nll_loss"] == {30: 5.623, 40: 5.765}
    assert log.steps["lr"] == {30: 0.00021, 40: 0.00028}
    assert log.steps["ic_pairs_per_s"] == {30: 43.1, 40: 27.2}
    assert log.epochs["loss"] == {34: 6.436}
    assert list(log.valid) == ["valid"]
    assert log.valid["valid"]["cider"] == {34: 0.1243, 40: 0.1272}
    assert log.valid["valid"]["bleu4"] == {34: 0.0641, 40: 0.0539}
    assert log.valid["valid"]["best_cider"] == {40: 0.1272}
    assert log.last_update == 40
    assert log.restarts == []


@pytest.mark.parametrize("written", [str, bare, as_hydra])
def test_json(tmp_path: Path, written) -> None:
    log = read(tmp_path, written(JSON))
    assert log.steps["imlm_ppl"] == {260: 129.929}
    assert log.steps["tifg_mse"] == {260: 115.996}
    assert log.epochs["ida_accuracy"] == {272: 24.44}
    assert log.epochs["train_wall"] == {272: 222}
    assert log.valid["valid"]["tifg_mse"] == {272: 67.633}
    assert log.valid["valid"]["cider"] == {272: 0.0748}
    assert log.last_update == 272


def test_several_validation_subsets(tmp_path: Path) -> None:
    simple = """\
epoch 001 | valid on 'valid' subset | loss 2 | num_updates 5
epoch 001 | valid on 'test' subset | loss 3 | num_updates 5
"""
    in_json = """\
{"epoch": 1, "valid_loss": "2", "valid_num_updates": "5"}
{"epoch": 1, "test_loss": 3, "test_num_updates": "5"}
"""
    for text in (simple, in_json):
        assert read(tmp_path, text).valid == {"valid": {"loss": {5: 2}}, "test": {"loss": {5: 3}}}


def step(update: int, loss: object) -> str:
    return f"epoch 001:  {update:4d} / 999 loss={loss}, wps=5, num_updates={update}, lr=0.1"


def test_a_resumed_run_goes_on_where_its_checkpoint_was(tmp_path: Path) -> None:
    first = [step(update, 1) for update in (10, 20, 30, 40)]
    first.insert(3, "epoch 001 | valid on 'valid' subset | loss 9 | num_updates 35")
    again = [step(update, 2) for update in (20, 25)]
    log = read(tmp_path, "\n".join(first + again))
    assert log.steps["loss"] == {10: 1, 20: 2, 25: 2}  # not 30 and 40, which the second run has not reached
    assert log.valid["valid"]["loss"] == {}
    assert log.restarts == [(40, 20)]
    assert log.last_update == 25


def test_lines_that_fairseq_repeats_are_one(tmp_path: Path) -> None:
    """It adds one more handler of --log-file with every epoch: each line of epoch N is there N times."""
    log = read(tmp_path, "".join(3 * f"{line}\n" for line in bare(SIMPLE).splitlines()))
    assert log.steps["ic_nll_loss"] == {30: 5.623, 40: 5.765}
    assert log.restarts == []


@examples(30)
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(allow_nan=False)), min_size=1))
def test_the_later_line_of_an_update_counts(tmp_path_factory: pytest.TempPathFactory, lines) -> None:
    log = read(tmp_path_factory.mktemp("log"), "\n".join(step(update, loss) for update, loss in lines))
    expected: dict[int, float] = {}
    for update, loss in lines:  # a run is at one place: what it had beyond is gone
        expected = {at: value for at, value in expected.items() if at < update} | {update: loss}
    assert log.steps["loss"] == expected
    assert list(log.steps["loss"]) == sorted(expected)
    assert len(log.restarts) == sum(b < a for (a, _), (b, _) in itertools.pairwise(lines))


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    text = f"{step(1, 'None')}\n{step(2, 'nan')}\n{step(3, 'inf')}\n{step(4, 1e-7)}\n"
    text += json.dumps({"epoch": 1, "update": 0.5, "loss": None, "wps": "1", "num_updates": "5"})
    losses = read(tmp_path, text).steps["loss"]
    assert list(losses) == [2, 3, 4]
    assert math.isnan(losses[2]) and losses[3] == math.inf and losses[4] == 1e-7


def test_a_line_cut_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    whole = bare(JSON).splitlines()[0]
    log = read(tmp_path, f"{step(5, 1)[:25]}\n{whole[:100]}{whole}\n{step(270, 2)[:40]}{step(270, 3)}\n")
    assert log.steps["loss"] == {260: 11.607, 270: 3}
    assert log.steps["tifg_mse"] == {260: 115.996}


def test_what_a_terminal_adds(tmp_path: Path) -> None:
    path = tmp_path / "captured.txt"
    path.write_bytes(b"epoch 001:   3%|\xe2\x96\x8f  | 1/34 [00:01<00:40, loss=9]\r\xff" + SIMPLE.encode())
    assert read_training_log(path).steps["ic_nll_loss"] == {30: 5.623, 40: 5.765}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Epoch 1: loss 3\n",
        "2026-11-24 10:18:11 | INFO | fairseq_cli.train | end of epoch 1 (average epoch stats below)\n",
        "epoch 001:   30 / 34 loss=6.256\n",
        '{"epoch": 1, "loss": "3"}\n',
        '{"epoch": 1, "loss": "3", "num_updates": "9"}\n{"epoch": 1, "num_updates": "5"}\n',
        '{"epoch": 1, "loss": 3, "num_updates": oops}\n',
    ],
)
def test_a_file_without_records_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"train\.log: no training or validation lines .*--log-format simple or json"):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.log: cannot be read: No such file"):
        read_training_log(tmp_path / "missing.log")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_training_log(tmp_path)


@pytest.mark.parametrize("written", [str, bare, as_hydra])
def test_captions_of_validation(tmp_path: Path, written) -> None:
    said = (
        "2026-11-24 10:18:05 | INFO | xgpt_fairseq.tasks.caption_log | captions of 'valid' subset | num_updates {} | "
        "image {} | {}\n"
    )
    lines = SIMPLE.splitlines(keepends=True)
    first = said.format(34, "a/7.jpg", "a man | a man") + said.format(34, "8", "")
    text = "".join([*lines[:5], first, *lines[5:8], said.format(40, "a/7.jpg", "a man"), *lines[8:]])
    assert read(tmp_path, written(text)).captions == {
        "valid": {"a/7.jpg": {34: "a man | a man", 40: "a man"}, "8": {34: ""}}
    }
    # a resumed run says again what came after the checkpoint
    again = text + "".join(lines[3:5]).replace("num_updates=30", "num_updates=35")
    assert read(tmp_path, written(again)).captions["valid"]["a/7.jpg"] == {34: "a man | a man"}
