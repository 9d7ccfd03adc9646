"""The exception for bad input: a sentence for the user that names the file, the value and the rule."""

from __future__ import annotations


class DataError(ValueError):
    """Bad input from the user: a file, an option. The message says what is wrong, where, and what to do."""


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise DataError if *name*, such as `--batch-size`, is below *least*."""
    if value < least:
        raise DataError(f"{name} must be at least {least}, got {value}")


def check_between(name: str, value: float, least: float, most: float) -> None:
    """Raise DataError if *name* is below *least*, above *most*, or no number (NaN)."""
    if not least <= value <= most:
        raise DataError(f"{name} must be {least} to {most}, got {value}")
