"""Validation of settings. Each error message contains the rejected value."""

from collections.abc import Sequence


def check_positive(**values: float) -> None:
    """Raise a ValueError if a value is 0 or below."""
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def check_not_negative(**values: float) -> None:
    """Raise a ValueError if a value is below 0."""
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be below 0, got {value}")


def check_choices(**values: tuple[str, Sequence[str]]) -> None:
    """Raise a ValueError if a value is not among its choices."""
    for name, (value, choices) in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
