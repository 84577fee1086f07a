"""Make the embedded inpainting pipeline: `python -m diffcr.pretraining.inpainting --output DIR`.

A decoder with the embedded text-to-image model's weights, a context encoder with random ones, and
both trained by `recipes/pretrain-inpainting.yaml`, which resumes where it was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel

from diffcr.files import replacing_directory
from diffcr.inpainting import ContextEncoder, LazyInpaintPipeline, LazyTransformer2DModel
from diffcr.inpainting.opening import load_inpainting_pipeline
from diffcr.pretrained import load_default_pipeline
from diffcr.training.job import run_recipe
from diffcr.training.recipe import find_recipe, load_recipe

ENCODER_LAYERS = 3
_SIDE = 32


def stretched(source: PixArtTransformer2DModel) -> PixArtTransformer2DModel:
    """The text-to-image model for 32 x 32 latents, 256 tokens: its weights, with positions
    stretched so that a place of the picture keeps the position that they learned on their grid."""
    scale = _SIDE / source.config.sample_size * source.config.interpolation_scale
    settings = {**source.config, "sample_size": _SIDE, "interpolation_scale": scale}
    larger: PixArtTransformer2DModel = PixArtTransformer2DModel.from_config(settings)
    larger.load_state_dict(source.state_dict())
    return larger.to(source.device).eval()


def assemble_inpainting(pipe: Any, seed: int) -> LazyInpaintPipeline:
    """An untrained `LazyInpaintPipeline` of that size.

    Args:
        pipe: The text-to-image pipeline that gives everything but the encoder.
        seed: Of the encoder's weights.
    """
    larger = stretched(pipe.transformer)
    torch.manual_seed(seed)
    encoder = ContextEncoder(
        num_attention_heads=larger.config.num_attention_heads,
        attention_head_dim=larger.config.attention_head_dim,
        in_channels=larger.config.in_channels,
        num_layers=ENCODER_LAYERS,
        sample_size=_SIDE,
        patch_size=larger.config.patch_size,
        interpolation_scale=larger.config.interpolation_scale,
    )
    return LazyInpaintPipeline(
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        vae=pipe.vae,
        transformer=LazyTransformer2DModel.from_text_to_image(larger, encoder.context_channels),
        encoder=encoder.eval(),
        scheduler=pipe.scheduler,
    )


def take_trained(pipe: LazyInpaintPipeline, final: Path) -> None:
    """Put both models that a run of `inpainting.part: both` wrote into a pipeline."""
    device = pipe.transformer.device
    pipe.register_modules(
        transformer=LazyTransformer2DModel.from_pretrained(final / "transformer").to(device),
        encoder=ContextEncoder.from_pretrained(final / "encoder").to(device),
    )


def build_inpainting(output: Path, seed: int = 0, shorten: float = 1.0) -> None:
    """Train the embedded inpainting pipeline.

    Args:
        output: Gets `start/` (untrained), `training/` (the run) and `pipeline/` (trained).
        seed: Initial weights and draws are functions of it.
        shorten: Steps and pictures are multiplied with it, for a trial.
    """
    start = output / "start"
    with replacing_directory(start) as directory:
        assemble_inpainting(load_default_pipeline("cpu"), seed).save_pretrained(str(directory))
    recipe = load_recipe(find_recipe("pretrain-inpainting")).shortened(shorten)
    run_recipe(recipe.with_changes(model=str(start), seed=seed), output / "training")
    pipe = load_inpainting_pipeline(start, "cpu")
    take_trained(pipe, output / "training" / "final")
    with replacing_directory(output / "pipeline") as directory:
        pipe.save_pretrained(str(directory))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the embedded inpainting pipeline.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shorten", type=float, default=1.0, help="factor of steps, for a trial")
    arguments = parser.parse_args()
    build_inpainting(arguments.output, arguments.seed, arguments.shorten)


if __name__ == "__main__":
    main()
