"""Calibration finds a setting, says what it tried, and refuses what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import diffcr
from diffcr.binding.model import get_reuser
from diffcr.errors import DiffCRError
from diffcr.evaluation.calibration import Calibration, calibrate
from tests.pipelines import tiny_pixart_pipeline

_PROMPTS = ["a red circle", "a blue square"]


def _calibrated(pipe: Any, **options: Any) -> Calibration:
    options = {"num_inference_steps": 6, "progress": False, **options}
    return calibrate(pipe, _PROMPTS, 0.4, **options)


@pytest.mark.parametrize("granularity", ["steps", "tokens"])
def test_the_setting_of_least_error_is_attached_and_saved(granularity: Any, tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    found = _calibrated(pipe, granularity=granularity)
    assert get_reuser(pipe).config == found.chosen.config
    assert found.chosen.error == min(trial.error for trial in found.trials) > 0
    assert {trial.config.granularity for trial in found.trials} == {granularity}
    assert len({trial.dense_first_steps for trial in found.trials}) > 1
    # A step or a token is whole.
    assert all(abs(t.mean_compression_ratio - 0.4) <= 1 / 6 for t in found.trials)
    json.dumps(found.to_json_dict())
    diffcr.save(pipe, tmp_path / "saved")
    other = tiny_pixart_pipeline()
    diffcr.load(other, tmp_path / "saved")
    assert get_reuser(other).config == found.chosen.config


def test_it_changes_no_weight_and_gives_the_same_twice() -> None:
    pipe = tiny_pixart_pipeline()
    before = {name: p.clone() for name, p in pipe.transformer.named_parameters()}
    first = _calibrated(pipe)
    diffcr.detach(pipe)
    assert all(torch.equal(p, before[name]) for name, p in pipe.transformer.named_parameters())
    second = _calibrated(pipe)
    assert [t.error for t in first.trials] == [t.error for t in second.trials]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_compression_ratio": 0.0}, "target_compression_ratio is 0.0"),
        ({"target_compression_ratio": 0.95}, "target_compression_ratio is 0.95"),
        ({"num_inference_steps": 4.0}, "num_inference_steps is 4.0"),
        ({"num_inference_steps": 1}, "whose first computes every token"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"granularity": "layers"}, "granularity is 'layers'"),
        ({"prompts": []}, "there are no prompts"),
    ],
)
def test_what_it_cannot_do_is_said_and_nothing_is_attached(
    options: dict[str, Any], message: str
) -> None:
    pipe = tiny_pixart_pipeline()
    arguments = {"prompts": _PROMPTS, "num_inference_steps": 4, "progress": False, **options}
    with pytest.raises(DiffCRError, match=message):
        calibrate(pipe, **arguments)
    assert not hasattr(pipe.transformer, "diffcr")


@pytest.mark.parametrize(("steps", "target"), [(10, 0.05), (10, 0.25), (3, 0.05), (2, 0.3)])
def test_every_candidate_skips_as_many_steps(steps: int, target: float) -> None:
    pipe = tiny_pixart_pipeline()
    found = calibrate(pipe, _PROMPTS, target, num_inference_steps=steps, progress=False)
    wanted = max(1, int(target * steps + 0.5)) / steps
    assert all(t.mean_compression_ratio == pytest.approx(wanted) for t in found.trials)


def test_an_interrupted_calibration_leaves_a_bare_pipeline(monkeypatch: Any) -> None:
    pipe = tiny_pixart_pipeline()
    monkeypatch.setattr("diffcr.evaluation.calibration._trial", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        _calibrated(pipe)
    assert not hasattr(pipe.transformer, "diffcr")


def _interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


def test_it_wants_a_bare_pipeline() -> None:
    pipe = tiny_pixart_pipeline()
    diffcr.attach(pipe)
    with pytest.raises(DiffCRError, match="attached already"):
        _calibrated(pipe)
