"""cache-dit beside routing: switched on before DiffCR is attached it leaves out layers of the
routed model. Run where cache-dit is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import diffcr
from diffcr.binding.attachment import attach
from diffcr.methods.diffcr.config import MoDConfig
from tests.hosts import scramble_routers
from tests.pipelines import final_latents, tiny_pixart_pipeline

cache_dit = pytest.importorskip("cache_dit")


def _cached(pipe: Any, threshold: float) -> Any:
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        residual_diff_threshold=threshold,
        max_warmup_steps=1,
    )
    return cache_dit.enable_cache(pipe, cache_config=config)


def _routed(pipe: Any) -> Any:
    scramble_routers(attach(pipe, MoDConfig(0.5)))
    return pipe


def test_cache_dit_switched_on_first_leaves_out_layers_of_the_routed_model() -> None:
    dense = final_latents(tiny_pixart_pipeline(), 4)
    routed = final_latents(_routed(tiny_pixart_pipeline()), 4)
    pipe = tiny_pixart_pipeline()
    _cached(pipe, threshold=10.0)
    _routed(pipe)
    computed = []
    for block in pipe.transformer.transformer_blocks:
        block.attn1.register_forward_hook(lambda *_: computed.append(1))
    both = final_latents(pipe, 4)
    with_cache = len(computed)
    assert torch.isfinite(both).all() and not torch.equal(both, routed)
    cache_dit.disable_cache(pipe)
    assert torch.equal(final_latents(pipe, 4), routed)
    assert 0 < with_cache < len(computed) - with_cache
    diffcr.detach(pipe, restore=True)
    assert torch.equal(final_latents(pipe, 4), dense)


def test_cache_dit_that_changes_nothing_changes_nothing_of_the_routed_model() -> None:
    pipe = tiny_pixart_pipeline()
    _cached(pipe, threshold=0.0)
    _routed(pipe)
    assert torch.equal(final_latents(pipe, 4), final_latents(_routed(tiny_pixart_pipeline()), 4))


def test_after_attach_cache_dit_refuses_the_blocks() -> None:
    with pytest.raises(AssertionError, match="No block forward pattern matched"):
        _cached(_routed(tiny_pixart_pipeline()), threshold=0.1)
