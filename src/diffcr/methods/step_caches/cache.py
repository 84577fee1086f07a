"""The module that tells a cache's hooks which sampling run a call belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from threading import Lock
from typing import Any, ClassVar, NoReturn

from diffcr.errors import DiffCRError
from diffcr.hosts.cache_hooks import (
    cross_attention_gate,
    first_block_cache,
    mag_cache,
    pyramid_attention_broadcast,
    taylorseer,
)
from diffcr.hosts.denoiser_caches import CacheHooks, DenoiserCaches
from diffcr.hosts.host import Host
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.config import MethodConfig
from diffcr.methods.sampling_runs import CallInRun, SamplingRun
from diffcr.methods.step_caches.config import (
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    StepCacheConfig,
    TaylorSeerConfig,
    TGateConfig,
)

_names = map("run-{}".format, count())


@dataclass
class CachedRun(SamplingRun):
    """As `SamplingRun`.

    Attributes:
        name: Of what the hooks keep of it.
        tokens: Of a sample; another picture's size is another run. 0 before the first call.
        begun: Whether a call of it is past.
    """

    name: str = field(default_factory=lambda: next(_names))
    tokens: int = 0
    begun: bool = False


class CallInCachedRun(CallInRun[CachedRun]):
    """As `CallInRun`."""

    run_type = CachedRun


class StepCache(Attached[StepCacheConfig, None]):
    """A step cache on a transformer; it holds no weights. Setting `enabled` puts diffusers' hooks
    on and takes them off.

    The hooks keep what one thread's calls left: a call that comes while another thread's is under
    way is refused.
    """

    keeps_steps = True
    hooks_blocks: ClassVar[bool] = True

    current: CallInCachedRun

    def __init__(self, config: StepCacheConfig, host: Host) -> None:
        self._enabled = False
        # The base class enables what it makes, and hooks wait until `attach` has bound all blocks.
        self._ready = False
        super().__init__(config, host)
        self._ready = True
        self.current = CallInCachedRun()
        self._busy = Lock()
        self._holder = ""
        self._caches = DenoiserCaches(host.transformer, _HOOKS[type(config)](config))

    @property
    def enabled(self) -> bool:  # type: ignore[override]
        """Whether the hooks are on."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if not self._ready or value == self._enabled:
            return
        if value:
            self._caches.put_on()
        else:
            self.current.forget()
            self._caches.take_off()
        self._enabled = value

    @property
    def reads_timesteps(self) -> bool:
        """Always: a sampling run is one of falling noise levels."""
        return True

    def forget_run(self) -> None:
        """As `Attached.forget_run`."""
        self.current.forget()

    def build_context(self, call: TransformerCall) -> None:
        """Name the run that a call belongs to, and forget those that ended.

        Raises:
            DiffCRError: The model is in training mode or another thread calls it, or the cache
                keeps one run's state and the calls of two alternate.
        """
        if self.training:
            raise DiffCRError(
                f"{self.config.method} is for sampling, and the model is in training mode: call "
                "eval(), or diffcr.detach first"
            )
        if not self._busy.acquire(blocking=False):
            raise DiffCRError(
                f"{self.config.method} keeps one call's state, and another thread calls the model: "
                "give each thread a model of its own"
            )
        try:
            run = self._run_of(call)
            self._caches.keep_only([known.name for known in self.current.known()])
            self._separate(run)
        except BaseException:
            self._busy.release()
            raise
        self._caches.enter(run.name, run.noise_level)

    def end_call(self) -> None:
        """As `Attached.end_call`."""
        self._caches.leave()
        self._busy.release()

    def _run_of(self, call: TransformerCall) -> CachedRun:
        levels = {*(call.noise_levels or ())}
        if len(levels) != 1:
            # Samples of one batch at several levels are no step of a run.
            self.current.end(call.conditioning)
        run = self.current.run(call.conditioning, max(levels))
        if run.tokens not in (0, call.tokens):
            self.current.end(call.conditioning)
            run = self.current.run(call.conditioning, max(levels))
        run.tokens = call.tokens
        return run

    def _separate(self, run: CachedRun) -> None:
        """Where the hooks keep one state: begin anew with a new run, refuse one that goes on after
        another."""
        begins, run.begun = not run.begun, True
        holder, self._holder = self._holder, run.name
        if self._caches.separate:
            return
        if begins:
            self._caches.keep_only(())
        elif holder != run.name:
            raise DiffCRError(
                f"{self.config.method} keeps one state, and the pipeline calls the model for each "
                "half of guidance apart: choose another cache, or guidance_scale=1"
            )

    def summary_lines(self) -> list[str]:
        """Its settings, and what it holds."""
        settings = self.config.to_json_dict()
        shown = ", ".join(
            f"{name} {value}" for name, value in settings.items() if not isinstance(value, tuple)
        )
        return [shown, f"kept of past steps: {self._caches.memory / 2**20:.1f} MiB"]

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """diffusers' hooks on a copy would run the original's blocks.

        Raises:
            DiffCRError: Always.
        """
        raise DiffCRError(
            f"a model with {self.config.method} cannot be copied or pickled, for diffusers' hooks "
            "cannot: call diffcr.detach, copy, and attach to both"
        )


def _given(mag_ratios: tuple[float, ...]) -> tuple[float, ...]:
    if not mag_ratios:
        raise DiffCRError(
            "mag-cache needs the ratios of your model and number of steps: measure them with "
            "diffcr.measure_mag_ratios(pipe, prompts, steps), and attach "
            "diffcr.MagCacheConfig(0.06, mag_ratios=...)"
        )
    return mag_ratios


_HOOKS: dict[type[StepCacheConfig], Callable[[Any], CacheHooks]] = {
    FirstBlockCacheConfig: lambda config: first_block_cache(config.threshold),
    TaylorSeerConfig: lambda config: taylorseer(config.interval, config.dense_steps, config.order),
    MagCacheConfig: lambda config: mag_cache(
        config.threshold, config.max_skip_steps, config.dense_share, _given(config.mag_ratios)
    ),
    PyramidAttentionBroadcastConfig: lambda config: pyramid_attention_broadcast(
        config.interval, config.cross_interval, config.least_level, config.most_level
    ),
    TGateConfig: lambda config: cross_attention_gate(config.gate),
}
STEP_CACHES = tuple(_HOOKS)


def refuses_beside(cache: StepCacheConfig, other: MethodConfig) -> str | None:
    """Why a step cache and another method cannot be on one model; None where they can."""
    name = other.method
    if isinstance(other, StepCacheConfig) or name == "reuse":
        return f"{name} is a step cache, too: each would skip steps without knowing of the other"
    if name == "at-edm":
        return "at-edm's blocks hand on fewer tokens than entered, and a cache adds rows by place"
    if not cache.keeps_attention:
        return None
    if name in ("diffcr", "mod") or getattr(other, "placement", "") == "block":
        return (
            f"{cache.method} keeps what attention gave to each row, and with {name} other tokens "
            "are in the rows at every step: first-block-cache and taylorseer go with it"
        )
    return None
