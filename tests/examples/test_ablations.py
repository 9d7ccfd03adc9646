"""The runner of the paper's tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ablations

sys.path.insert(0, str(Path(__file__).parent.parent / "end_to_end"))
from programs import ROOT, SMALL, run


def write_scores(folder: Path, **scores: float) -> None:
    folder.mkdir(parents=True)
    (folder / "scores-test.json").write_text(json.dumps({"scores": scores}))


def test_the_table_has_mean_and_spread_of_what_is_finished(tmp_path: Path) -> None:
    rows = ablations.TABLES["table2"][:2]
    for seed, cider in ((1, 0.42), (2, 0.46)):
        write_scores(tmp_path / "ic" / f"seed{seed}", CIDEr=cider, **{"BLEU@4": 0.125, "METEOR": 0.2})
    write_scores(tmp_path / "ic+imlm" / "seed2", CIDEr=0.5)
    assert ablations.table(rows, tmp_path, [1, 2, 3]).splitlines() == [
        "| pre-training | seeds | CIDEr | BLEU@4 | METEOR | SPICE |",
        "|---|---|---|---|---|---|",
        "| ic | 2 | 44.0 ± 2.8 (116.4) | 12.5 ± 0.0 (35.9) | 20.0 ± 0.0 (28.2) | – (21.1) |",
        "| ic+imlm | 1 | 50.0 (117.7) | – (36.2) | – (28.2) | – (21.2) |",
    ]


def test_rows_are_the_papers() -> None:
    names = [row.name for row in ablations.TABLES["table2"]]
    assert names[0] == "ic" and names[4] == "ic+imlm+ida+tifg" and names[8] == "ic+imlm+ida+tifg in domain"
    assert [len(row.stages) for row in ablations.TABLES["table2"]] == [2] * 5 + [3] * 4


def test_an_unknown_row_is_named(call_program, tmp_path: Path) -> None:
    outcome = call_program(ablations.main, "table2", "--rows", "ic,itm", "--output", tmp_path)
    assert outcome.status == 1
    assert outcome.error.startswith("--rows: table2 has no row 'itm'; it has: ic, ic+imlm")


def test_a_failing_stage_names_its_log(call_program, tmp_path: Path) -> None:
    outcome = call_program(
        ablations.main, "table2", "--rows", "ic", "--seeds", "1", "--data", tmp_path / "none", "--output", tmp_path,
        "--scale", "demo",
    )  # fmt: skip
    assert outcome.status == 1
    assert outcome.error.startswith("ic, seed 1: 2_out_of_domain.sh failed; see ")
    assert "is not a data directory" in (tmp_path / "table2" / "ic" / "seed1" / "2_out_of_domain.log").read_text()


def test_a_row_runs_from_its_first_stage_to_scores_and_is_not_run_again(tiny_data: Path, tmp_path: Path) -> None:
    """With the demo's own settings but for sizes, which a row's script takes as it takes them from a user."""
    program = tmp_path / "small.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'examples' / 'ablations')!r}); import ablations\n"
        f"small = {SMALL!r} + ['--max-update', '3']\n"
        "ablations.DEMO = {k: v if k == ablations.CAPTION else v + small for k, v in ablations.DEMO.items()}\n"
        "ablations.main()\n"
    )
    command = [
        sys.executable, program, "table2", "--scale", "demo", "--rows", "ic+tifg in domain", "--seeds", "7",
        "--data", tiny_data, "--output", tmp_path,
    ]  # fmt: skip
    done = run(*command)
    assert "| ic+tifg in domain | 1 |" in done.stdout and "seed 7: " in done.stdout
    assert done.stdout.endswith((tmp_path / "table2" / "table.md").read_text())
    log = (tmp_path / "table2" / "ic+tifg_in_domain" / "seed7" / "3_in_domain.log").read_text()
    assert "ic=1,tifg=0.3" in log and "parameters new: 0" in log
    assert "seed 7 …" not in run(*command).stdout
