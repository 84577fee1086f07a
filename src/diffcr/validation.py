"""Checks of settings: of one value, and of all fields of a dataclass by their annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import inf
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from diffcr.errors import DiffCRError


@dataclass(frozen=True)
class Allowed:
    """What a field's `Annotated` says of its values beside their type; None is always allowed.

    Attributes:
        wanted: Which are allowed, in words that go on "give ...".
        holds: Whether a value is one of them.
    """

    wanted: str
    holds: Callable[[Any], bool]

    def check(self, name: str, value: object) -> None:
        """Raises DiffCRError where `value` is not allowed."""
        if value is not None and not self.holds(value):
            raise DiffCRError(f"{name} is {value!r}: give {self.wanted}")


AT_LEAST_0 = Allowed("0 or more", lambda value: value >= 0)
AT_LEAST_1 = Allowed("1 or more", lambda value: value >= 1)
_LARGEST = 10**9
Count = Annotated[int, Allowed("1 or more, up to 10^9", lambda value: 1 <= value <= _LARGEST)]
NotNegative = Annotated[
    float, Allowed("0 or more, up to 10^9", lambda value: 0 <= value <= _LARGEST)
]
Share = Annotated[float, Allowed("a value in [0, 1]", lambda value: 0 <= value <= 1)]
NotZeroShare = Annotated[float, Allowed("a value in (0, 1]", lambda value: 0 < value <= 1)]


def between(least: float, most: float) -> Allowed:
    """Numbers from `least` to `most`, both among them."""
    wanted = f"a value from {least:g} to {most:g}"
    return Allowed(wanted, lambda value: least <= value <= most)


def check_fields(settings: Any, where: str = "") -> None:
    """Hold the fields of a dataclass against their annotations: type, `Literal` and `Allowed`.

    Args:
        settings: An instance.
        where: What stands before the fields' names in errors.

    Raises:
        DiffCRError: A value is of another type, infinite, no number, or not allowed.
    """
    annotations = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        annotation, value = annotations[field.name], getattr(settings, field.name)
        name = where + field.name
        if get_origin(annotation) is Literal:
            choices = get_args(annotation)
            _require(value in choices, name, value, " or ".join(map(repr, choices)))
            continue
        kind, *restrictions = (
            get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
        )
        parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        kinds = tuple(get_origin(part) or part for part in parts)
        _require(_is_of(value, kinds), name, value, " or ".join(k.__name__ for k in kinds))
        for allowed in restrictions:
            allowed.check(name, value)


def _is_of(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int | float) and float in kinds:
        # Not isfinite, which an integer beyond all floats breaks.
        return abs(value) < inf
    return isinstance(value, kinds)


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise DiffCRError(f"{name} is {value!r}: give {wanted}")


def refuse_unknown_key(key: object, known: Iterable[str], where: str = "") -> None:
    """Raises DiffCRError where a key is none of the known ones, with the one that was meant or, if
    none is near, all of them; `where` stands in front of keys."""
    names = list(known)
    if key in names:
        return
    near = get_close_matches(str(key), names, n=1)
    hint = f"; did you mean {where + near[0]!r}?" if near else f": known are {', '.join(names)}"
    raise DiffCRError(f"unknown key {where + str(key)!r}{hint}")


def require_integer(name: str, value: object, least: int) -> None:
    """Raises DiffCRError where `value` is no integer, or less than `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DiffCRError(f"{name} is {value!r}: give an integer")
    _require(value >= least, name, value, f"{least} or more")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises DiffCRError where `value` is none of the choices."""
    if value not in choices:
        raise DiffCRError(f"{name} is {value!r}: choose from {', '.join(choices)}")
