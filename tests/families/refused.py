"""What a family does not do, and the words with which it says so."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class Refusal:
    """An expected `DiffCRError`.

    feature: key of `features.FEATURES`.
    hosts: pattern of tiny hosts' names.
    message: part of the error's text.
    """

    feature: str
    hosts: str
    message: str


REFUSED: tuple[Refusal, ...] = (
    Refusal("token merging", "FluxTransformer2DModel*", "does not say where its tokens lie"),
)


def refusal(feature: str, host: str) -> Refusal | None:
    """What is expected of a host; None where the feature works."""
    for expected in REFUSED:
        if expected.feature == feature and fnmatch(host, expected.hosts):
            return expected
    return None
