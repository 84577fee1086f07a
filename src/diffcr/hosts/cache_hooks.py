"""Which hooks each step cache puts on a transformer: those of `diffusers.hooks`, and a gate of
cross-attention, which diffusers has not."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.hooks import (
    FirstBlockCacheConfig,
    HookRegistry,
    MagCacheConfig,
    ModelHook,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
    apply_first_block_cache,
    apply_mag_cache,
    apply_pyramid_attention_broadcast,
    apply_taylorseer_cache,
)
from diffusers.hooks._common import _ALL_TRANSFORMER_BLOCK_IDENTIFIERS
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.hooks.hooks import BaseState, StateManager
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor, nn

from diffcr.errors import DiffCRError
from diffcr.hosts.denoiser_caches import CROSS_ATTENTION_GATE, CacheHooks, DenoiserCaches

# diffusers' caches take timesteps as its schedulers count them.
_TIMESTEPS = 1000
# A first one that decides and a last one whose output is kept.
_FEWEST_BLOCKS = 2


def first_block_cache(threshold: float) -> CacheHooks:
    """First-Block-Cache (ParaAttention): a step whose first block's update changed by less than
    `threshold`, relative to its size, adds what the other blocks added last."""

    def put_on(transformer: nn.Module, caches: DenoiserCaches) -> None:
        _require_known_blocks(transformer, "first-block-cache", "hidden_states")
        apply_first_block_cache(transformer, FirstBlockCacheConfig(threshold))

    return put_on


def mag_cache(
    threshold: float, max_skip_steps: int, retention_ratio: float, mag_ratios: tuple[float, ...]
) -> CacheHooks:
    """MagCache (arXiv 2506.09045): steps are skipped while the error that the measured ratios of
    the updates' sizes predict stays below `threshold`."""

    def put_on(transformer: nn.Module, caches: DenoiserCaches) -> None:
        _require_known_blocks(transformer, "mag-cache")
        ratios = list(mag_ratios)
        config = MagCacheConfig(threshold, max_skip_steps, retention_ratio, len(ratios), ratios)
        apply_mag_cache(transformer, config)

    return put_on


def taylorseer(interval: int, dense_steps: int, order: int) -> CacheHooks:
    """TaylorSeer (arXiv 2503.06923), its variant that forecasts the model's output alone: one step
    of `interval` is computed, the others extrapolate."""

    def put_on(transformer: nn.Module, caches: DenoiserCaches) -> None:
        _require_known_blocks(transformer, "taylorseer")
        dtype = next(transformer.parameters()).dtype
        config = TaylorSeerCacheConfig(
            interval, dense_steps, None, order, dtype, use_lite_mode=True
        )
        apply_taylorseer_cache(transformer, config)

    return put_on


def pyramid_attention_broadcast(
    self_attention: int, cross_attention: int, least_level: float, most_level: float
) -> CacheHooks:
    """Pyramid Attention Broadcast (arXiv 2408.12588): at noise levels between the two an attention
    is computed at one step of so many, 1 for all."""

    def put_on(transformer: nn.Module, caches: DenoiserCaches) -> None:
        levels = (_TIMESTEPS * least_level, _TIMESTEPS * most_level)
        config = PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=self_attention,
            cross_attention_block_skip_range=cross_attention,
            spatial_attention_timestep_skip_range=levels,
            cross_attention_timestep_skip_range=levels,
            current_timestep_callback=lambda: _TIMESTEPS * caches.noise_level,
        )
        apply_pyramid_attention_broadcast(transformer, config)

    return put_on


def cross_attention_gate(gate: float) -> CacheHooks:
    """T-GATE (arXiv 2404.02747), the half of it that any pipeline can be run with: at noise levels
    below `gate` a cross-attention returns what it returned last, for either half of guidance its
    own. The paper averages the halves and goes on without guidance."""

    def put_on(transformer: nn.Module, caches: DenoiserCaches) -> None:
        for module in transformer.modules():
            if isinstance(module, Attention) and module.is_cross_attention:
                registry = HookRegistry.check_if_exists_or_initialize(module)
                hook = _CrossAttentionGate(gate, StateManager(_Kept), caches)
                registry.register_hook(hook, CROSS_ATTENTION_GATE)

    return put_on


class _Kept(BaseState):  # type: ignore[misc]
    """What a cross-attention returned last."""

    def __init__(self) -> None:
        self.output: Tensor | None = None

    def reset(self) -> None:
        self.output = None


class _CrossAttentionGate(ModelHook):  # type: ignore[misc]
    _is_stateful = True

    def __init__(self, gate: float, states: StateManager, caches: DenoiserCaches) -> None:
        super().__init__()
        self.gate = gate
        self.states = states
        self.caches = caches

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Takes the place of the attention's forward."""
        kept: _Kept = self.states.get_state()
        if kept.output is None or self.caches.noise_level >= self.gate:
            kept.output = self.fn_ref.original_forward(*args, **kwargs)
        return kept.output

    def reset_state(self, module: nn.Module) -> nn.Module:
        """As `ModelHook.reset_state`."""
        self.states.reset()
        return module


def _require_known_blocks(
    transformer: nn.Module, name: str, tokens_argument: str | None = None
) -> None:
    """Refuse a model whose blocks diffusers' hooks do not know: it would fail in the first call.

    Args:
        transformer: Bare or attached.
        name: Of the cache.
        tokens_argument: What the hooks take for the name of the blocks' tokens; None where they
            look it up.
    """
    groups = [
        module
        for child, module in transformer.named_children()
        if child in _ALL_TRANSFORMER_BLOCK_IDENTIFIERS and isinstance(module, nn.ModuleList)
    ]
    blocks = [block for group in groups for block in group]
    model = f"{type(transformer).__name__} cannot be run with {name}: diffusers"
    version = diffusers.__version__
    known = isinstance(transformer, CacheMixin) or all(
        isinstance(block, BasicTransformerBlock) for block in blocks
    )
    if len(blocks) < _FEWEST_BLOCKS or not known:
        raise DiffCRError(f"{model} {version} has no cache for its class (no CacheMixin)")
    for block in blocks:
        kind = type(block).__name__
        try:
            metadata = TransformerBlockRegistry.get(type(block))
        except ValueError as error:
            raise DiffCRError(f"{model} {version} does not know what a {kind} returns") from error
        if tokens_argument not in (None, metadata.hidden_states_argument_name):
            raise DiffCRError(f"{model} {version} looks for {tokens_argument} in a {kind}'s inputs")
