"""What the contract tests take for granted of a tiny host."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny_hosts import TINY_HOSTS
from tests.tiny_hosts.host import TinyHost, class_path

BATCH = 2

pytestmark = pytest.mark.parametrize("host", TINY_HOSTS.values(), ids=TINY_HOSTS.keys())


@cache
def transformer_of(host: TinyHost) -> nn.Module:
    return host.make()


@torch.no_grad()
def denoise(host: TinyHost, given: dict[str, Any]) -> list[Tensor]:
    """What is predicted of the image or video, a tensor a sample."""
    # Copied, because forwards change dicts that they are given.
    return list(transformer_of(host)(**deepcopy(given))[0])


def floats(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Floating-point tensors of inputs with their places; of a list the first sample's."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from floats(item, f"{path}[{key}]")
    elif isinstance(value, (list, tuple)) and value:
        yield from floats(value[0], f"{path}[0]")


def relative_change(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / first.norm())


def test_class_and_weights(host: TinyHost) -> None:
    transformer, again = host.make(), host.make()
    assert class_path(type(transformer)) == host.transformer_class
    assert not transformer.training
    same = again.state_dict()
    for name, weight in transformer.state_dict().items():
        assert weight.equal(same[name]), name
    for name, parameter in transformer.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.numel() == 1 or parameter.std() > 0, name


def test_seeding_leaves_the_global_generator_alone(host: TinyHost) -> None:
    before = torch.get_rng_state()
    host.make()
    host.inputs(BATCH, 0)
    assert torch.get_rng_state().equal(before)


def test_outputs_are_finite_and_the_same_again_and_differ_by_sample(host: TinyHost) -> None:
    first, second = denoise(host, host.inputs(BATCH, 0))
    assert first.isfinite().all() and second.isfinite().all()
    assert relative_change(first, second) > 0.01
    for output, again in zip((first, second), denoise(host, host.inputs(BATCH, 0)), strict=True):
        assert output.equal(again)
    assert relative_change(first, denoise(host, host.inputs(BATCH, 1))[0]) > 0.01


def test_a_sample_does_not_depend_on_its_batch(host: TinyHost) -> None:
    (alone,) = denoise(host, host.inputs(1, 0))
    assert relative_change(alone, denoise(host, host.inputs(3, 0))[0]) < 1e-5


def test_every_input_counts(host: TinyHost) -> None:
    given = host.inputs(BATCH, 0)
    output = denoise(host, given)[0]
    for path, _ in floats(given):
        changed = deepcopy(given)
        leaf = dict(floats(changed))[path]
        # Not a constant added, which layer norms take away.
        place = (0,) * min(leaf.ndim, 2)
        leaf[place] = 1 - 2 * leaf[place]
        assert relative_change(output, denoise(host, changed)[0]) > 1e-4, path


def test_timesteps_count_by_sample(host: TinyHost) -> None:
    if host.with_timesteps is None:
        pytest.skip("one timestep for all samples")
    given = host.inputs(BATCH, 0)
    both = denoise(host, given)
    for output, same in zip(
        both, denoise(host, host.with_timesteps(given, [0.6, 0.6])), strict=True
    ):
        assert relative_change(output, same) < 1e-5
    one = denoise(host, host.with_timesteps(given, [0.6, 0.2]))
    assert relative_change(both[0], one[0]) < 1e-5
    assert relative_change(both[1], one[1]) > 1e-3
