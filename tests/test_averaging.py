"""Which checkpoints are averaged, and their mean against numpy's."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.thorough import examples
from xgpt_fairseq.averaging import average, best_checkpoints, last_checkpoints
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.feature_statistics import STATISTICS


def save(
    path: Path,
    model: dict[str, Tensor] | None = None,
    *,
    updates: int = 1,
    value: float | None = None,
    metric: str = "loss",
    maximize: bool = False,
    scheduler: Any = None,
    interval: int = 0,
) -> Path:
    """A checkpoint with what fairseq's trainer puts into one."""
    state = {
        "args": None,
        "cfg": {
            "checkpoint": {
                "best_checkpoint_metric": metric,
                "maximize_best_checkpoint_metric": maximize,
                "save_interval_updates": interval,
            },
            "lr_scheduler": scheduler,
        },
        "model": model if model is not None else {"weight": torch.full((2,), float(updates))},
        "optimizer_history": [{"num_updates": 0}, {"num_updates": updates}],
        "extra_state": {"train_iterator": {"epoch": 3}, "val_loss": value, "best": value},
        "last_optimizer_state": {"step": torch.tensor(updates)},
    }
    torch.save(state, path)
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


# The mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_mean_is_numpys(tmp_path: Path, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    models = [{"a": torch.randn(5, 7, generator=random).to(dtype), "b": torch.randn((), generator=random).to(dtype)}
              for _ in range(5)]  # fmt: skip
    average([save(tmp_path / f"{i}.pt", model) for i, model in enumerate(models)], tmp_path / "mean.pt")
    mean = load_checkpoint(tmp_path / "mean.pt")["model"]
    for name in ("a", "b"):
        expected = np.mean([model[name].double().numpy() for model in models], axis=0)
        assert mean[name].dtype == (torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype)
        assert torch.equal(mean[name], torch.as_tensor(expected, dtype=torch.float64).to(mean[name].dtype))


def test_sums_run_in_float64(tmp_path: Path) -> None:
    # in float16 the sum would overflow; in float32 the small ones would vanish beside the large
    half = [save(tmp_path / f"h{i}.pt", {"a": torch.tensor([60_000.0]).half()}) for i in range(4)]
    average(half, tmp_path / "mean.pt")
    assert load_checkpoint(tmp_path / "mean.pt")["model"]["a"].tolist() == [60_000.0]
    values = [1e8, 1.0, 1.0, 1.0, 1.0, -1e8]
    single = [save(tmp_path / f"s{i}.pt", {"a": torch.tensor([value])}) for i, value in enumerate(values)]
    average(single, tmp_path / "mean.pt")
    assert load_checkpoint(tmp_path / "mean.pt")["model"]["a"].item() == pytest.approx(4 / 6, rel=1e-6)


def test_tied_parameters_stay_tied(tmp_path: Path) -> None:
    def model(value: float) -> dict[str, Tensor]:
        shared = torch.full((3, 4), value)
        whole = torch.full((6,), value)
        return {"embedding": shared, "output": shared, "transposed": shared.t(), "first": whole[:3], "last": whole[3:],
                "alone": torch.full((3, 4), value)}  # fmt: skip

    average([save(tmp_path / f"{v}.pt", model(v)) for v in (1.0, 3.0)], tmp_path / "mean.pt")
    mean = load_checkpoint(tmp_path / "mean.pt")["model"]
    assert list(mean) == list(model(0))
    for tensor in mean.values():
        assert (tensor == 2).all()
    assert mean["output"].data_ptr() == mean["embedding"].data_ptr()
    assert mean["alone"].data_ptr() != mean["embedding"].data_ptr()
    assert mean["transposed"].shape == (4, 3)
    # and in the file too: the tied parameter is there once
    tied, untied = {"a": (shared := torch.zeros(10_000)), "b": shared}, {"a": shared, "b": torch.zeros(10_000)}
    sizes = []
    for number, state in enumerate([tied, untied]):
        average([save(tmp_path / f"size{number}.pt", state)], tmp_path / f"mean{number}.pt")
        sizes.append((tmp_path / f"mean{number}.pt").stat().st_size)
    assert sizes[1] - sizes[0] > 30_000


def test_what_is_no_float_is_taken_as_it_is(tmp_path: Path) -> None:
    digest = torch.arange(32, dtype=torch.uint8)
    buffers = {"digest": digest, "flag": torch.tensor([True, False]), "count": torch.tensor(2**60 + 1)}
    inputs = [save(tmp_path / f"{v}.pt", {**buffers, "weight": torch.tensor([v])}) for v in (1.0, 2.0)]
    average(inputs, tmp_path / "mean.pt")
    mean = load_checkpoint(tmp_path / "mean.pt")["model"]
    assert mean["weight"].tolist() == [1.5]
    for name, tensor in buffers.items():
        assert mean[name].dtype == tensor.dtype
        assert torch.equal(mean[name], tensor)


@pytest.mark.parametrize("old", [0, 1, 2])
def test_statistics_that_older_checkpoints_lack(tmp_path: Path, old: int) -> None:
    """A run that began before there were any; they are left out, and where all have them they stay as they are."""
    known = {name: torch.tensor([0.1, 3.7]) for name in STATISTICS}
    models = [{"weight": torch.tensor([float(i)]), **known} for i in range(3)]
    average([save(tmp_path / f"{i}.pt", model) for i, model in enumerate(models)], tmp_path / "all.pt")
    mean = load_checkpoint(tmp_path / "all.pt")["model"]
    assert all(torch.equal(mean[name], tensor) for name, tensor in known.items())
    models[old] = {"weight": models[old]["weight"]}
    average([save(tmp_path / f"{i}.pt", model) for i, model in enumerate(models)], tmp_path / "mixed.pt")
    assert load_checkpoint(tmp_path / "mixed.pt")["model"] == {"weight": torch.tensor([1.0])}


@pytest.mark.parametrize("other", [torch.arange(1, 33, dtype=torch.uint8), torch.zeros(32, dtype=torch.uint8)])
def test_models_of_different_dictionaries(tmp_path: Path, other: Tensor) -> None:
    inputs = [save(tmp_path / f"{i}.pt", {"dictionary_digest": digest}) for i, digest in
              enumerate([torch.arange(32, dtype=torch.uint8), other])]  # fmt: skip
    with pytest.raises(DataError, match=r"1\.pt and .*0\.pt have different dictionary_digest: they belong to"):
        average(inputs, tmp_path / "mean.pt")


def test_counters_that_differ_are_no_mean(tmp_path: Path) -> None:
    inputs = [save(tmp_path / f"{i}.pt", {"count": torch.tensor(i)}) for i in range(2)]
    with pytest.raises(DataError, match="different count"):
        average(inputs, tmp_path / "mean.pt")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"weight": torch.zeros(2), "bias": torch.zeros(2)}, "of different models: bias is only in one of them"),
        ({}, "of different models: weight is only in one of them"),
        ({"weight": torch.zeros(3)}, r"of different models: weight is \(3,\) and \(2,\)"),
        ({"weight": torch.zeros(1)}, r"of different models: weight is \(1,\) and \(2,\)"),  # would broadcast
    ],
)
def test_different_models(tmp_path: Path, model: dict[str, Tensor], message: str) -> None:
    inputs = [save(tmp_path / "a.pt", {"weight": torch.zeros(2)}), save(tmp_path / "b.pt", model)]
    with pytest.raises(DataError, match=message) as caught:
        average(inputs, tmp_path / "mean.pt")
    assert "b.pt" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_the_rest_of_the_checkpoint(tmp_path: Path) -> None:
    inputs = [save(tmp_path / f"{i}.pt", updates=i, value=float(i), metric="cider") for i in (4, 2)]
    average(inputs, tmp_path / "new folder" / "mean.pt")
    mean, first = load_checkpoint(tmp_path / "new folder" / "mean.pt"), load_checkpoint(inputs[0])
    assert mean["cfg"] == first["cfg"]
    assert mean["optimizer_history"] == first["optimizer_history"]
    assert "last_optimizer_state" not in mean
    assert mean["extra_state"]["averaged"] == ["4.pt", "2.pt"]
    assert mean["extra_state"]["val_loss"] is None
    assert mean["extra_state"]["train_iterator"]["epoch"] == 1


def test_an_input_can_be_overwritten(tmp_path: Path) -> None:
    inputs = [save(tmp_path / f"{i}.pt", updates=i) for i in (1, 2)]
    average(inputs, inputs[0])
    assert load_checkpoint(inputs[0])["model"]["weight"].tolist() == [1.5, 1.5]


# The best


def write_run(folder: Path, values: dict[int, float | None], *, maximize: bool) -> None:
    for updates, value in values.items():
        save(folder / f"checkpoint{updates}.pt", updates=updates, value=value, metric="cider", maximize=maximize)


@examples(25)
@given(
    st.dictionaries(st.integers(1, 30), st.sampled_from([None, 0.5, 0.25, 1.0, -3.0, 7.5]), max_size=6),
    st.booleans(),
    st.integers(1, 7),
)
def test_best(tmp_path_factory: pytest.TempPathFactory, values: dict[int, float | None], up: bool, count: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, values, maximize=up)
    rest = [updates for updates, value in values.items() if value is not None]
    ranked = []
    while rest:  # pick the best, of equal ones the later, again and again
        best = rest[0]
        for updates in rest[1:]:
            better = values[updates] > values[best] if up else values[updates] < values[best]
            if better or (values[updates] == values[best] and updates > best):
                best = updates
        rest.remove(best)
        ranked.append(f"checkpoint{best}.pt")
    if not ranked:
        with pytest.raises(DataError, match=f"has 0 validated checkpoints, {count} are asked for$"):
            best_checkpoints(folder, count, allow_fewer=True)
        return
    assert names(best_checkpoints(folder, count, allow_fewer=True).paths) == ranked[:count]
    if len(ranked) >= count:
        assert names(best_checkpoints(folder, count).paths) == ranked[:count]
    else:
        message = f"has {len(ranked)} validated checkpoints, {count} are asked for; pass --allow-fewer"
        with pytest.raises(DataError, match=message):
            best_checkpoints(folder, count)


def test_best_by_the_value_in_the_file_not_by_its_name(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint.best_cider_1.001.pt", updates=1, value=1.0011, maximize=True)
    save(
        tmp_path / "checkpoint.best_cider_1.0012.pt", updates=2, value=1.0012, maximize=True
    )  # 2: fairseq's tie-breaker
    save(tmp_path / "checkpoint.best_cider_0.999.pt", updates=3, value=0.9993, maximize=True)
    assert names(best_checkpoints(tmp_path, 2).paths) == [
        "checkpoint.best_cider_1.0012.pt",
        "checkpoint.best_cider_1.001.pt",
    ]


def test_files_of_one_update_count_once(tmp_path: Path) -> None:
    for name in ("checkpoint2.pt", "checkpoint_2_200.pt", "checkpoint_best.pt", "checkpoint_last.pt"):
        save(tmp_path / name, updates=200, value=0.5)
    save(tmp_path / "checkpoint1.pt", updates=100, value=0.75)
    assert names(best_checkpoints(tmp_path, 2).paths) == ["checkpoint2.pt", "checkpoint1.pt"]
    with pytest.raises(DataError, match="has 2 validated checkpoints, 3 are asked for"):
        best_checkpoints(tmp_path, 3)


def test_a_run_that_diverged(tmp_path: Path) -> None:
    write_run(tmp_path, {1: 2.0, 2: math.nan, 3: 1.0, 4: math.nan}, maximize=False)
    assert names(best_checkpoints(tmp_path, 2).paths) == ["checkpoint3.pt", "checkpoint1.pt"]
    with pytest.raises(DataError, match="has 2 validated checkpoints"):
        best_checkpoints(tmp_path, 3)


@pytest.mark.parametrize(
    "scheduler",
    [{"_name": "inverse_sqrt", "warmup_updates": 200}, Namespace(warmup_updates=200)],
    ids=["a run's", "an old run's"],
)
def test_the_warm_up_is_left_out(tmp_path: Path, scheduler: Any) -> None:
    """Up to its end; the best of all is among it."""
    for updates, value in {100: 1.0, 200: 2.0, 201: 4.0, 300: 3.0}.items():
        save(tmp_path / f"checkpoint{updates}.pt", updates=updates, value=value, scheduler=scheduler)
    choice = best_checkpoints(tmp_path, 2)
    assert names(choice.paths) == ["checkpoint300.pt", "checkpoint201.pt"]
    within = "is within the warm-up of 200 updates"
    assert choice.left_out == [f"{tmp_path / f'checkpoint{n}.pt'}: update {n} {within}" for n in (100, 200)]
    message = r"has 2 validated checkpoints from after the warm-up \(and 2 from within it\), 3 are asked for; pass"
    with pytest.raises(DataError, match=message):
        best_checkpoints(tmp_path, 3)
    fewer = best_checkpoints(tmp_path, 3, allow_fewer=True)
    assert names(fewer.paths) == ["checkpoint300.pt", "checkpoint201.pt"] and fewer.asked == 3
    assert fewer.found == f"{tmp_path} has 2 validated checkpoints from after the warm-up (and 2 from within it)"


@pytest.mark.parametrize("allow_fewer", [True, False])
def test_a_run_that_ended_within_its_warm_up(tmp_path: Path, allow_fewer: bool) -> None:
    for updates in (100, 150):
        for name in (f"checkpoint{updates}.pt", f"checkpoint_1_{updates}.pt"):
            save(tmp_path / name, updates=updates, value=1.0, scheduler={"warmup_updates": 4000})
    message = r"all 2 validated checkpoints are from the warm-up of 4000 updates \(the last is of update 150\)"
    with pytest.raises(DataError, match=message):
        best_checkpoints(tmp_path, 1, allow_fewer=allow_fewer)


@pytest.mark.parametrize(
    "scheduler",
    [None, {"_name": "fixed", "warmup_updates": 0}, {"_name": "tri_stage", "warmup_steps": 500}, Namespace(lr=[1])],
    ids=str,
)
def test_without_a_warm_up_all_are_taken(tmp_path: Path, scheduler: Any) -> None:
    for updates in (1, 2):
        save(tmp_path / f"checkpoint{updates}.pt", updates=updates, value=float(updates), scheduler=scheduler)
    choice = best_checkpoints(tmp_path, 2)
    assert names(choice.paths) == ["checkpoint1.pt", "checkpoint2.pt"] and not choice.left_out


@pytest.mark.parametrize("change", [{"metric": "bleu4"}, {"maximize": True}])
def test_runs_with_different_metrics(tmp_path: Path, change: dict[str, Any]) -> None:
    save(tmp_path / "checkpoint1.pt", updates=1, value=0.5)
    save(tmp_path / "checkpoint2.pt", updates=2, value=0.5, **change)
    with pytest.raises(DataError, match=r"different metrics \(checkpoint1.pt: loss, checkpoint2.pt: .*--inputs"):
        best_checkpoints(tmp_path, 1)


# The last


@pytest.mark.parametrize(
    ("by_updates", "expected"),
    [
        (False, ["checkpoint10.pt", "checkpoint9.pt", "checkpoint2.pt"]),
        (True, ["checkpoint_2_1000.pt", "checkpoint_1_900.pt", "checkpoint_1_20.pt"]),
    ],
)
def test_last(tmp_path: Path, by_updates: bool, expected: list[str]) -> None:
    others = ["checkpoint_last.pt", "checkpoint_best.pt", "checkpoint99.pt.tmp", "checkpoint.best_loss_99.pt", "99.pt"]
    files = ["checkpoint9.pt", "checkpoint10.pt", "checkpoint2.pt"]
    files += ["checkpoint_1_20.pt", "checkpoint_1_900.pt", "checkpoint_2_1000.pt"]
    for name in files + others:
        (tmp_path / name).touch()  # by name alone, where the run's --save-interval-updates is not known
    save(tmp_path / "checkpoint_2_1000.pt")
    for count in (1, 2, 3):
        assert names(last_checkpoints(tmp_path, count, by_updates=by_updates).paths) == expected[:count]
    what = "saved by updates" if by_updates else "saved by epochs"
    with pytest.raises(DataError, match=f"has 3 checkpoints {what}, 4 are asked for; pass --allow-fewer"):
        last_checkpoints(tmp_path, 4, by_updates=by_updates)
    assert names(last_checkpoints(tmp_path, 4, by_updates=by_updates, allow_fewer=True).paths) == expected


@pytest.mark.parametrize("epochs", [True, False])
def test_updates_that_end_an_epoch_count_too(tmp_path: Path, epochs: bool) -> None:
    """fairseq saves update 20 and update 40 under the epoch's name, or with --no-epoch-checkpoints as the last."""
    for updates in (10, 30):
        save(tmp_path / f"checkpoint_{updates}_{updates}.pt", updates=updates, interval=10)
    save(tmp_path / "checkpoint_last.pt", updates=40, interval=10)
    if epochs:
        save(tmp_path / "checkpoint1.pt", updates=20, interval=10)
        save(tmp_path / "checkpoint2.pt", updates=40, interval=10)
        save(tmp_path / "checkpoint3.pt", updates=45, interval=10)  # not at a multiple of the interval
    choice = last_checkpoints(tmp_path, 3, by_updates=True)
    if epochs:
        assert names(choice.paths) == ["checkpoint2.pt", "checkpoint_30_30.pt", "checkpoint1.pt"]
        assert choice.left_out == []
    else:
        assert names(choice.paths) == ["checkpoint_last.pt", "checkpoint_30_30.pt", "checkpoint_10_10.pt"]
        assert len(choice.left_out) == 1 and choice.left_out[0].startswith("update 20: its epoch ended there")


@pytest.mark.parametrize("count", [0, -1])
def test_at_least_one(tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match=f"must be at least 1, got {count}"):
        best_checkpoints(tmp_path, count)
    with pytest.raises(DataError, match=f"must be at least 1, got {count}"):
        last_checkpoints(tmp_path, count, by_updates=False)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--checkpoints .*none is not a folder"):
        best_checkpoints(tmp_path / "none", 1)
    with pytest.raises(DataError, match=r"--checkpoints .*none is not a folder"):
        last_checkpoints(tmp_path / "none", 1, by_updates=True)
