"""What curves a training's log has, by panels of one unit each: losses, scores, the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from xgpt_fairseq.pages.training_log import Series, TrainingLog

_SCORES = {"cider": ("CIDEr", 100), "bleu4": ("BLEU@4", 100), "matching_accuracy": ("Right pairs", 1)}  # and its factor


@dataclass(frozen=True)
class Curve:
    """One line of a panel: *what* is the objective or metric ("IC", "CIDEr"), *subset* that of a validation, if any."""

    what: str
    series: Series
    subset: str | None = None


@dataclass(frozen=True)
class Panel:
    """One kind of curve.

    Attributes:
        title: title of the panel.
        unit: unit of its vertical axis.
        units: of curves that have another, by what they are.
        curves: returns the curves of a log.
        best: whether to mark the highest value of each curve.
    """

    title: str
    unit: str
    curves: Callable[[TrainingLog], list[Curve]]
    best: bool = False
    units: Mapping[str, str] = field(default_factory=dict)

    def units_of(self, logs: Iterable[TrainingLog]) -> str:
        """The unit of its curves of *logs*; where they have several, each with its curves."""
        found: dict[str, dict[str, None]] = {}  # of each unit, its curves, in order
        for curve in (curve for log in logs for curve in self.curves(log)):
            found.setdefault(self.units.get(curve.what, self.unit), {})[curve.what] = None
        if len(found) < 2:
            return next(iter(found), self.unit)
        return "\n".join(f"{unit} ({', '.join(curves)})" for unit, curves in found.items())


def _training_words(log: TrainingLog) -> list[Curve]:
    return list(_training(log, "_nll_loss", otherwise="nll_loss"))


def _validation_words(log: TrainingLog) -> list[Curve]:
    return list(_validation(log, "_nll_loss", otherwise="nll_loss"))


def _training_regions(log: TrainingLog) -> list[Curve]:
    return list(_training(log, "_mse"))


def _validation_regions(log: TrainingLog) -> list[Curve]:
    return list(_validation(log, "_mse"))


def _scores(log: TrainingLog) -> list[Curve]:
    return [
        Curve(label, {update: factor * value for update, value in values[name].items()}, subset)
        for subset, values in log.valid.items()
        for name, (label, factor) in _SCORES.items()
        if values.get(name)
    ]


def _gradient_norms(log: TrainingLog) -> list[Curve]:
    return list(_training(log, "_gnorm", otherwise="gnorm"))


def _clipped(log: TrainingLog) -> list[Curve]:
    return list(_training(log, "_clip", otherwise="clip"))


def _learning_rate(log: TrainingLog) -> list[Curve]:
    series = log.steps.get("lr") or log.epochs.get("lr")
    return [Curve("Learning rate", series)] if series else []


# the loss of a choice of the right pair, as of image retrieval
_CHOICES = {"MATCHING": "bits per choice"}

PANELS = (
    Panel("Training loss", "bits per token", _training_words, units=_CHOICES),
    Panel("Validation loss", "bits per token", _validation_words, units=_CHOICES),
    Panel("Training error of regions", "squared, mean over dimensions", _training_regions),
    Panel("Validation error of regions", "squared, mean over dimensions", _validation_regions),
    Panel("Validation scores", "× 100", _scores, best=True, units={"Right pairs": "%"}),
    Panel("Learning rate", "", _learning_rate),
    Panel("Gradient norm", "before clipping", _gradient_norms),
    Panel("Clipped updates", "%", _clipped),
)


def _training(log: TrainingLog, suffix: str, otherwise: str = "") -> Iterator[Curve]:
    """Curves from the lines within epochs or, if a run is too short to have any, from the means of its epochs."""
    for what, series in _by_objective(log.steps if any(log.steps.values()) else log.epochs, suffix, otherwise):
        yield Curve(what, series)


def _validation(log: TrainingLog, suffix: str, otherwise: str = "") -> Iterator[Curve]:
    for subset, values in log.valid.items():
        for what, series in _by_objective(values, suffix, otherwise):
            yield Curve(what, series, subset)


def _by_objective(values: Mapping[str, Series], suffix: str, otherwise: str) -> Iterator[tuple[str, Series]]:
    """The values with names in *suffix*, by objective; if there are none (other criteria), those named *otherwise*."""
    found = {
        name.removesuffix(suffix).upper(): series
        for name, series in values.items()
        # fairseq also logs the best value so far of --best-checkpoint-metric
        if name.endswith(suffix) and not name.startswith("best_")
    }
    if not found and otherwise in values:
        found = {otherwise: values[otherwise]}
    yield from ((what, series) for what, series in found.items() if series)
