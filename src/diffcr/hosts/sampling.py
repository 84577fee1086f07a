"""How a pipeline is called: size, guidance, and the noise levels of its sampler."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.loading import pipeline_scale, text_tokens, vae_scale
from diffcr.hosts.noise_scale import NoiseScale

# Of pipelines that name no size: Z-Image's, among others.
_PIXELS = 1024


@dataclass(frozen=True)
class OutputSize:
    """Of the pictures or videos of a pipeline; the pipeline's own where it is None.

    Attributes:
        height: In pixels.
        width: In pixels.
        frames: Of a video; of no account for pictures.
    """

    height: int | None = None
    width: int | None = None
    frames: int | None = None

    def arguments(self, pipe: Any) -> dict[str, int]:
        """Of the pipeline's call, for what is not None."""
        named = {"height": self.height, "width": self.width, "num_frames": self.frames}
        return {k: v for k, v in named.items() if v is not None and k in call_parameters(pipe)}


@dataclass(frozen=True)
class LatentSize:
    """Rows and columns of a picture's latents."""

    rows: int
    columns: int


def call_parameters(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """Arguments that a pipeline's call takes."""
    return inspect.signature(type(pipe).__call__).parameters


def latent_size(pipe: Any, height: int | None = None, width: int | None = None) -> LatentSize:
    """Of pictures of a size in pixels, the pipeline's own by default."""
    own, sides = _own_pixels(pipe), []
    for name, given in (("height", height), ("width", width)):
        default = call_parameters(pipe)[name].default if name in call_parameters(pipe) else None
        sides.append(int(given or own or default or _PIXELS) // vae_scale(pipe))
    return LatentSize(*sides)


def _own_pixels(pipe: Any) -> int | None:
    """Of a side, by the pipeline or by the model; None where neither says it."""
    # Of PRX, which alone has it in its configuration: in pixels.
    if pixels := getattr(pipe, "config", {}).get("default_sample_size"):
        return int(pixels)
    transformer: Any = find_transformer(pipe)
    own = getattr(pipe, "default_sample_size", None) or transformer.config.get("sample_size")
    return own * pipeline_scale(pipe) if isinstance(own, int) else None


def call_options(pipe: Any) -> dict[str, Any]:
    """Arguments of the pipeline's call that ask for exactly the given size and prompt.

    The prompt's tokens are at most the tokenizer's `model_max_length`.
    """
    options = {
        "use_resolution_binning": False,
        "clean_caption": False,
        "max_sequence_length": text_tokens(pipe),
    }
    return {name: value for name, value in options.items() if name in call_parameters(pipe)}


def guidance_options(pipe: Any, guidance_scale: float, prompts: int) -> dict[str, Any]:
    """Arguments of the pipeline's call for some prompts under classifier-free guidance, or under
    the guidance that a distilled model is told."""
    name = family_of(find_transformer(pipe)).call.guidance
    if name not in call_parameters(pipe):
        return {}
    # Qwen-Image guides where it is given what to lead away from alone.
    away = name == "true_cfg_scale" and guidance_scale > 1
    return {name: guidance_scale} | ({"negative_prompt": [" "] * prompts} if away else {})


@contextmanager
def without_progress(pipe: Any) -> Iterator[None]:
    """Hides the pipeline's own progress bar, one per call, within the context."""
    previous = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**{**previous, "disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**previous)


class _StopError(Exception):
    """Ends a call of a pipeline before its first forward."""


def sampler_levels(
    pipe: Any, num_inference_steps: int, size: OutputSize | None = None
) -> list[float]:
    """Noise levels, in [0, 1], of the steps of the pipeline's sampler.

    The pipeline itself sets them, which shifts them as it likes: it is called, and stopped before
    its transformer runs. Its scheduler stays as it was.
    """
    timesteps: list[Tensor] = []

    def stop(*_: Any) -> None:
        timesteps.append(torch.as_tensor(pipe.scheduler.timesteps).detach().cpu())
        raise _StopError

    hook = find_transformer(pipe).register_forward_pre_hook(stop, prepend=True)
    own = pipe.scheduler
    pipe.scheduler = deepcopy(own)
    try:
        # A bar would stay where it is.
        with without_progress(pipe):
            pipe(
                [""],
                num_inference_steps=num_inference_steps,
                generator=[torch.Generator().manual_seed(0)],
                output_type="latent",
                **(size or OutputSize()).arguments(pipe),
                **call_options(pipe),
            )
    except _StopError:
        pipe.maybe_free_model_hooks()
    finally:
        hook.remove()
        pipe.scheduler = own
    return _levels_of_scheduler(pipe, timesteps[0])


def _levels_of_scheduler(pipe: Any, timesteps: Tensor) -> list[float]:
    """Noise levels of its timesteps, from 0, clean, to as many as it was trained on. Those of Mochi
    and OmniGen count as the model is told, those of EDM in a logarithm of sigma, and Cosmos 2's in
    sigmas of x_0 + sigma epsilon, which go beyond."""
    scheduler, transformer = pipe.scheduler, find_transformer(pipe)
    if scheduler.config.get("invert_sigmas") or type(scheduler).__name__.startswith("EDM"):
        return family_of(transformer).denoising_scale(transformer.config).levels(timesteps)
    most = float(scheduler.config.num_train_timesteps)
    if float(timesteps.max()) > most:
        timesteps = most * timesteps / (most + timesteps)
    return NoiseScale(noisy=most).levels(timesteps)
