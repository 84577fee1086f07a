"""What the configurations of all methods have in common, and the one of no method."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from diffcr.validation import check_fields


@dataclass(frozen=True)
class MethodConfig:
    """Settings of one method: held to its fields' annotations when made, JSON in, JSON out.

    Attributes:
        method: Name in recipes, checkpoints and on the command line.
        trainable: Whether a training run can be of this method.

    Raises:
        DiffCRError: A value is not of its type or outside its range.
    """

    method: ClassVar[str]
    trainable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)

    def to_json_dict(self) -> dict[str, Any]:
        """A JSON object whose key `method` names the class."""
        return {"method": self.method, **asdict(self)}


@dataclass(frozen=True)
class DenseConfig(MethodConfig):
    """The bare model, through the same calls as every other method: the oracle of comparisons."""

    method: ClassVar[str] = "dense"
