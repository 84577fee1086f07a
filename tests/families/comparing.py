"""Outputs of a host, and whether two are the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import diffcr
from tests.tiny_hosts.host import TinyHost


def tensors(output: Any) -> list[Tensor]:
    """All tensors of a transformer's output: text and audio, too."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in tensors(part)]
    assert output is None, type(output)
    return []


@torch.no_grad()
def forward(transformer: nn.Module, inputs: dict[str, Any]) -> list[Tensor]:
    return tensors(transformer(**inputs))


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def assert_close(found: list[Tensor], expected: list[Tensor], relative: float) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        assert (one - other).norm() <= relative * other.norm(), float(
            (one - other).norm() / other.norm()
        )


def routed(host: TinyHost, ratio: float = 0.5, seed: int = 3, **config: Any) -> nn.Module:
    """The host with DiffCR at a ratio, routers at random."""
    transformer = host.make()
    compressor = diffcr.attach(
        transformer, diffcr.DiffCRConfig(**{"timestep_regions": 1, **config})
    )
    compressor.set_compression_ratios(ratio)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for router in compressor.routers.values():
            router.copy_(torch.randn(router.shape, generator=generator) / router.shape[-1] ** 0.5)
    return transformer
