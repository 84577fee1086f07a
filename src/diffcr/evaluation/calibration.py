"""calibrate: token reuse that fits a pipeline, found on a few prompts without any training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import is_attached
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import Generation
from diffcr.evaluation.modes import evaluating
from diffcr.evaluation.sampling_runs import SamplingRuns
from diffcr.hosts import find_transformer
from diffcr.hosts.sampling import OutputSize, without_progress
from diffcr.methods.reuse.config import LARGEST_RATIO, LEAST_LEVEL, Granularity, ReuseConfig
from diffcr.methods.reuse.reuser import TokenReuser
from diffcr.validation import between

_MOST_DENSE_STEPS = 5
_DRIFTS = (0.5, 0.85, 1.0)


@dataclass(frozen=True)
class Trial:
    """One setting, tried on the prompts.

    Attributes:
        config: The setting.
        dense_first_steps: Steps that compute every token before any may be skipped.
        mean_compression_ratio: Share of tokens that a run skips, dense steps included.
        error: Root of the summed squares of the final latents' difference from the dense run's,
            same seeds, as a share of the dense run's.
        seconds: Of the run.
    """

    config: ReuseConfig
    dense_first_steps: int
    mean_compression_ratio: float
    error: float
    seconds: float


@dataclass(frozen=True)
class Calibration:
    """What was tried, and what the pipeline was left with.

    Attributes:
        chosen: The trial of least error, whose setting is attached.
        trials: All of them in the order in which they ran.
        dense_seconds: Of the dense run of the same prompts.
        num_inference_steps: Denoising steps of every run.
    """

    chosen: Trial
    trials: tuple[Trial, ...]
    dense_seconds: float
    num_inference_steps: int

    def to_json_dict(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)


def calibrate(
    pipe: Any,
    prompts: Sequence[str],
    target_compression_ratio: float = 0.3,
    granularity: Granularity = "steps",
    num_inference_steps: int = 20,
    guidance_scale: float = 4.5,
    seed: int = 0,
    batch_size: int = 8,
    progress: bool = True,
    size: OutputSize | None = None,
) -> Calibration:
    """Attach token reuse to a bare pipeline, with the settings that change its results least.

    The dense run of the prompts is the reference. How many of the first steps compute every token
    is tried first, each with the ratio of the other steps that gives the target; then, for tokens,
    how far skipped ones follow the others. No weight is changed and no caption judged. The error
    tells settings of one granularity apart; which of the two looks better it does not say.

    Args:
        pipe: A text-to-image or text-to-video pipeline of diffusers with nothing attached.
        prompts: A few, such as 8 to 32, like those that the pipeline is for.
        target_compression_ratio: Mean share of tokens that a sampling run skips, in [0.01, 0.9];
            whole steps come as near to it as they can, and at least one is skipped.
        granularity: What is skipped, see `ReuseConfig`.
        num_inference_steps: Denoising steps of the runs; the setting holds for others, too.
        guidance_scale: Of classifier-free guidance.
        seed: Of the first prompt's noise; prompt i gets `seed + i`.
        batch_size: Prompts per call of the pipeline.
        progress: Whether to show a progress bar.
        size: Of the pictures or videos, the pipeline's own by default.

    Raises:
        DiffCRError: Something is attached already, the model cannot reuse tokens, or a number is
            outside its range.
    """
    generation = Generation(seed, num_inference_steps, guidance_scale, batch_size=batch_size)
    between(0.01, 0.9).check("target_compression_ratio", target_compression_ratio)
    if is_attached(find_transformer(pipe)):
        raise DiffCRError("a method is attached already: call diffcr.detach(pipe) first")
    runs = SamplingRuns(pipe, prompts, generation, size or OutputSize())
    candidates = _first_candidates(runs.levels, target_compression_ratio, granularity)
    drifts = _DRIFTS if granularity == "tokens" else ()
    total = len(prompts) * (1 + len(candidates) + len(drifts))
    with (
        evaluating(find_transformer(pipe)),
        without_progress(pipe),
        tqdm(total=total, desc="calibrating", unit="image", disable=not progress) as bar,
    ):
        started = time.perf_counter()
        reference = runs.latents(bar)
        dense_seconds = time.perf_counter() - started
        reuser = attach(pipe, candidates[0])
        assert isinstance(reuser, TokenReuser)
        try:
            trials = [_trial(runs, reuser, config, reference, bar) for config in candidates]
            best = min(trials, key=lambda trial: trial.error).config
            for drift in drifts:
                config = replace(best, drift=drift)
                trials.append(_trial(runs, reuser, config, reference, bar))
            chosen = min(trials, key=lambda trial: trial.error)
            if chosen.mean_compression_ratio == 0:
                raise DiffCRError(
                    f"{type(pipe.scheduler).__name__} calls the model more than once at a level, "
                    "so that no step can reuse another: take another sampler"
                )
        except BaseException:
            detach(pipe)
            raise
    reuser.config = chosen.config
    return Calibration(chosen, tuple(trials), dense_seconds, num_inference_steps)


def mean_skipped(reuser: TokenReuser, noise_levels: Sequence[float]) -> float:
    """Share of tokens that a sampling run of these levels skips, dense steps included."""
    config = reuser.config
    skipped = 1.0 if config.granularity == "steps" else config.compression_ratio
    dense = sum(map(bool, reuser.visited_regions(noise_levels)))
    return skipped * (1 - dense / len(noise_levels))


def _trial(
    runs: SamplingRuns, reuser: TokenReuser, config: ReuseConfig, reference: Tensor, bar: Any
) -> Trial:
    """A run under one setting against the dense one."""
    reuser.config = config
    started = time.perf_counter()
    latents = runs.latents(bar)
    seconds = time.perf_counter() - started
    gap = (latents - reference).square().sum() / reference.square().sum()
    levels, mean = runs.levels, mean_skipped(reuser, runs.levels)
    first = max(1, sum(level > config.dense_above for level in levels))
    return Trial(config, first, mean, float(gap.sqrt()), seconds)


def _first_candidates(
    noise_levels: Sequence[float], target: float, granularity: Granularity
) -> list[ReuseConfig]:
    """A setting for each number of dense first steps with which the target can be met.

    Raises:
        DiffCRError: There is none.
    """
    steps = len(noise_levels)
    # Whole steps: all candidates skip as many, none is at a tie.
    wanted = max(1, int(target * steps + 0.5)) if granularity == "steps" else target * steps
    candidates = []
    for dense in range(1, min(_MOST_DENSE_STEPS, steps - 1) + 1):
        ratio = min(wanted / (steps - dense), 1.0)
        above = sum(noise_levels[dense - 1 : dense + 1]) / 2
        if granularity == "steps" and int(0.5 + LARGEST_RATIO * (steps - dense)) == wanted:
            ratio = min(ratio, LARGEST_RATIO)
        if wanted <= steps - dense and ratio <= LARGEST_RATIO and above >= LEAST_LEVEL:
            candidates.append(ReuseConfig(round(ratio, 4), granularity, round(above, 4)))
    if not candidates:
        raise DiffCRError(
            f"target_compression_ratio is {target} with {steps} steps, whose first computes every "
            "token: lower it, or take more steps"
        )
    return candidates
