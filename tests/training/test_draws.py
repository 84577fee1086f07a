"""Draws are functions of seed and step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffcr.core.regions import region_of, region_timesteps
from diffcr.training.data.order import GroupedItems, ShuffledItems
from diffcr.training.draws import Draws

DRAWS = Draws(3, ShuffledItems(3, 10, (2, 4, 4)), 4, 2, 4, 0.25)


def test_a_draw_depends_on_seed_step_and_micro_batch_alone() -> None:
    again = DRAWS.micro_batch(5, 1)
    DRAWS.micro_batch(6, 0)
    same = DRAWS.micro_batch(5, 1)
    assert torch.equal(again.noise, same.noise)
    assert torch.equal(again.indices, same.indices)
    for other in (
        DRAWS.micro_batch(5, 0),
        DRAWS.micro_batch(6, 1),
        replace(DRAWS, seed=4, order=ShuffledItems(4, 10, (2, 4, 4))).micro_batch(5, 1),
    ):
        assert not torch.equal(again.noise, other.noise)
        assert again.branch_seed != other.branch_seed


def test_an_epoch_holds_every_item_once() -> None:
    seen = [int(i) for step in range(5) for m in (0, 1) for i in DRAWS.micro_batch(step, m).indices]
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]


def test_a_micro_batch_lies_in_its_region() -> None:
    regions = set()
    for step in range(60):
        draw = DRAWS.micro_batch(step, 0)
        regions.add(draw.region)
        assert {region_of(int(t) / 1000, 4) for t in draw.timesteps} == {draw.region}
    assert regions == {0, 1, 2, 3}


@pytest.mark.parametrize(("accumulation", "regions"), [(4, 4), (8, 4), (1, 4), (3, 10)])
def test_every_turn_of_micro_batches_meets_every_region_once(
    accumulation: int, regions: int
) -> None:
    draws = Draws(0, ShuffledItems(0, 100, (1, 2, 2)), 2, accumulation, regions, 0.0)
    met = [
        draws.micro_batch(step, micro).region
        for step in range(6 * regions)
        for micro in range(accumulation)
    ]
    turns = [tuple(met[start : start + regions]) for start in range(0, len(met), regions)]
    assert all(sorted(turn) == list(range(regions)) for turn in turns)
    assert len(set(turns)) > 1


@pytest.mark.parametrize("regions", [1, 3, 4, 7, 10, 75, 100, 333, 1000])
def test_regions_cover_all_timesteps(regions: int) -> None:
    timesteps = [t for region in range(regions) for t in region_timesteps(region, regions)]
    assert timesteps == list(range(1000))
    for region in range(regions):
        assert all(
            region_of(t / 1000, regions) == region for t in region_timesteps(region, regions)
        )


def test_captions_are_dropped_at_their_rate() -> None:
    dropped = torch.cat([DRAWS.micro_batch(step, 0).drop_caption for step in range(300)])
    assert 0.2 < dropped.float().mean() < 0.3


def test_micro_batches_stay_within_their_groups() -> None:
    groups = (torch.tensor([0, 3, 5]), torch.tensor([1, 2, 4, 6, 7, 8, 9]))
    grouped = replace(DRAWS, order=GroupedItems(groups, (2, 4, 4)))
    draws = [grouped.micro_batch(step, 0) for step in range(200)]
    members = [{int(i) for i in group} for group in groups]
    chosen = [next(g for g in (0, 1) if set(d.indices.tolist()) <= members[g]) for d in draws]
    assert 0.2 < 1 - sum(chosen) / len(chosen) < 0.4
    assert {i for draw in draws for i in draw.indices.tolist()} == set(range(10))
    assert torch.equal(grouped.micro_batch(3, 0).indices, draws[3].indices)


def test_processes_share_a_micro_batch_out_between_them() -> None:
    whole = replace(DRAWS, micro_batch_size=6).micro_batch(2, 0)
    for processes in (1, 2, 3):
        parts = [whole.of_process(process, processes) for process in range(processes)]
        for name in ("indices", "timesteps", "noise", "drop_caption"):
            together = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(together, getattr(whole, name)), name
