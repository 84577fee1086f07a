"""What of a sampling run a step cache lets a model compute: counted, for what is skipped depends on
the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from diffcr.errors import DiffCRError
from diffcr.hosts.host import host_blocks


@dataclass(frozen=True)
class ComputedShare:
    """Calls that parts of blocks got, as a share of those that they get without a cache.

    Attributes:
        steps: Calls of the transformer.
        per_layer: Of each layer, mean over its parts, [L] in [0, 1].
        per_part: Of a part of the blocks, mean over the layers that have it, by the name of its
            first layer.
    """

    steps: int
    per_layer: Sequence[float]
    per_part: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Over the layers."""
        return sum(self.per_layer) / len(self.per_layer)

    @property
    def skips_layers(self) -> bool:
        """Whether layers are skipped as a whole: all parts got as many calls."""
        return len({*self.per_part.values()}) == 1

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name."""
        return {**asdict(self), "mean": self.mean}


class ComputedParts:
    """Counts calls of the blocks' parts within `counting_parts`."""

    def __init__(self) -> None:
        self.steps = 0
        self.calls: list[dict[str, int]] = []

    def share(self) -> ComputedShare:
        """Of what was counted.

        Raises:
            DiffCRError: The transformer was not called.
        """
        if not self.steps:
            raise DiffCRError(
                "the transformer was not called: run the pipeline while it is counted"
            )
        per_layer = [sum(c.values()) / (len(c) * self.steps) for c in self.calls]
        names = {name: None for calls in self.calls for name in calls}
        per_part = {}
        for name in names:
            having = [calls[name] for calls in self.calls if name in calls]
            per_part[name] = sum(having) / (len(having) * self.steps)
        return ComputedShare(self.steps, per_layer, per_part)


@contextmanager
def counting_parts(transformer: nn.Module) -> Iterator[ComputedParts]:
    """Within the context, calls of the transformer are counted, and those of each of its blocks'
    parts."""
    counted = ComputedParts()

    def count_step(*_: Any) -> None:
        counted.steps += 1

    handles = [transformer.register_forward_pre_hook(count_step)]
    for block in host_blocks(transformer):
        layers = block.layout.first_layers(block.module)
        calls = dict.fromkeys(layers, 0)
        counted.calls.append(calls)
        handles += [
            layer.register_forward_pre_hook(_counter(calls, name)) for name, layer in layers.items()
        ]
    try:
        yield counted
    finally:
        for handle in handles:
            handle.remove()


def _counter(calls: dict[str, int], name: str) -> Callable[..., None]:
    def count(*_: Any) -> None:
        calls[name] += 1

    return count
