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

from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import CacheContext, StateManager
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor, nn

from diffcr.errors import DiffCRError

CROSS_ATTENTION_GATE = "cross_attention_gate"
_HOOKS = (
    "fbc_leader_block_hook",
    "fbc_block_hook",
    "mag_cache_leader_block_hook",
    "mag_cache_block_hook",
    "taylorseer_cache",
    "pyramid_attention_broadcast",
    CROSS_ATTENTION_GATE,
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
