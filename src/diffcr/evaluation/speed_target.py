"""How much token reuse has to skip for a speed, from sampling runs that are timed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import disabled, is_attached
from diffcr.errors import DiffCRError
from diffcr.evaluation.calibration import mean_skipped
from diffcr.evaluation.generate import Generation
from diffcr.evaluation.modes import evaluating
from diffcr.evaluation.sampling_runs import SamplingRuns
from diffcr.evaluation.timing.latency import LatencyRatio, compare_latency
from diffcr.hosts import find_transformer
from diffcr.hosts.sampling import OutputSize, without_progress
from diffcr.methods.reuse.config import LARGEST_RATIO, Granularity, ReuseConfig
from diffcr.methods.reuse.reuser import TokenReuser

LEAST_TARGET, LARGEST_TARGET = 0.01, 0.9
_REPEATS = 3


def target_for_speed(
    pipe: Any,
    prompts: Sequence[str],
    speed: float,
    granularity: Granularity = "steps",
    num_inference_steps: int = 20,
    guidance_scale: float = 4.5,
    batch_size: int = 8,
    size: OutputSize | None = None,
) -> float:
    """The share of tokens that runs have to skip to be `speed` times as fast, for `calibrate`.

    The first `batch_size` prompts are sampled to their latents, text encoding included, densely and
    with the most reuse there is, in turns; the time in between goes with the share that is skipped.

    Args:
        pipe: A bare pipeline, as of `calibrate`, on the machine where it is to be fast.
        prompts: A few.
        speed: The dense run's time by the wanted one, above 1.
        granularity: What is skipped, see `ReuseConfig`.
        num_inference_steps: Denoising steps of the runs.
        guidance_scale: Of classifier-free guidance.
        batch_size: Prompts per call of the pipeline.
        size: Of the pictures or videos, the pipeline's own by default.

    Returns:
        A mean compression ratio in [0.01, 0.9].

    Raises:
        DiffCRError: Something is attached already, the model cannot reuse tokens, the speed is not
            above 1, or no reuse is as fast.
    """
    if not speed > 1:
        raise DiffCRError(f"speed is {speed:g}: give a value above 1, that of the dense pipeline")
    if is_attached(find_transformer(pipe)):
        raise DiffCRError("a method is attached already: call diffcr.detach(pipe) first")
    generation = Generation(0, num_inference_steps, guidance_scale, batch_size=batch_size)
    runs = SamplingRuns(pipe, prompts[:batch_size], generation, size or OutputSize())
    levels = runs.levels
    reuser = attach(pipe, ReuseConfig(LARGEST_RATIO, granularity, dense_above=1.0))
    assert isinstance(reuser, TokenReuser)
    try:
        with evaluating(find_transformer(pipe)), without_progress(pipe):

            def dense() -> None:
                with disabled(pipe):
                    runs.latents()

            timed = compare_latency(dense, runs.latents, _REPEATS, 1, pipe.device)
        most = mean_skipped(reuser, levels)
    finally:
        detach(pipe)
    return ratio_for_speed(timed, most, speed)


def ratio_for_speed(timed: LatencyRatio, most: float, speed: float) -> float:
    """The share to skip, where time falls in proportion to it.

    Args:
        timed: Runs that skip the share `most` against dense ones.
        most: In (0, 1].
        speed: Wanted, above 1.

    Raises:
        DiffCRError: It would be more than `most`, or than `calibrate` takes.
    """
    saved = (1 - timed.ratio) / most if most else 0.0
    limit = min(most, LARGEST_TARGET)
    if saved <= 0 or 1 - 1 / speed > limit * saved:
        fastest = 1 / (1 - limit * saved) if saved > 0 else 1.0
        raise DiffCRError(
            f"speed is {speed:g}, and with the most reuse a run is {fastest:.2f} times as fast "
            "here: give less, or take more steps"
        )
    return max((1 - 1 / speed) / saved, LEAST_TARGET)
