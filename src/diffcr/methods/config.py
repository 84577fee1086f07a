"""What the configurations of all methods have in common, and the one of no method."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class MethodConfig:
    """Settings of one method: validated when made, JSON in, JSON out.

    Attributes:
        method: Name in recipes, checkpoints and on the command line.
        trainable: Whether a training run can be of this method.
    """

    method: ClassVar[str]
    trainable: ClassVar[bool] = True

    def to_json_dict(self) -> dict[str, Any]:
        """A JSON object whose key `method` names the class."""
        return {"method": self.method, **asdict(self)}


@dataclass(frozen=True)
class DenseConfig(MethodConfig):
    """The bare model, through the same calls as every other method: the oracle of comparisons."""

    method: ClassVar[str] = "dense"
