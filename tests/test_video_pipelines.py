"""What training gives transformers of videos is what their pipelines give them."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from diffcr.evaluation.calibration import calibrate
from diffcr.evaluation.generate import Generation
from diffcr.evaluation.sampling_runs import SamplingRuns
from diffcr.hosts import family_of
from diffcr.hosts.latents import encode_images, grey_inputs, normalise
from diffcr.hosts.sampling import OutputSize, _levels_of_scheduler
from tests.flow_pipelines import tiny_wan_autoencoder
from tests.one_step import assert_same, one_step
from tests.pipelines import tiny_text_encoder, tiny_tokenizer
from tests.tiny_hosts.host import seeded
from tests.video_pipelines import VIDEO_PIPELINES

# Divided by deviations here, and multiplied by their inverses there.
_TO_ROUNDING = "control_hidden_states"
# Beside the noise of videos without sound. The model itself makes the coordinates that its pipeline
# hands it.
_OTHERWISE = {
    "ltx2": {
        *("audio_hidden_states", "audio_num_frames", "isolate_modalities"),
        *("video_coords", "audio_coords"),
    }
}


def with_text_encoder(pipe: Any) -> Any:
    """The pipeline with a tiny T5; its tokenizer."""
    tokenizer = tiny_tokenizer()
    encoder = tiny_text_encoder(len(tokenizer)).eval()
    pipe.register_modules(tokenizer=tokenizer, text_encoder=encoder)
    return tokenizer


@pytest.mark.parametrize("name", VIDEO_PIPELINES)
def test_training_calls_a_model_of_videos_as_its_pipeline_does(name: str) -> None:
    call = VIDEO_PIPELINES[name]()
    pipe, transformer = call.pipe, call.pipe.transformer
    family = family_of(transformer)
    family.call.check_trainable(transformer)
    seen = one_step(pipe, **call.arguments)
    scale = family.denoising_scale(transformer.config)
    values = scale.per_sample(seen.inputs[scale.argument])
    latents = seen.inputs["hidden_states"]
    plain = torch.empty(call.latents)
    assert (
        family.call.latent_shape(transformer.config, *call.latents[3:], call.latents[2])
        == call.latents[1:]
    )
    if latents.shape != plain.shape:
        # Without what stands beside the noise, in the layout of the output.
        latents = family.call.prediction(transformer, latents, plain)[:, : plain.shape[1]]
    given = family.call.inputs(transformer, latents, values, call.prompt)
    given.update(grey_inputs(pipe, latents))
    for argument, expected in seen.inputs.items():
        if argument == _TO_ROUNDING:
            assert torch.allclose(given[argument], expected, atol=1e-6)
        elif argument not in _OTHERWISE.get(name, ()):
            assert_same(given.get(argument), expected, argument)
    assert set(given) <= set(seen.inputs)
    predicted = family.call.prediction(transformer, seen.output, plain)
    assert predicted.shape == plain.shape
    told = seen.prediction
    if name == "cosmos-2":
        # Of x_0 + sigma epsilon: the noise, where the output is the velocity.
        assert torch.allclose(told, (1 - values) * (seen.sample + predicted), atol=1e-2)
    elif name != "cosmos-1":
        told = (
            told if told.shape == plain.shape else family.call.prediction(transformer, told, plain)
        )
        assert torch.allclose(predicted, -told if name == "mochi" else told, atol=1e-5)


@pytest.mark.parametrize("name", ["cogvideox", "mochi", "cosmos-1", "cosmos-2", "allegro"])
def test_captions_are_encoded_one_like_another(name: str) -> None:
    """By T5, which has a tiny form."""
    pipe = VIDEO_PIPELINES[name]().pipe
    tokenizer = with_text_encoder(pipe)
    encode = family_of(pipe.transformer).call.encode_prompt
    captions = ["a red circle", "a blue square and a small star"]
    both = encode(pipe, captions, 16)
    assert both.embeds.shape == (2, 16, 32)
    for place, caption in enumerate(captions):
        alone = encode(pipe, [caption], 16)
        assert torch.allclose(both.embeds[place], alone.embeds[0], atol=1e-5)
        if both.mask is not None:
            assert alone.mask is not None and torch.equal(both.mask[place], alone.mask[0])
            assert both.mask[place].sum() == len(tokenizer(caption).input_ids)


def test_schedulers_that_count_as_their_models_are_told() -> None:
    """From 1000 to 0, or in a logarithm of sigma."""
    levels = {
        name: _levels_of_scheduler(VIDEO_PIPELINES[name]().pipe, torch.zeros(1))
        for name in ("mochi", "cosmos-1", "allegro")
    }
    assert levels == {"mochi": [1.0], "cosmos-1": [0.5], "allegro": [0.0]}


def test_a_pipeline_that_counts_in_sigmas_is_calibrated() -> None:
    """Cosmos 2, from sigma 80 down."""
    pipe = VIDEO_PIPELINES["cosmos-2"]().pipe
    with_text_encoder(pipe)
    config = pipe.transformer.config
    transformer = seeded(partial(type(pipe.transformer).from_config, config, text_embed_dim=32))()
    pipe.transformer, told = transformer, list[float]()
    scale = family_of(transformer).denoising_scale(transformer.config)
    transformer.register_forward_pre_hook(
        lambda _, args, given: told.extend(scale.levels(given["timestep"])), with_kwargs=True
    )
    options = {"num_inference_steps": 4, "guidance_scale": 1.0, "progress": False}
    found = calibrate(pipe, ["a red circle"], **options, size=OutputSize(64, 32))
    assert found.chosen.mean_compression_ratio == 0.25
    levels = SamplingRuns(pipe, ["a"], Generation(0, 4, 1.0), OutputSize(64, 32)).levels
    assert told[:4] == pytest.approx(levels) and levels[0] > 0.98


def test_frames_are_normalised_one_by_one_where_they_have_means_of_their_own() -> None:
    autoencoder = nn.Module()
    means, deviations = torch.arange(12.0).view(4, 3), torch.full((4, 3), 2.0)
    autoencoder.config = {"latents_mean": means.flatten(), "latents_std": deviations.flatten()}
    latents = means[None, :, :2, None, None].expand(1, 4, 2, 5, 5) + 2
    assert torch.equal(normalise(autoencoder, latents), torch.ones(1, 4, 2, 5, 5))


def test_a_picture_has_as_many_frames_as_a_token() -> None:
    transformer = VIDEO_PIPELINES["cogvideox-1.5"]().pipe.transformer
    pipe = SimpleNamespace(transformer=transformer, vae=tiny_wan_autoencoder())
    latents = encode_images(pipe, [Image.new("RGB", (32, 16), (200, 30, 90))])
    assert latents.shape == (1, 4, 2, 2, 4)
    assert torch.equal(latents[:, :, 0], latents[:, :, 1])
