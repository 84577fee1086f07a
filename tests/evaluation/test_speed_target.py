"""A speed becomes a share to skip, by the time that is saved here."""

from __future__ import annotations

from typing import Any

import pytest

import diffcr
from diffcr.errors import DiffCRError
from diffcr.evaluation.speed_target import ratio_for_speed, target_for_speed
from diffcr.evaluation.timing.latency import LatencyRatio, Timing
from tests.pipelines import tiny_pixart_pipeline


def _timed(ratio: float) -> LatencyRatio:
    return LatencyRatio(Timing((2.0, 4.0)), Timing((2.0 * ratio, 4.0 * ratio)))


def test_time_falls_in_proportion_to_what_is_skipped() -> None:
    # Skipping 0.8 saves 0.6 of the time, so 0.3 of the time needs half of it.
    assert ratio_for_speed(_timed(0.4), 0.8, 1 / 0.7) == pytest.approx(0.4)
    assert ratio_for_speed(_timed(0.4), 0.8, 1.0001) == 0.01
    assert ratio_for_speed(_timed(0.4), 0.8, 2.4999) == pytest.approx(0.8, abs=1e-3)
    with pytest.raises(DiffCRError, match="speed is 2.6, and with the most reuse a run is 2.50"):
        ratio_for_speed(_timed(0.4), 0.8, 2.6)
    with pytest.raises(DiffCRError, match="a run is 1.00 times as fast here"):
        ratio_for_speed(_timed(1.1), 0.8, 1.01)


def test_a_pipeline_is_timed_and_left_bare() -> None:
    pipe: Any = tiny_pixart_pipeline()
    options: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 1.0}
    with pytest.raises(DiffCRError, match="speed is 1: give a value above 1"):
        target_for_speed(pipe, ["a red circle"], 1.0, **options)
    with pytest.raises(DiffCRError, match="speed is 1000, and with the most reuse"):
        target_for_speed(pipe, ["a red circle"], 1000.0, **options)
    assert not hasattr(pipe.transformer, "diffcr")
    diffcr.attach(pipe)
    with pytest.raises(DiffCRError, match="attached already"):
        target_for_speed(pipe, ["a red circle"], 1.2, **options)
