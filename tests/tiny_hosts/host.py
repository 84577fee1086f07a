"""What a tiny host is, and what its makers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

HEADS = 4
LEVEL = 0.6  # noise level of all inputs

Inputs = dict[str, Any]
MakeInputs = Callable[[int, int], Inputs]
WithTimesteps = Callable[[Inputs, list[float]], Inputs]


@dataclass(frozen=True)
class TinyHost:
    """A tiny random transformer of a published class, and inputs for it.

    transformer_class: dotted path, f"{cls.__module__}.{cls.__qualname__}".
    make: the transformer, float32, in eval mode, the same at each call; no parameter is constant.
    inputs: (batch, seed) -> keyword arguments of forward as the pipeline passes them, all samples
        at noise level 0.6. Samples differ, and a sample is the same in a batch of any size.
    tokens: image rows of a sample that blocks see, reference images included, padding not.
    with_timesteps: (inputs, levels) -> the inputs at other noise levels, one in [0, 1] a sample,
        0 is clean.
    variant: which of the class's configurations or calls it is; "" is text to image or video.
    batch_error: relative difference that the bare class makes between a sample alone and the same
        in a batch, at most, by the order of its sums.
    """

    transformer_class: str
    make: Callable[[], nn.Module]
    inputs: MakeInputs
    tokens: int
    with_timesteps: WithTimesteps
    variant: str = ""
    batch_error: float = 1e-5

    @property
    def name(self) -> str:
        """The class's name, and the variant behind a dash."""
        return "-".join(filter(None, (self.transformer_class.rpartition(".")[2], self.variant)))


def seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """`build` with weights of one seed; what it leaves constant is moved by small normals."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            transformer = build().eval()
            for parameter in transformer.parameters():
                if parameter.min() == parameter.max():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
            for module in transformer.modules():
                if isinstance(module, nn.Linear):
                    # Default weights shrink what passes them by this, until text is invisible.
                    module.weight.mul_(3**0.5)
        return transformer

    return make


def class_path(cls: type[nn.Module]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def tiny_host(
    cls: type[nn.Module],
    build: Callable[[], nn.Module],
    inputs: MakeInputs,
    tokens: int,
    with_timesteps: WithTimesteps,
    variant: str = "",
    batch_error: float = TinyHost.batch_error,
) -> TinyHost:
    """A host of a class whose configuration `build` knows; it need not seed."""
    return TinyHost(
        class_path(cls), seeded(build), inputs, tokens, with_timesteps, variant, batch_error
    )


class Draws:
    """Standard normals, a generator a sample."""

    def __init__(self, batch: int, seed: int):
        self.generators = [torch.Generator().manual_seed(1000 * seed + i) for i in range(batch)]

    def normal(self, *shape: int) -> Tensor:
        """[B, *shape]."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators])


def ragged_mask(batch: int, rows: int) -> Tensor:
    """Bool [B, rows], True first: rows - 1 of the first sample, then rows - 2, rows - 3, again."""
    lengths = rows - 1 - torch.arange(batch) % 3
    return torch.arange(rows) < lengths[:, None]


def linear_timesteps(
    noisy: float, clean: float = 0.0, argument: str = "timestep", dtype: torch.dtype = torch.float32
) -> WithTimesteps:
    """`with_timesteps` of a class whose `argument`, [B], goes from `clean` to `noisy`."""

    def at(given: Inputs, levels: list[float]) -> Inputs:
        values = clean + (noisy - clean) * torch.tensor(levels)
        return {
            **given,
            argument: (values if dtype.is_floating_point else values.round()).to(dtype),
        }

    return at
