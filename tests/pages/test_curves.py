"""Training curves: which lines a figure has, where they lie, how they are told apart."""

from __future__ import annotations

import builtins
import math
import warnings
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.pages.test_fonts import CIRCLED, only_latin
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.curves import caption_lines, check_output, draw_curves, write_figure
from xgpt_fairseq.pages.training_log import TrainingLog

PRETRAINING = TrainingLog(
    Path("pretrain.log"),
    steps={
        "nll_loss": {10: 9.0, 20: 7.0},
        "ic_nll_loss": {10: 9.0, 20: 7.0},
        "imlm_nll_loss": {10: 9.5, 20: 8.0},
        "ida_nll_loss": {10: 9.2, 20: 7.1},
        "tifg_mse": {10: 250.0, 20: 120.0},
        "lr": {10: 1e-4, 20: 2e-4},
    },
    epochs={"ic_nll_loss": {20: 8.0}, "lr": {20: 2e-4}},
    valid={
        "valid": {
            "ic_nll_loss": {20: 7.2},
            "imlm_nll_loss": {20: 8.1},
            "tifg_mse": {20: 118.0},
            "loss": {20: 9.0},
            "best_ic_nll_loss": {20: 7.1},
        }
    },
)
CAPTIONING = TrainingLog(
    Path("caption.log"),
    steps={"ic_nll_loss": {5: 5.0, 10: 4.0, 15: 3.5}, "lr": {5: 1e-5, 10: 2e-5, 15: 1.5e-5}},
    valid={"valid": {"ic_nll_loss": {10: 4.2, 15: 4.0}, "cider": {10: 0.5, 15: 0.45}, "bleu4": {10: 0.1, 15: 0.12}}},
)
BOTH = {"pre": PRETRAINING, "cap": CAPTIONING}
PANELS = [
    "Training loss",
    "Validation loss",
    "Training error of regions",
    "Validation error of regions",
    "Validation scores",
    "Learning rate",
]


def panels(figure: Figure) -> dict[str, Axes]:
    """By title, of a figure with one set of panels."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.axison}


def curves(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Label of the legend → the points of its lines; markers of best values and boundaries left out."""
    legend = axes.get_legend()
    labels = {}
    for text, handle in zip(legend.get_texts(), legend.get_lines(), strict=True):
        labels[handle.get_color(), handle.get_linestyle()] = text.get_text()
    found: dict[str, list[tuple[float, float]]] = {}
    for line in axes.get_lines():
        label = labels.get((line.get_color(), line.get_linestyle()))
        if label and line.get_marker() != "*":
            found.setdefault(label, []).extend(map(tuple, line.get_xydata()))
    return found


def test_one_log() -> None:
    figure = draw_curves({"pre": PRETRAINING})
    assert list(panels(figure)) == [title for title in PANELS if title != "Validation scores"]
    assert figure.get_suptitle() == "pre"
    training = curves(panels(figure)["Training loss"])
    assert training == {"IC": [(10, 9), (20, 7)], "IMLM": [(10, 9.5), (20, 8)], "IDA": [(10, 9.2), (20, 7.1)]}
    assert curves(panels(figure)["Validation loss"]) == {"IC": [(20, 7.2)], "IMLM": [(20, 8.1)]}
    assert curves(panels(figure)["Training error of regions"]) == {"TIFG": [(10, 250), (20, 120)]}
    assert panels(figure)["Training error of regions"].get_ylabel() == "squared, mean over dimensions"  # as TIFG's loss
    (rate,) = panels(figure)["Learning rate"].get_lines()
    assert rate.get_xydata().tolist() == [[10, 1e-4], [20, 2e-4]]
    for axes in panels(figure).values():
        assert axes.get_xlabel() == "updates"
        assert axes.get_xlim() == (0, pytest.approx(20 * 1.03))


def test_scores_are_in_percent_with_the_best_marked() -> None:
    axes = panels(draw_curves({"cap": CAPTIONING}))["Validation scores"]
    assert curves(axes) == {"CIDEr": [(10, 50), (15, 45)], "BLEU@4": [(10, 10), (15, 12)]}
    best = {line.get_color(): line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() == "*"}
    assert list(best.values()) == [[[10, 50]], [[15, 12]]]
    assert [text.get_text() for text in axes.texts] == ["50.0", "12.0"]


def test_units_are_those_of_what_is_drawn() -> None:
    """The loss of image retrieval is of choices, of which the accuracy is in percent."""
    retrieval = TrainingLog(
        Path("retrieval.log"),
        steps={"matching_nll_loss": {5: 2.0, 10: 1.5}},
        valid={"valid": {"matching_nll_loss": {10: 1.6}, "matching_accuracy": {10: 62.5}}},
    )
    alone = panels(draw_curves({"retrieval": retrieval}))
    losses = ("Training loss", "Validation loss")
    assert [alone[title].get_ylabel() for title in losses] == ["bits per choice"] * 2
    assert alone["Validation scores"].get_ylabel() == "%"
    assert curves(alone["Validation scores"]) == {"Right pairs": [(10, 62.5)]}
    caption = panels(draw_curves({"cap": CAPTIONING}))
    assert [caption[title].get_ylabel() for title in (*losses, "Validation scores")] == ["bits per token"] * 2 + [
        "× 100"
    ]
    both = panels(draw_curves({"cap": CAPTIONING, "retrieval": retrieval}, "stages"))
    assert both["Training loss"].get_ylabel() == "bits per token (IC)\nbits per choice (MATCHING)"
    assert both["Validation scores"].get_ylabel() == "× 100 (CIDEr, BLEU@4)\n% (Right pairs)"


def test_a_diverged_run_is_drawn() -> None:
    log = TrainingLog(Path("a"), valid={"valid": {"cider": {1: math.nan, 2: 0.3, 3: math.nan}, "bleu4": {1: math.nan}}})
    assert [text.get_text() for text in panels(draw_curves({"a": log}))["Validation scores"].texts] == ["30.0"]


def test_columns_share_their_vertical_axes() -> None:
    figure = draw_curves(BOTH)
    grid = [figure.axes[row : row + 2] for row in range(0, len(figure.axes), 2)]
    assert [axes.get_title() for axes in grid[0]] == ["pre", "cap"]
    assert [row[0].get_ylabel().split("\n")[0] for row in grid] == PANELS
    for left, right in grid:
        assert left.get_ylim() == right.get_ylim()
    assert grid[0][0].get_xlim() != grid[0][1].get_xlim()
    assert curves(grid[0][1]) == {"IC": [(5, 5), (10, 4), (15, 3.5)]}
    assert [text.get_text() for text in grid[2][1].texts] == ["not in this log"]


def test_stages_follow_one_another() -> None:
    axes = panels(draw_curves({**BOTH, "again": CAPTIONING}, "stages"))["Training loss"]
    assert curves(axes)["IC"] == [(10, 9), (20, 7), (25, 5), (30, 4), (35, 3.5), (40, 5), (45, 4), (50, 3.5)]
    boundaries = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":" and
                  line.get_ydata() == [0, 1]]  # fmt: skip
    assert boundaries == [20, 35]
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("pre", 10), ("cap", 27.5), ("again", 42.5)]
    assert len({text.xyann for text in axes.texts}) == 1

    # the names of short stages stand in two lines
    brief = TrainingLog(Path("brief.log"), steps={"ic_nll_loss": {1: 5.0}})
    axes = panels(draw_curves({"a": PRETRAINING, "b": brief, "c": brief}, "stages"))["Training loss"]
    assert len({text.xyann for text in axes.texts}) == 2


def test_an_overlay_tells_logs_by_colour_and_objectives_by_dashes() -> None:
    figure = draw_curves(BOTH, "overlay")
    (legend,) = figure.legends
    colours = {text.get_text(): line.get_color() for text, line in zip(legend.texts, legend.get_lines(), strict=True)}
    assert list(colours) == ["pre", "cap"]
    lines = panels(figure)["Training loss"].get_lines()
    assert [line.get_color() for line in lines] == [colours["pre"]] * 3 + [colours["cap"]]
    assert lines[0].get_linestyle() == lines[3].get_linestyle()
    assert len({str(line._dash_pattern) for line in lines[:3]}) == 3
    with pytest.raises(DataError, match="8 logs: an overlay has colours for at most 7"):
        draw_curves({str(number): CAPTIONING for number in range(8)}, "overlay")


def test_an_objective_has_one_colour_in_all_panels_and_figures() -> None:
    alone = TrainingLog(Path("a"), steps={"ida_nll_loss": {1: 1.0}, "itm_nll_loss": {1: 2.0}, "x_nll_loss": {1: 2.0}})

    def colours(log: TrainingLog, panel: str) -> dict[str, str]:
        legend = panels(draw_curves({"a": log}))[panel].get_legend()
        return {text.get_text(): line.get_color() for text, line in zip(legend.texts, legend.get_lines(), strict=True)}

    assert colours(alone, "Training loss")["IDA"] == colours(PRETRAINING, "Training loss")["IDA"]
    assert colours(PRETRAINING, "Validation loss")["IC"] == colours(CAPTIONING, "Training loss")["IC"]
    assert len(set(colours(alone, "Training loss").values())) == 3


def test_a_run_without_lines_within_epochs_shows_the_epochs() -> None:
    log = TrainingLog(Path("a"), epochs={"ic_nll_loss": {7: 3.0, 14: 2.0}, "lr": {7: 1e-3, 14: 5e-4}})
    figure = draw_curves({"a": log})
    assert curves(panels(figure)["Training loss"]) == {"IC": [(7, 3), (14, 2)]}
    assert list(panels(figure)) == ["Training loss", "Learning rate"]


def test_logs_of_other_criteria_and_several_subsets() -> None:
    log = TrainingLog(Path("a"), steps={"nll_loss": {1: 4.0}}, valid={
        "valid": {"nll_loss": {1: 3.0}, "cider": {1: 0.2}}, "test": {"nll_loss": {1: 3.5}, "cider": {1: 0.1}},
    })  # fmt: skip
    figure = draw_curves({"a": log})
    assert curves(panels(figure)["Training loss"]) == {"nll_loss": [(1, 4)]}
    legend = panels(figure)["Validation loss"].get_legend()
    assert [text.get_text() for text in legend.texts] == ["nll_loss, valid", "nll_loss, test"]
    assert len({line.get_marker() for line in legend.get_lines()}) == 2


def test_a_log_of_nothing_that_is_drawn() -> None:
    with pytest.raises(DataError, match=r"a\.log, b\.log: no loss, score or learning rate"):
        draw_curves({name: TrainingLog(Path(f"{name}.log"), steps={"wps": {1: 5.0}}) for name in "ab"})


@pytest.mark.parametrize(
    ("layout", "suffix", "magic"),
    [("columns", "png", b"\x89PNG"), ("stages", "SVG", b"<?xml"), ("overlay", "pdf", b"%PDF")],
)
def test_formats_and_awkward_names(tmp_path: Path, layout, suffix: str, magic: bytes) -> None:
    path = tmp_path / f"curves.{suffix}"
    check_output(path)
    figure = draw_curves({"lr=$x_1$ <b>": PRETRAINING, "_hidden": CAPTIONING, r"$\frac{": CAPTIONING}, layout)
    write_figure(figure, path)
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]
    if layout == "overlay":
        assert [text.get_text() for text in figure.legends[0].texts][1] == "_hidden"


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("curves.jpg", "curves", "png"):
        with pytest.raises(DataError, match=rf"{name}: curves are drawn as \.png, \.svg, \.pdf"):
            check_output(tmp_path / name)
    real = builtins.__import__

    def without_matplotlib(name: str, *rest: object, **more: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(DataError, match=r'needs matplotlib: pip install "xgpt-fairseq\[report\]"'):
        check_output(tmp_path / "curves.png")


def test_a_short_stage_is_drawn_wider() -> None:
    long = TrainingLog(Path("long.log"), steps={"ic_nll_loss": {10: 5.0, 1000: 4.0}})
    brief = TrainingLog(Path("brief.log"), steps={"ic_nll_loss": {5: 4.0, 10: 3.0}})
    axes = panels(draw_curves({"a": long, "b": brief}, "stages"))["Training loss"]
    [boundary] = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert boundary == pytest.approx(0.85 * 1010)
    assert [x for x, _ in curves(axes)["IC"]] == pytest.approx([8.585, 858.5, 934.25, 1010])
    ticks = dict(zip((t.get_text() for t in axes.get_xticklabels()), axes.get_xticks(), strict=True))
    assert ticks["0"] == 0 and ticks["1,000"] == pytest.approx(858.5) and ticks["1,010"] == pytest.approx(1010)
    assert ticks["400"] == pytest.approx(0.4 * 858.5)
    assert axes.get_xlabel() == "updates (short stages are drawn wider)"


def test_gradient_norms_and_clipping_by_objective() -> None:
    log = TrainingLog(
        Path("a"),
        steps={"ic_nll_loss": {1: 5.0}, "gnorm": {1: 9.0}, "ic_gnorm": {1: 2.0}, "ida_gnorm": {1: 3.0},
               "ic_clip": {1: 25.0}, "clip": {1: 50.0}},
    )  # fmt: skip
    found = panels(draw_curves({"a": log}))
    assert curves(found["Gradient norm"]) == {"IC": [(1, 2)], "IDA": [(1, 3)]}
    assert curves(found["Clipped updates"]) == {"IC": [(1, 25)]}
    plain = panels(draw_curves({"a": TrainingLog(Path("a"), steps={"gnorm": {1: 9.0}})}))
    assert curves(plain["Gradient norm"]) == {"gnorm": [(1, 9)]}


SAID = {n: f"a {'man ' * n}$x$" for n in range(1, 12)}
TALKING = TrainingLog(
    Path("a"), steps={"ic_nll_loss": {1: 5.0, 11: 4.0}}, captions={"valid": {"42": SAID, "7": {5: "", 10: "b" * 200}}}
)


def test_captions_below_the_curves() -> None:
    head = "run, image 42 of valid, after so many updates:"
    lines = list(caption_lines({"run": TALKING}, 1, None))
    assert lines == [head, *(f"    {n}:  {SAID[n]}" for n in (1, 3, 5, 7, 9, 11))]
    assert list(caption_lines({"run": TALKING}, 1, [4, 100])) == [head, f"    4:  {SAID[4]}", f"    11:  {SAID[11]}"]
    assert list(caption_lines({"run": TALKING}, 2, [5]))[2:] == [
        "run, image 7 of valid, after so many updates:", "    5:  (empty)",
    ]  # fmt: skip
    assert list(caption_lines({"run": TALKING}, 2, [11]))[3].endswith("bbb…")
    assert list(caption_lines({"run": TALKING}, 0, None)) == []
    assert list(caption_lines({"run": TALKING}, 1, [0])) == []
    for layout in ("columns", "stages", "overlay"):
        figure = draw_curves({"run": TALKING, "other": CAPTIONING}, layout)
        [text] = [text for part in figure.subfigs for text in part.texts]
        assert text.get_text().split("\n")[0] == head and text.get_text().count("\n") == 6
        figure.canvas.draw()  # captions are no formulas
        assert not draw_curves({"run": TALKING}, layout, images=0).subfigs


def test_captions_in_other_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is drawn as boxes, of which matplotlib warns: there is a font, or they are left out."""
    said = {"1": {5: "一只狗", 10: "a dog"}, "2": {5: "หมา"}, "3": {5: f"a {CIRCLED}"}}
    logs = {"run": TrainingLog(Path("a"), steps={"ic_nll_loss": {1: 5.0, 11: 4.0}}, captions={"valid": said})}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_curves(logs, images=3)
        figure.canvas.draw()
        assert f"a {CIRCLED}" in figure.subfigs[1].texts[0].get_text()
        only_latin(monkeypatch)
        figure = draw_curves(logs, images=3)
        figure.canvas.draw()
    assert figure.subfigs[1].texts[0].get_text().split("\n") == [
        "run, image 1 of valid, after so many updates:", "    10:  a dog",
    ]  # fmt: skip
