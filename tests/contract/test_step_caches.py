"""Step caches: they change nothing where they save nothing, keep nothing of another sampling run,
and stand beside the methods that they fit."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import disabled, get_compressor
from diffcr.checkpoint.contenders import parse_contender
from diffcr.errors import DiffCRError
from diffcr.evaluation.computed_share import counting_parts
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.methods.step_caches.config import (
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    StepCacheConfig,
    TaylorSeerConfig,
    TGateConfig,
)
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import denoise, inputs, pixart, scramble
from tests.tiny_hosts import TINY_HOSTS

_LEVELS = (900, 700, 500, 300, 100)
_RATIOS = (1.0, 1.01, 0.99, 1.0, 1.02)
IDLE = (
    FirstBlockCacheConfig(0.0),
    TaylorSeerConfig(1),
    MagCacheConfig(1.0, _RATIOS, dense_share=1.0),
    PyramidAttentionBroadcastConfig(1, 1),
    TGateConfig(0.0),
)
SAVING = (
    FirstBlockCacheConfig(10.0),
    TaylorSeerConfig(2, dense_steps=1),
    MagCacheConfig(1.0, _RATIOS),
    PyramidAttentionBroadcastConfig(2, 2),
    TGateConfig(0.6),
)
_OF_STEPS = SAVING[:3]


def _name(config: Any) -> str:
    return str(config.method)


@torch.no_grad()
def _run(transformer: nn.Module, seed: int = 1, levels: Sequence[int] = _LEVELS) -> Tensor:
    """What a sampling run of one prompt returns at all of its steps."""
    given = inputs(seed=seed)
    return torch.stack([denoise(transformer, given.at(torch.full((2,), t))) for t in levels])


@pytest.mark.parametrize("config", IDLE, ids=_name)
def test_what_saves_nothing_changes_no_bit(config: StepCacheConfig) -> None:
    transformer = pixart()
    bare = _run(transformer)
    attach(transformer, config)
    assert torch.equal(_run(transformer), bare)


@pytest.mark.parametrize("config", SAVING, ids=_name)
def test_a_cache_saves_forgets_and_comes_off(config: StepCacheConfig) -> None:
    transformer = pixart()
    bare, names = _run(transformer), {*transformer.state_dict()}
    attach(transformer, config)
    with counting_parts(transformer) as counted:
        first = _run(transformer)
    share = counted.share()
    assert share.steps == len(_LEVELS) and 0 < share.mean < 1
    assert share.skips_layers != config.keeps_attention
    assert torch.equal(first[0], bare[0]) and not torch.equal(first, bare)
    _run(transformer, seed=5, levels=(800, 600))
    # Neither another prompt's run that was broken off nor the same prompt's own is found again.
    assert torch.equal(_run(transformer), first)
    assert {*transformer.state_dict()} == names
    with disabled(transformer):
        assert torch.equal(_run(transformer), bare)
    assert torch.equal(_run(transformer), first)
    detach(transformer)
    assert torch.equal(_run(transformer), bare)
    assert not any("forward" in vars(module) for module in transformer.modules())


@pytest.mark.parametrize("config", _OF_STEPS, ids=_name)
@pytest.mark.parametrize("cache_first", [True, False])
def test_beside_routing_at_ratio_0_it_is_the_cache_alone(
    config: StepCacheConfig, cache_first: bool
) -> None:
    transformer, other = pixart(), pixart()
    attach(transformer, config)
    alone = _run(transformer)
    both = (config, DiffCRConfig())
    for method in both if cache_first else both[::-1]:
        attach(other, method)
    assert torch.equal(_run(other), alone)
    compressor = get_compressor(other)
    scramble(compressor)
    with counting_parts(other) as counted:
        routed = _run(other)
    assert counted.share().mean < 1 and not torch.equal(routed, alone)
    detach(other)
    assert torch.equal(_run(other), _run(pixart()))


def test_both_are_saved_and_loaded(tmp_path: Path) -> None:
    transformer, other = pixart(), pixart()
    scramble(attach(transformer, DiffCRConfig()))
    attach(transformer, SAVING[0])
    expected = _run(transformer)
    diffcr.save(transformer, tmp_path / "both")
    diffcr.load(other, tmp_path / "both")
    assert torch.equal(_run(other), expected)
    assert "threshold 10.0" in diffcr.summary(other)
    routed = pixart()
    attach(routed, DiffCRConfig())
    diffcr.load(routed, tmp_path / "both")
    assert torch.equal(_run(routed), expected)


@pytest.mark.parametrize("method", [ToMeConfig(0.5), StructuredPruningConfig(0.5)], ids=_name)
def test_other_methods_go_with_a_cache(method: Any) -> None:
    transformer, other = pixart(), pixart()
    attach(other, method)
    expected = _run(other)
    attach(transformer, method)
    attach(transformer, IDLE[0])
    torch.manual_seed(0)
    found = _run(transformer)
    assert found.shape == expected.shape and torch.equal(found, expected)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (ReuseConfig(0.5), SAVING[0], "reuse is a step cache, too"),
        (SAVING[0], ReuseConfig(0.5), "reuse is a step cache, too"),
        (SAVING[0], SAVING[1], "first-block-cache is a step cache, too"),
        (ATEDMConfig(0.3), SAVING[0], "hand on fewer tokens"),
        (DiffCRConfig(), SAVING[3], "first-block-cache and taylorseer go with it"),
        (SAVING[4], MoDConfig(0.2), "first-block-cache and taylorseer go with it"),
        (ToMeConfig(0.3, "block"), SAVING[3], "other tokens"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(first: Any, second: Any, reason: str) -> None:
    transformer = pixart()
    attach(transformer, first)
    expected = _run(transformer)
    with pytest.raises(DiffCRError, match=reason):
        attach(transformer, second)
    assert torch.equal(_run(transformer), expected)


def test_a_cross_attention_returns_below_the_gate_what_it_returned_above() -> None:
    transformer, oracle = pixart(), pixart()
    attach(transformer, TGateConfig(0.5))
    kept: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return kept.setdefault(module, output)

    for block in oracle.transformer_blocks:
        block.attn2.register_forward_hook(keep)
    assert torch.equal(_run(transformer, levels=(900, 400)), _run(oracle, levels=(900, 400)))


def test_what_a_cache_cannot_do_is_said() -> None:
    transformer = pixart()
    with pytest.raises(DiffCRError, match="measure_mag_ratios"):
        attach(transformer, MagCacheConfig(0.06))
    attach(transformer, SAVING[0])
    with pytest.raises(DiffCRError, match="cannot be copied"):
        deepcopy(transformer)
    with pytest.raises(DiffCRError, match="uncompiled"):
        diffcr.compile(transformer)
    transformer.train()
    with pytest.raises(DiffCRError, match="training mode"):
        _run(transformer)
    sd3 = TINY_HOSTS["SD3Transformer2DModel"].make()
    with pytest.raises(DiffCRError, match="no CacheMixin"):
        attach(sd3, SAVING[0])
    assert not hasattr(sd3, "diffcr")
    kandinsky = TINY_HOSTS["Kandinsky5Transformer3DModel"].make()
    with pytest.raises(DiffCRError, match="looks for hidden_states"):
        attach(kandinsky, SAVING[0])


def test_another_threads_call_is_refused_meanwhile() -> None:
    transformer = pixart()
    attach(transformer, IDLE[0])
    expected, meet, refused = _run(transformer), Barrier(2, timeout=60), []

    def wait_twice(*_: Any) -> None:
        handle.remove()
        meet.wait()
        meet.wait()

    handle = transformer.transformer_blocks[0].attn1.register_forward_pre_hook(wait_twice)

    def call() -> None:
        meet.wait()
        try:
            _run(transformer)
        except DiffCRError as error:
            refused.append(str(error))
        meet.wait()

    thread = Thread(target=call)
    thread.start()
    assert torch.equal(_run(transformer), expected)
    thread.join()
    assert refused and "another thread" in refused[0]


@torch.no_grad()
def _halves(transformer: nn.Module, host: Any, seeds: Sequence[int]) -> dict[int, list[Tensor]]:
    """Runs whose calls alternate, as those of a pipeline that calls guidance's halves apart."""
    given = {seed: host.inputs(1, seed) for seed in seeds}
    returned: dict[int, list[Tensor]] = {seed: [] for seed in seeds}
    for level in (0.9, 0.7, 0.5, 0.3):
        for seed in seeds:
            output = transformer(**host.with_timesteps(given[seed], [level]))
            returned[seed].append(output[0])
    return returned


def test_runs_whose_calls_alternate_keep_apart() -> None:
    host = TINY_HOSTS["WanTransformer3DModel"]
    transformer = host.make()
    attach(transformer, FirstBlockCacheConfig(10.0))
    together = _halves(transformer, host, (1, 2))
    for seed in (1, 2):
        alone = _halves(transformer, host, (seed,))[seed]
        assert all(map(torch.equal, alone, together[seed]))
    with pytest.raises(ValueError, match="already been enabled"):
        transformer.enable_cache(diffcr.FirstBlockCacheConfig())
    detach(transformer)
    attach(transformer, PyramidAttentionBroadcastConfig(2, 1))
    with pytest.raises(DiffCRError, match="each half of guidance apart"):
        _halves(transformer, host, (1, 2))


def test_the_command_line_reads_caches() -> None:
    assert parse_contender("first-block-cache:0.1").config == FirstBlockCacheConfig(0.1)
    assert parse_contender("taylorseer:4").config == TaylorSeerConfig(4)
    with pytest.raises(DiffCRError, match="interval is 2.5"):
        parse_contender("taylorseer:2.5")
