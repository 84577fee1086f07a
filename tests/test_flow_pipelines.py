"""Pipelines of flows: what training gives the transformer is what the pipeline gives it, and the
command line trains, samples, calibrates and evaluates them."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    ZImagePipeline,
)
from PIL import Image

import diffcr
from diffcr.cli import main
from diffcr.evaluation.calibration import calibrate
from diffcr.evaluation.evaluate import evaluate
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.evaluation.router_maps import scene_router_maps
from diffcr.hosts import family_of
from diffcr.hosts.latents import encode_images, normalise
from diffcr.hosts.loading import size_multiple, text_tokens
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.hosts.sampling import OutputSize, sampler_levels
from diffcr.scenes import ScenesDataset
from tests.flow_pipelines import tiny_flux_pipeline, tiny_sd3_pipeline, tiny_wan_pipeline
from tests.one_step import assert_same, one_step
from tests.tiny_hosts import TINY_HOSTS

PROMPTS = ["a red circle", "a blue square and a small star"]
SIZE = OutputSize(32, 32, frames=5)
EMBEDDED = torch.randn(1, 6, 20, generator=torch.Generator().manual_seed(2))


def qwen_image_pipeline() -> Any:
    """Without a text encoder, which has billions of parameters and no tiny form."""
    transformer = TINY_HOSTS["QwenImageTransformer2DModel"].make()
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return QwenImagePipeline(scheduler, None, None, None, transformer)


def z_image_pipeline() -> Any:
    """Likewise."""
    transformer = TINY_HOSTS["ZImageTransformer2DModel"].make()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return ZImagePipeline(scheduler, None, None, None, transformer)


Make = Callable[[], Any]
OF_TEXTS: dict[str, Make] = {
    "flux": tiny_flux_pipeline,
    "sd3": tiny_sd3_pipeline,
    "wan": tiny_wan_pipeline,
}
GIVEN: dict[str, tuple[Make, dict[str, Any]]] = {
    "flux": (tiny_flux_pipeline, {"guidance_scale": 3.5}),
    "sd3": (tiny_sd3_pipeline, {"guidance_scale": 1.0}),
    "wan": (tiny_wan_pipeline, {"guidance_scale": 1.0, "num_frames": 5}),
    "qwen-image": (qwen_image_pipeline, {"prompt_embeds": EMBEDDED}),
    "z-image": (z_image_pipeline, {"prompt_embeds": [EMBEDDED[0]], "guidance_scale": 0.0}),
}


@pytest.mark.parametrize("name", GIVEN)
def test_training_calls_a_model_as_its_pipeline_does(name: str) -> None:
    make, options = GIVEN[name]
    pipe = make()
    family, transformer = family_of(pipe.transformer), pipe.transformer
    if "prompt_embeds" in options:
        prompt = Prompt(EMBEDDED)
    else:
        options = {**options, "prompt": PROMPTS[:1], "max_sequence_length": text_tokens(pipe)}
        prompt = family.call.encode_prompt(pipe, PROMPTS[:1], text_tokens(pipe))
    height, width = 4 * size_multiple(pipe), 2 * size_multiple(pipe)
    seen = one_step(pipe, height=height, width=width, **options)
    scale = family.denoising_scale(transformer.config)
    values = scale.per_sample(seen.inputs[scale.argument])
    factor = 8 if name in ("wan", "qwen-image", "z-image") else 4
    shape = (1, family.call.latent_channels(transformer.config), height // factor, width // factor)
    packed = seen.sample.dim() == 3
    latents = (
        family.call.prediction(transformer, seen.sample, torch.empty(shape))
        if packed
        else seen.sample
    )
    given = family.call.inputs(transformer, latents, values, prompt)
    for argument, expected in seen.inputs.items():
        assert_same(given.get(argument), expected, argument)
    assert set(given) <= set(seen.inputs)
    predicted = family.call.prediction(transformer, seen.output, latents)
    told = (
        family.call.prediction(transformer, seen.prediction, latents) if packed else seen.prediction
    )
    assert torch.equal(predicted, told)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_latents_are_what_the_pipeline_decodes(name: str) -> None:
    """By the arithmetic with which pipelines undo it."""
    pipe = OF_TEXTS[name]()
    vae = pipe.vae
    picture = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    latents = encode_images(pipe, [picture])
    assert latents.dim() == (5 if name == "wan" else 4)
    plain = torch.randn_like(latents)
    normalised = normalise(vae, plain)
    if name == "wan":
        mean, deviation = (
            torch.tensor(vae.config[key]).view(1, 4, 1, 1, 1)
            for key in ("latents_mean", "latents_std")
        )
        decoded = normalised * deviation + mean
    else:
        decoded = normalised / vae.config.scaling_factor + vae.config.shift_factor
    assert torch.allclose(decoded, plain, atol=1e-6)


def test_a_samplers_levels_are_those_that_the_pipeline_samples_at() -> None:
    for make in OF_TEXTS.values():
        pipe = make()
        before = deepcopy(vars(pipe.scheduler))
        levels = sampler_levels(pipe, 4, SIZE)
        assert str(vars(pipe.scheduler)) == str(before)
        seen: list[float] = []
        scale = family_of(pipe.transformer).denoising_scale(pipe.transformer.config)

        def look(
            _: Any, args: Any, kwargs: dict[str, Any], scale: Any = scale, seen: Any = seen
        ) -> None:
            seen += scale.levels(kwargs[scale.argument])

        pipe.transformer.register_forward_pre_hook(look, with_kwargs=True)
        arguments = {**SIZE.arguments(pipe), "guidance_scale": 1.0}
        pipe(PROMPTS[0], num_inference_steps=4, output_type="latent", **arguments)
        assert levels == pytest.approx(seen, abs=1e-6)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_pipeline_is_calibrated(name: str) -> None:
    pipe = OF_TEXTS[name]()
    found = calibrate(
        pipe, PROMPTS, 0.4, num_inference_steps=6, size=SIZE, progress=False, batch_size=2
    )
    assert found.chosen.mean_compression_ratio == pytest.approx(2 / 6)
    assert 0 < found.chosen.error == min(trial.error for trial in found.trials) < 1
    images = generate_images(pipe, PROMPTS, num_inference_steps=6, height=32, width=32)
    assert [image.size for image in images] == [(32, 32)] * 2


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_pipeline_is_evaluated(name: str) -> None:
    pipe = OF_TEXTS[name]()
    compressor = diffcr.attach(pipe, diffcr.DiffCRConfig(timestep_regions=2))
    compressor.set_compression_ratios(0.5)
    options = EvaluationOptions(
        num_inference_steps=2,
        height=32,
        width=32,
        latency_batch_size=1,
        denoiser_repeats=1,
        pipeline_repeats=1,
        map_timesteps=(900, 100),
    )
    flops = evaluate(pipe, Subjects(PROMPTS), options).flops
    tokens = 4 if name == "wan" else 16
    assert flops["image_tokens"] == tokens
    assert flops["compressed"]["total"] < flops["dense"]["total"]
    maps = scene_router_maps(pipe, ScenesDataset("test", size=1, resolution=32)[0], [900, 100])
    assert maps.timesteps == (900, 100) and maps.kept.mean() == 0.5


def _folder(directory: Path) -> Path:
    directory.mkdir()
    lines = []
    for number, caption in enumerate(PROMPTS):
        Image.new("RGB", (40, 32), (90 * number, 200, 30)).save(directory / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": caption}))
    (directory / "metadata.jsonl").write_text("\n".join(lines))
    return directory


_RECIPE = """
name: tiny
method: {method: diffcr, target_compression_ratio: 0.3, timestep_regions: 2}
lora_rank: 2
steps: 4
batch_size: 2
timestep_density: logit-normal
checkpoint_every: 2
data: {source: scenes, resolution: 32, max_sequence_length: 48}
optimizer: {learning_rate: 1.0e-2, ratio_learning_rate: 5.0e-2}
ratio_loss: {raise_every: 2, ramp: 0.3}
"""


@pytest.mark.parametrize("name", OF_TEXTS)
def test_the_command_line_trains_and_samples(name: str, tmp_path: Path) -> None:
    model, recipe = tmp_path / "model", tmp_path / "recipe.yaml"
    OF_TEXTS[name]().save_pretrained(model)
    recipe.write_text(_RECIPE)
    folder, run = _folder(tmp_path / "pictures"), tmp_path / "run"
    _diffcr("train", recipe, "--model", model, "--data", folder, "--output", run)
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4 and 0 < lines[-1]["loss"] < 100
    assert lines[-1]["ratio"] > 0
    side = ("--height", 32, "--width", 32, "--steps", 2)
    pictures = {}
    for which, options in {
        "compressed": ("--checkpoint", run / "final"),
        "dense": ("--dense",),
    }.items():
        output = tmp_path / which
        _diffcr("generate", PROMPTS[0], "--model", model, *options, "--output", output, *side)
        pictures[which] = Image.open(output / "image-0000.png")
    assert pictures["dense"].size == (32, 32)
    assert pictures["dense"].tobytes() != pictures["compressed"].tobytes()


def test_the_command_line_calibrates(tmp_path: Path) -> None:
    model, prompts = tmp_path / "model", tmp_path / "prompts.txt"
    tiny_flux_pipeline().save_pretrained(model)
    prompts.write_text("\n".join(PROMPTS))
    side = ("--height", 32, "--width", 48)
    options = ("--target", 0.4, "--steps", 5, "--output", tmp_path / "run", *side)
    _diffcr("calibrate", "--model", model, "--prompts", prompts, *options)
    checkpoint = tmp_path / "run" / "checkpoint"
    output = ("--output", tmp_path / "pictures", "--steps", 5, *side)
    _diffcr("generate", PROMPTS[0], "--model", model, "--checkpoint", checkpoint, *output)
    assert Image.open(tmp_path / "pictures" / "image-0000.png").size == (48, 32)


def _diffcr(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0
