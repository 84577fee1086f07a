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
CATEGORIES = ("[class_labels]", "[input_ids]", "[prior_token_id]")
# The pipeline passes it for LTX-2.3 alone.
WITHOUT_EFFECT = {("LTX2VideoTransformer3DModel", "[sigma]")}

pytestmark = pytest.mark.parametrize("host", TINY_HOSTS.values(), ids=TINY_HOSTS.keys())


@cache
def transformer_of(host: TinyHost) -> nn.Module:
    return host.make()


@torch.no_grad()
def denoise(host: TinyHost, given: dict[str, Any]) -> list[Tensor]:
    """What is predicted of the image or video, a tensor a sample."""
    # Copied, because forwards change dicts that they are given.
    output = transformer_of(host)(**deepcopy(given))
    # Kandinsky returns the tensor alone.
    return list(output if isinstance(output, Tensor) else output[0])


def values(given: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of inputs that are numbers or categories, by place; of a list the first one's."""
    if isinstance(given, Tensor):
        if given.is_floating_point() or path in CATEGORIES:
            yield path, given
    elif isinstance(given, dict):
        for key, item in given.items():
            yield from values(item, f"{path}[{key}]")
    elif isinstance(given, (list, tuple)) and given:
        yield from values(given[0], f"{path}[0]")


def with_other_row(given: dict[str, Any], path: str, row: int) -> dict[str, Any]:
    """Inputs with one row of the first sample changed, or its only value."""
    changed = deepcopy(given)
    tensor = dict(values(changed))[path]
    place = (0, row)[: tensor.ndim]
    if tensor.is_floating_point():
        # Not a constant added, which layer norms take away.
        tensor[place] = 1 - 2 * tensor[place]
    else:
        tensor[place] = (tensor[place] + 1) % 8
    return changed


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
    assert relative_change(alone, denoise(host, host.inputs(3, 0))[0]) < host.batch_error


def test_every_input_counts(host: TinyHost) -> None:
    given = host.inputs(BATCH, 0)
    output = denoise(host, given)[0]
    for path, _ in values(given):
        if (host.transformer_class.rpartition(".")[2], path) in WITHOUT_EFFECT:
            continue
        # Rows of text may have padding first, those of the image text.
        changes = (
            relative_change(output, denoise(host, with_other_row(given, path, row))[0])
            for row in (0, 1, -1)
        )
        assert any(change > 1e-4 for change in changes), path


def test_timesteps_count_by_sample(host: TinyHost) -> None:
    given = host.inputs(BATCH, 0)
    both = denoise(host, given)
    for output, same in zip(
        both, denoise(host, host.with_timesteps(given, [0.6, 0.6])), strict=True
    ):
        assert relative_change(output, same) < host.batch_error
    one = denoise(host, host.with_timesteps(given, [0.6, 0.2]))
    assert relative_change(both[0], one[0]) < host.batch_error
    assert relative_change(both[1], one[1]) > 1e-3
