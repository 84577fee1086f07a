"""diffusers' step caches on a transformer: put on, told which run a call belongs to, taken off.

The hooks are those of `diffusers.hooks`, which stand around the forwards of blocks and attentions.
In diffusers a pipeline names the call and forgets at its end; here whoever opens a call does both,
so that the hooks work in pipelines that do neither (PixArt's), and nothing of one run is found by
another.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection
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
from diffusers.hooks.hooks import BaseState, CacheContext, StateManager
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor, nn

from diffcr.errors import DiffCRError

# diffusers' caches take timesteps as its schedulers count them.
_TIMESTEPS = 1000
_HOOKS = (
    "fbc_leader_block_hook",
    "fbc_block_hook",
    "mag_cache_leader_block_hook",
    "mag_cache_block_hook",
    "taylorseer_cache",
    "pyramid_attention_broadcast",
    "cross_attention_gate",
)


class DenoiserCaches:
    """The hooks of one cache on one transformer.

    Attributes:
        noise_level: Of the current call, in [0, 1].
        separate: Whether runs whose calls alternate keep a state each.
    """

    def __init__(self, transformer: nn.Module, hooks: CacheHooks) -> None:
        self.noise_level = 1.0
        self.separate = True
        self._transformer = transformer
        self._hooks = hooks
        self._states: dict[int, StateManager] = {}
        self._stateful: list[tuple[ModelHook, nn.Module]] = []

    def put_on(self) -> None:
        """Put the hooks around the forwards as they are.

        Raises:
            DiffCRError: Another cache is on, or the hooks do not know the model.
        """
        if getattr(self._transformer, "_cache_config", None) is not None or self._found():
            raise DiffCRError(
                "a cache of diffusers is on already: call transformer.disable_cache() first"
            )
        self._hooks(self._transformer, self)
        found = self._found()
        if not found:
            raise DiffCRError(
                f"{type(self._transformer).__name__} has no part that the cache can take hold of"
            )
        if isinstance(self._transformer, CacheMixin):
            # So that diffusers refuses a second cache on top.
            self._transformer._cache_config = self
        self._stateful = [pair for pair in found if pair[0]._is_stateful]
        values = [value for hook, _ in found for value in vars(hook).values()]
        self._states = {id(value): value for value in values if isinstance(value, StateManager)}
        self.separate = bool(self._states)

    def take_off(self) -> None:
        """Take the hooks off; forwards are again those from before."""
        hooked = {module for _, module in self._found()}
        registry = HookRegistry.check_if_exists_or_initialize(self._transformer)
        for name in _HOOKS:
            registry.remove_hook(name, recurse=True)
        registry.invalidate_child_registries_cache()
        for module in hooked:
            _forget_plain_forward(module)
        vars(self._transformer).pop("_cache_config", None)
        self._stateful, self._states = [], {}

    def enter(self, run: str, noise_level: float) -> None:
        """The next call of the transformer belongs to this run."""
        self.noise_level = noise_level
        for state in self._states.values():
            state.set_context(CacheContext(run))

    def leave(self) -> None:
        """No call is open."""
        for state in self._states.values():
            state.set_context(None)

    def keep_only(self, runs: Collection[str]) -> None:
        """Forget what is kept of all other runs."""
        for state in self._states.values():
            for run in [run for run in state._state_cache if run not in runs]:
                del state._state_cache[run]
        if not self.separate and not runs:
            for hook, module in self._stateful:
                hook.reset_state(module)

    @property
    def memory(self) -> int:
        """Bytes that are kept."""
        states = [s for manager in self._states.values() for s in manager._state_cache.values()]
        states += [vars(hook)["state"] for hook, _ in self._stateful if "state" in vars(hook)]
        tensors = {id(t): t for state in states for t in _tensors(vars(state).values())}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    def _found(self) -> list[tuple[ModelHook, nn.Module]]:
        return [
            (hook, module)
            for module in self._transformer.modules()
            for name, hook in getattr(module, "_diffusers_hook", _NONE).hooks.items()
            if name in _HOOKS
        ]


# Puts the hooks of one cache on a transformer, which may ask for the noise level of a call.
CacheHooks = Callable[[nn.Module, DenoiserCaches], None]
_NONE = types.SimpleNamespace(hooks={})


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict):
            found += _tensors(value.values())
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _forget_plain_forward(module: nn.Module) -> None:
    """diffusers leaves the class's own forward on the instance, which counts as patched."""
    forward = vars(module).get("forward")
    if getattr(forward, "__func__", None) is type(module).forward:
        del vars(module)["forward"]


def first_block_cache(threshold: float) -> CacheHooks:
    """First-Block-Cache (ParaAttention): a step whose first block's update changed by less than
    `threshold`, relative to its size, adds what the other blocks added last."""

    def put_on(transformer: nn.Module, caches: DenoiserCaches) -> None:
        _require_known_blocks(transformer, "first-block-cache")
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
                registry.register_hook(hook, "cross_attention_gate")

    return put_on


class _Kept(BaseState):
    """What a cross-attention returned last."""

    def __init__(self) -> None:
        self.output: Tensor | None = None

    def reset(self) -> None:
        self.output = None


class _CrossAttentionGate(ModelHook):
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


def _require_known_blocks(transformer: nn.Module, name: str) -> None:
    """Refuse a model whose blocks diffusers' hooks do not know: it would fail in the first call."""
    groups = [
        module
        for name, module in transformer.named_children()
        if name in _ALL_TRANSFORMER_BLOCK_IDENTIFIERS and isinstance(module, nn.ModuleList)
    ]
    known = isinstance(transformer, CacheMixin) or all(
        isinstance(block, BasicTransformerBlock) for group in groups for block in group
    )
    if not groups or sum(map(len, groups)) < 2 or not known:
        raise DiffCRError(
            f"{type(transformer).__name__} cannot be run with {name}: diffusers "
            f"{diffusers.__version__} has no cache for its class (no CacheMixin)"
        )
    for group in groups:
        for block in group:
            try:
                TransformerBlockRegistry.get(type(block))
            except ValueError as error:
                raise DiffCRError(
                    f"{type(transformer).__name__} cannot be run with {name}: diffusers "
                    f"{diffusers.__version__} does not know what a {type(block).__name__} returns"
                ) from error
