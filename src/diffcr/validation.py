"""Checks that the configurations of all methods share."""

from __future__ import annotations

from diffcr.errors import DiffCRError


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raises DiffCRError where the condition does not hold; `wanted` says what to give."""
    if not condition:
        raise DiffCRError(f"{name} is {value!r}: give {wanted}")


def require_number(name: str, value: object) -> None:
    """Raises DiffCRError where `value` is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DiffCRError(f"{name} is {value!r}: give a number")


def require_integer(name: str, value: object, least: int) -> None:
    """Raises DiffCRError where `value` is no integer, or less than `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DiffCRError(f"{name} is {value!r}: give an integer")
    if value < least:
        raise DiffCRError(f"{name} is {value}: give {least} or more")


def require_between(name: str, value: object, least: float, most: float) -> None:
    """Raises DiffCRError where `value` is no number in [least, most]."""
    require_number(name, value)
    assert isinstance(value, int | float)
    if not least <= value <= most:
        raise DiffCRError(f"{name} is {value}: give a value from {least:g} to {most:g}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises DiffCRError where `value` is none of the choices."""
    if value not in choices:
        raise DiffCRError(f"{name} is {value!r}: choose from {', '.join(choices)}")
