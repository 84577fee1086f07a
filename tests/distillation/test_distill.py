"""A LoRA is trained under reuse: its gradients, what it gains, kills, and what is refused."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffcr
from diffcr.binding.lora import lora_state_dict
from diffcr.binding.model import disabled, get_reuser
from diffcr.distillation.distill import distill, relative_error
from diffcr.distillation.settings import DistillationSettings
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import Generation
from diffcr.evaluation.sampling_runs import SamplingRuns
from diffcr.hosts import find_transformer
from diffcr.hosts.sampling import OutputSize
from tests.flow_pipelines import tiny_flux_pipeline, tiny_wan_pipeline
from tests.pipelines import tiny_pixart_pipeline

_PROMPTS = ["a red circle", "a blue square", "a green star"]
_SIZE = OutputSize(32, 32, 1)
_SETTINGS = DistillationSettings(
    steps=4, batch_size=2, num_inference_steps=6, lora_rank=4, warmup_steps=1, checkpoint_every=1
)


def _reusing(make: Any = tiny_pixart_pipeline) -> Any:
    pipe = make()
    diffcr.attach(pipe, diffcr.ReuseConfig(0.6, dense_above=0.95))
    return pipe


def _sampled(pipe: Any, prompts: list[str], guidance: float = 4.0) -> Tensor:
    generation = Generation(5, 6, guidance, batch_size=len(prompts))
    return SamplingRuns(pipe, prompts, generation, _SIZE).latents()


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    pipe = _reusing()
    diffcr.add_lora(pipe, rank=2)
    pipe.text_encoder.double()
    transformer = pipe.transformer.double()
    for name, parameter in transformer.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    with disabled(pipe):
        wanted = _sampled(pipe, _PROMPTS[:2])
    runs = SamplingRuns(pipe, _PROMPTS[:2], Generation(5, 6, 4.0), _SIZE)

    def error() -> Tensor:
        with get_reuser(pipe).carrying_gradients():
            return relative_error(runs.latents_with_gradients(), wanted)

    trained = [p for p in transformer.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(error(), trained)
    direction = [torch.randn_like(p) for p in trained]
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    values = []
    for sign in (1, -2):
        for parameter, change in zip(trained, direction, strict=True):
            parameter.data.add_(sign * 1e-4 * change)
        values.append(float(error()))
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(expected, rel=1e-3)


def test_steps_hand_gradients_on_only_where_they_are_asked_to() -> None:
    pipe = _reusing()
    pipe.transformer.requires_grad_(False)
    pipe.transformer.transformer_blocks.requires_grad_(True)
    runs = SamplingRuns(pipe, _PROMPTS[:1], Generation(5, 6, 4.0), _SIZE)
    weight = pipe.transformer.transformer_blocks[0].attn1.to_q.weight

    def gradient(carrying: bool) -> Tensor:
        with get_reuser(pipe).carrying_gradients() if carrying else nullcontext():
            latents = runs.latents_with_gradients()
        return torch.autograd.grad(latents.square().sum(), weight)[0]

    assert not torch.allclose(gradient(True), gradient(False))
    torch.testing.assert_close(runs.latents_with_gradients(), runs.latents(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("make", [tiny_pixart_pipeline, tiny_flux_pipeline, tiny_wan_pipeline])
def test_the_error_falls_and_no_other_weight_moves(make: Any, tmp_path: Path) -> None:
    pipe = _reusing(make)
    transformer: Any = find_transformer(pipe)
    before = {n: p.clone() for n, p in transformer.named_parameters()}
    attached = get_reuser(pipe).config
    settings = replace(_SETTINGS, steps=6, learning_rate=0.003, budgets=(0.5, 0.7))
    done = distill(pipe, _PROMPTS[:1], tmp_path, settings, _SIZE, progress=False)
    assert done.steps == 6 and done.first_error is not None and done.last_error is not None
    with disabled(pipe):
        wanted = _sampled(pipe, _PROMPTS[:1])
    trained = relative_error(_sampled(pipe, _PROMPTS[:1]), wanted)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if ".lora_B." in name:
                parameter.zero_()
    assert trained < relative_error(_sampled(pipe, _PROMPTS[:1]), wanted)
    assert get_reuser(pipe).config == attached
    diffcr.detach(pipe, restore=True)
    kept = dict(transformer.named_parameters())
    assert all(torch.equal(kept[name], value) for name, value in before.items())


def test_a_run_that_was_cut_short_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = _reusing()
    distill(whole, _PROMPTS, tmp_path / "whole", _SETTINGS, _SIZE, progress=False)
    _interrupt(tmp_path / "cut")
    resumed = _reusing()
    # Where activations are kept changes nothing.
    settings = replace(_SETTINGS, offload_activations=True)
    done = distill(resumed, _PROMPTS, tmp_path / "cut", settings, _SIZE, progress=False)
    assert done.steps == 4
    first, second = (lora_state_dict(pipe.transformer) for pipe in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(DiffCRError, match="a distillation with other prompts"):
        distill(_reusing(), _PROMPTS[:2], tmp_path / "cut", _SETTINGS, _SIZE, progress=False)


def _interrupt(directory: Path) -> None:
    """Break off in the middle of the third step."""
    pipe, calls = _reusing(), 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 2 * 6 + 1:
            raise KeyboardInterrupt

    real = pipe.scheduler.step
    pipe.scheduler.step = lambda *args, **kwargs: (count(), real(*args, **kwargs))[1]
    with pytest.raises(KeyboardInterrupt):
        distill(pipe, _PROMPTS, directory, _SETTINGS, _SIZE, progress=False)


def test_what_was_trained_is_saved_and_loaded(tmp_path: Path) -> None:
    pipe = _reusing()
    distill(pipe, _PROMPTS, tmp_path / "run", replace(_SETTINGS, steps=1), _SIZE, progress=False)
    diffcr.save(pipe, tmp_path / "saved")
    other = tiny_pixart_pipeline()
    diffcr.load(other, tmp_path / "saved")
    images = [_sampled(each, _PROMPTS) for each in (pipe, other)]
    assert torch.equal(*images)
    with disabled(other):
        bare = _sampled(other, _PROMPTS)
    assert not torch.equal(images[0], bare)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (diffcr.ReuseConfig(0.5, "tokens"), "reuse of whole steps"),
        (diffcr.ToMeConfig(0.3), "keeps nothing from step to step"),
        (None, "not attached"),
    ],
)
def test_what_cannot_be_distilled_is_refused(config: Any, message: str, tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    if config is not None:
        diffcr.attach(pipe, config)
    with pytest.raises(DiffCRError, match=message):
        distill(pipe, _PROMPTS, tmp_path, _SETTINGS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"budgets": (0.01,)}, "budget is 0.01"),
        ({"learning_rate": 2.0}, "learning_rate is 2.0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_settings_outside_their_ranges_are_refused(
    setting: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DiffCRError, match=message):
        distill(_reusing(), _PROMPTS, tmp_path, replace(_SETTINGS, **setting))
