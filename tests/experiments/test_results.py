"""The table and its plot."""

from __future__ import annotations

from pathlib import Path

from tests.experiments.tables import write_scores
from tests.scripts import example
from xgpt_fairseq.experiments import results
from xgpt_fairseq.experiments.runs import folder_of

ablations = example("ablations/ablations.py")
METRICS, TABLES = ablations.METRICS, ablations.TABLES


def test_the_table_has_mean_and_spread_of_what_is_finished(tmp_path: Path) -> None:
    rows = TABLES["table2"].rows[:2]
    for seed, cider in ((1, 0.42), (2, 0.46)):
        write_scores(folder_of(rows[0], seed, tmp_path), CIDEr=cider, **{"BLEU@4": 0.125, "METEOR": 0.2})
    write_scores(folder_of(rows[1], 2, tmp_path), CIDEr=0.5)
    scores = results.read_scores(rows, [1, 2, 3], tmp_path)
    assert results.table(rows, scores, "objectives", METRICS).splitlines() == [
        "| objectives | seeds | CIDEr | BLEU@4 | METEOR | SPICE |",
        "|---|---|---|---|---|---|",
        "| ic | 2 | 44.0 ± 2.8 (116.4) | 12.5 ± 0.0 (35.9) | 20.0 ± 0.0 (28.2) | – (21.1) |",
        "| ic+imlm | 1 | 50.0 (117.7) | – (36.2) | – (28.2) | – (21.2) |",
    ]
    results.plot(rows, scores, "objectives", METRICS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_nothing_is_none(tmp_path: Path) -> None:
    rows = TABLES["table3"].rows
    results.plot(rows, results.read_scores(rows, [1], tmp_path), "structures", METRICS, tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())
