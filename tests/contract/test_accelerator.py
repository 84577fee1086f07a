"""What only accelerators do, on a device that is one by name: ratios are read with the timestep, in
one wait, and never where no call waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import denoise, inputs, scramble, trained_pixart

_waits: list[int] = []


class _Elsewhere(Tensor):
    """A tensor that says it is on an accelerator; reading its values waits."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")

    def tolist(self) -> Any:
        _waits.append(self.numel())
        return self.as_subclass(Tensor).tolist()


def _arrive(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """After DiffCR's own hook: the host computes on the CPU."""
    return args, {**kwargs, "timestep": kwargs["timestep"].as_subclass(Tensor)}


def _on_accelerator(regions: int = 4) -> PixArtTransformer2DModel:
    transformer = trained_pixart(DiffCRConfig(timestep_regions=regions))
    compressor = transformer.diffcr
    compressor.ratios = nn.Parameter(compressor.ratios.detach().as_subclass(_Elsewhere))
    transformer.register_forward_pre_hook(_arrive, with_kwargs=True)
    return transformer


def _call(transformer: PixArtTransformer2DModel, *timesteps: int) -> Tensor:
    given = inputs().at(torch.tensor(timesteps).as_subclass(_Elsewhere))
    with torch.no_grad():
        return denoise(transformer, given)


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    _waits.clear()
    yield
    _waits.clear()


@pytest.mark.parametrize("timesteps", [(600, 600), (100, 900)])
def test_a_call_waits_once_for_timesteps_and_ratios(timesteps: tuple[int, int]) -> None:
    transformer, plain = _on_accelerator(), trained_pixart()
    expected = denoise(plain, inputs().at(torch.tensor(timesteps)))
    assert torch.equal(_call(transformer, *timesteps), expected)
    assert _waits == [2 + 12]
    assert torch.equal(_call(transformer, *timesteps), expected)
    assert _waits == [2 + 12] * 2


def test_ratios_that_changed_without_a_trace_are_used_by_the_next_call() -> None:
    transformer, plain = _on_accelerator(), trained_pixart()
    before = _call(transformer, 600, 600)
    scramble(plain.diffcr, seed=7)
    for name, router in plain.diffcr.routers.items():
        transformer.diffcr.routers[name].data.copy_(router)
    version = transformer.diffcr.ratios._version
    # As an average of weights writes them: no version counts it.
    transformer.diffcr.ratios.data.copy_(plain.diffcr.ratios)
    assert transformer.diffcr.ratios._version == version
    expected = denoise(plain, inputs())
    assert not torch.equal(expected, before)
    assert torch.equal(_call(transformer, 600, 600), expected)


def _run(transformer: PixArtTransformer2DModel, timesteps: Tensor) -> list[Tensor]:
    """As pipelines call a transformer: with views of one tensor."""
    with torch.no_grad():
        return [denoise(transformer, inputs().at(t.expand(2))) for t in timesteps]


def test_a_sampling_run_waits_in_its_first_call_alone() -> None:
    transformer, plain = _on_accelerator(), trained_pixart()
    schedule = torch.tensor([900, 600, 400, 100])
    expected = _run(plain, schedule)
    for run in (1, 2):
        found = _run(transformer, schedule.clone().as_subclass(_Elsewhere))
        assert all(map(torch.equal, found, expected))
        assert _waits == [4 + 12] * run


@pytest.mark.parametrize("samples", [1, 2])
def test_a_buffer_that_is_filled_anew_is_read_anew(samples: int) -> None:
    transformer, plain = _on_accelerator(), trained_pixart()
    buffer = torch.zeros(samples)
    for timestep in (900.0, 100.0):
        # As a collective writes: no version counts it.
        buffer.data.fill_(timestep)
        given = inputs(samples)
        with torch.no_grad():
            found = denoise(transformer, given.at(buffer.as_subclass(_Elsewhere)))
            assert torch.equal(found, denoise(plain, given.at(buffer.clone())))


def test_a_level_that_is_called_again_is_read_with_the_ratios() -> None:
    transformer, plain = _on_accelerator(), trained_pixart()
    (before,) = _run(transformer, torch.tensor([600, 300]).as_subclass(_Elsewhere)[:1])
    schedule = torch.tensor([600, 300]).as_subclass(_Elsewhere)
    for ratio in (0.2, 0.7):
        for model in (transformer, plain):
            model.diffcr.ratios.data.fill_(ratio)
        (found,) = _run(transformer, schedule[:1])
        assert torch.equal(found, _run(plain, torch.tensor([600]))[0])
        assert not torch.equal(found, before)


def test_a_schedule_that_begins_anew_or_was_changed_is_read_with_the_ratios() -> None:
    transformer, plain = _on_accelerator(), trained_pixart()
    schedule = torch.tensor([900, 100]).as_subclass(_Elsewhere)
    first = _run(transformer, schedule)
    transformer.diffcr.ratios.data.fill_(0.7)
    plain.diffcr.ratios.data.fill_(0.7)
    again = _run(transformer, schedule)
    assert not torch.equal(again[0], first[0])
    assert all(map(torch.equal, again, _run(plain, torch.tensor([900, 100]))))
    assert _waits == [2 + 12] * 2
    with torch.no_grad():
        schedule.copy_(torch.tensor([300, 50]))
    changed = _run(transformer, schedule)
    assert all(map(torch.equal, changed, _run(plain, torch.tensor([300, 50]))))
    assert _waits == [2 + 12] * 3


def test_timesteps_in_a_large_tensor_are_read_by_themselves() -> None:
    transformer = _on_accelerator()
    many = torch.full((5000,), 600).as_subclass(_Elsewhere)
    expected = _call(transformer, 600, 600)
    with torch.no_grad():
        assert torch.equal(denoise(transformer, inputs().at(many[4000:4002])), expected)
    assert _waits == [2 + 12] * 2


def test_no_call_waits_inside_of_a_region_that_was_given() -> None:
    transformer = _on_accelerator()
    expected = _call(transformer, 600, 600)
    _waits.clear()
    with transformer.diffcr.in_region(2):
        assert torch.equal(_call(transformer, 600, 600), expected)
    assert not _waits


def test_with_one_region_ratios_are_read_after_a_change_of_mode_alone() -> None:
    transformer = _on_accelerator(regions=1)
    before = _call(transformer, 600, 600)
    assert _waits == [3]
    with torch.no_grad():
        transformer.diffcr.ratios.data.fill_(0.7)
    assert torch.equal(_call(transformer, 600, 600), before) and _waits == [3]
    transformer.eval()
    after = _call(transformer, 600, 600)
    assert not torch.equal(after, before) and _waits == [3, 3]
    with torch.no_grad():
        transformer.diffcr.ratios.fill_(0.2)
    assert not torch.equal(_call(transformer, 600, 600), after) and _waits == [3, 3, 3]
    transformer.diffcr.ratios.data.fill_(0.9)
    assert transformer.diffcr.compression_ratios.eq(torch.tensor(0.9)).all()
