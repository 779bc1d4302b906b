"""Refusing settings that are out of their range, with the value that was given."""

from collections.abc import Sequence


def check_positive(**values: float) -> None:
    """Raise a ValueError unless each value is above 0."""
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def check_not_negative(**values: float) -> None:
    """Raise a ValueError if a value is below 0."""
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be below 0, got {value}")


def check_choices(**values: tuple[str, Sequence[str]]) -> None:
    """Raise a ValueError unless each value is one of its choices."""
    for name, (value, choices) in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
