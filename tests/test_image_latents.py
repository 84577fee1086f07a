"""Latents as pipelines of pictures make them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffcr.hosts import family_of
from diffcr.hosts.latents import encode_images, normalise
from diffcr.hosts.pipelines.prompt import of_rows
from diffcr.hosts.sampling import LatentSize, latent_size
from diffcr.training.data.encoding import weight_samples
from tests.image_pipelines import (
    GIVEN,
    flux2_autoencoder,
    host,
    klein,
)


@pytest.mark.parametrize(("name", "own"), [("bria", 128), ("prx", 64)])
def test_sides_of_latents_are_those_that_a_pipeline_makes(name: str, own: int) -> None:
    """Bria's pipeline counts two latents as one, PRX's its own size in pixels."""
    pipe = GIVEN[name].make()
    assert latent_size(pipe) == LatentSize(own, own)
    side = {"bria": 32, "prx": 64}[name]
    assert latent_size(pipe, side, side) == LatentSize(8, 8)
    if name == "bria":
        assert encode_images(pipe, [Image.new("RGB", (side, side))]).shape == (1, 4, 8, 8)


def test_statistics_that_latents_are_scaled_with_tell_autoencoders_apart() -> None:
    autoencoder = flux2_autoencoder()
    before = [*weight_samples(autoencoder)]
    assert before == [*weight_samples(autoencoder)]
    autoencoder.bn.running_var.add_(1)
    assert before != [*weight_samples(autoencoder)]


def test_latents_of_flux2_are_normalised_as_the_pipeline_does() -> None:
    pipe = klein()
    pixels = torch.rand(1, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        own = pipe.vae.encode(pixels).latent_dist.mode()
        expected = pipe._encode_vae_image(pixels, None)
    assert torch.allclose(pipe._patchify_latents(normalise(pipe.vae, own)), expected, atol=1e-6)


def test_latents_of_ideogram_are_what_the_pipeline_decodes() -> None:
    """By the arithmetic with which it undoes it, on packed latents."""
    vae = flux2_autoencoder()
    plain = torch.randn(1, 4, 4, 6)
    packed = call_of_latents(normalise(vae, plain, places_first=True))
    deviation = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
    tokens = packed * deviation + vae.bn.running_mean
    grid = tokens.view(1, 2, 3, 2, 2, 4).permute(0, 5, 1, 3, 2, 4)
    assert torch.allclose(grid.reshape(1, 4, 4, 6), plain, atol=1e-6)


def call_of_latents(latents: Tensor) -> Tensor:
    """Ideogram's packed tokens of latents, [1, N, C]."""
    transformer = host("Ideogram4Transformer2DModel")
    inputs = family_of(transformer).call.inputs
    given = inputs(transformer, latents, torch.ones(1), of_rows([torch.randn(3, 20)]))
    return given["hidden_states"][:, 3:]
