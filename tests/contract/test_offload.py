"""Routers and ratios are where a call computes, whatever moves the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup

import diffcr
from diffcr.errors import DiffCRError
from diffcr.hosts.grid import Grid
from diffcr.methods.base import TransformerCall
from tests.hosts import Inputs, denoise, inputs, pixart, trained_pixart

LEVELS = [("block_level", {"num_blocks_per_group": 1}), ("leaf_level", {})]
each_level = pytest.mark.parametrize(("level", "options"), LEVELS, ids=[name for name, _ in LEVELS])


def _offload(transformer: Any, onload: str, level: str, **options: Any) -> None:
    transformer.enable_group_offload(
        torch.device(onload), torch.device("cpu"), offload_type=level, **options
    )


@each_level
def test_group_offload_changes_nothing(level: str, options: dict[str, Any], tmp_path: Path) -> None:
    transformer = trained_pixart()
    expected = denoise(transformer, inputs())
    _offload(transformer, "cpu", level, **options)
    assert torch.equal(denoise(transformer, inputs()), expected)
    reloaded = pixart()
    diffcr.load(reloaded, diffcr.save(transformer, tmp_path / "saved"))
    assert torch.equal(denoise(reloaded, inputs()), expected)


@each_level
def test_groups_bring_routers_and_ratios_in(
    level: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer = trained_pixart()
    _offload(transformer, "cpu", level, **options)
    brought: set[int] = set()
    onload = ModuleGroup.onload_

    def recorded(group: ModuleGroup) -> None:
        modules = (p for module in group.modules for p in module.parameters())
        brought.update(id(p) for p in (*group.parameters, *modules))
        onload(group)

    monkeypatch.setattr(ModuleGroup, "onload_", recorded)
    denoise(transformer, inputs())
    assert [n for n, p in transformer.named_parameters() if id(p) not in brought] == []


def test_indices_are_where_a_call_computes() -> None:
    """The device meta stands for a GPU, and ratios that are offloaded are on the CPU."""
    compressor = diffcr.attach(pixart(), diffcr.DiffCRConfig(timestep_regions=2))
    context = compressor.build_context(
        TransformerCall([0.1, 0.9], Grid(8, 8), torch.device("meta"))
    )
    assert compressor.ratios.device.type == "cpu"
    samples = [region.samples for region in context.regions]
    assert all(t.device.type == "meta" for t in (*samples, context.scattered))
    assert len(samples) == 2


@pytest.mark.gpu
@each_level
@pytest.mark.parametrize("streams", [False, True])
def test_group_offload_to_a_gpu(level: str, options: dict[str, Any], streams: bool) -> None:
    transformer, offloaded = trained_pixart().to("cuda"), trained_pixart()
    on_cpu = inputs()
    given = Inputs(*(v.cuda() for v in (on_cpu.latents, on_cpu.prompt_embeds, on_cpu.timesteps)))
    _offload(offloaded, "cuda", level, use_stream=streams, **options)
    with torch.no_grad():
        expected = denoise(transformer, given)
        for _ in range(3):
            assert torch.equal(denoise(offloaded, given), expected)


@each_level
def test_offload_to_the_disk_is_refused(
    level: str, options: dict[str, Any], tmp_path: Path
) -> None:
    transformer = trained_pixart()
    _offload(transformer, "cpu", level, offload_to_disk_path=str(tmp_path / "groups"), **options)
    with pytest.raises(DiffCRError, match="offload_to_disk_path.*offload to the CPU"):
        denoise(transformer, inputs())
    with pytest.raises(DiffCRError, match="offload_to_disk_path"):
        diffcr.save(transformer, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
