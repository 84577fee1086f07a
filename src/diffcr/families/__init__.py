"""One adapter per model family, found by the transformer's exact class."""

from __future__ import annotations

from torch import nn

from diffcr.errors import DiffCRError
from diffcr.families.family import Family
from diffcr.families.pixart import PIXART

FAMILIES: tuple[Family, ...] = (PIXART,)


def class_path(model: object) -> str:
    """Module and name of an object's class."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def family_of(transformer: nn.Module) -> Family:
    """The adapter of a transformer.

    Raises:
        DiffCRError: Its class is not supported.
    """
    path = class_path(transformer)
    for family in FAMILIES:
        if family.transformer_class == path:
            return family
    raise DiffCRError(
        f"{type(transformer).__name__} is not a supported model class: "
        f"supported are {', '.join(supported_models())}"
    )


def supported_models() -> list[str]:
    """Names of the transformer classes that `attach` accepts."""
    return [family.transformer_class.rsplit(".", 1)[1] for family in FAMILIES]
