"""Pipelines of several transformers: Wan 2.2's experts, from text and from an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
)
from PIL import Image
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

import diffcr
from diffcr.binding.model import get_compressor, is_attached
from diffcr.errors import DiffCRError
from diffcr.methods.diffcr.compressor import Compressor
from tests.hosts import scramble
from tests.pipelines import tiny_tokenizer
from tests.tiny_hosts.wan import CHANNELS, build

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")

EXPERTS = ("transformer", "transformer_2")


def _pipeline(cls: type[Any] = WanPipeline, boundary_ratio: float | None = 0.9) -> Any:
    """A pipeline of tiny random parts; the first of three steps is the first expert's."""
    channels = {} if cls is WanPipeline else {"in_channels": 2 * CHANNELS + 4}
    torch.manual_seed(0)
    experts = {name: build(**channels).eval() for name in EXPERTS}
    for expert in experts.values():
        nn.init.normal_(expert.proj_out.weight, std=0.1)
    vae = AutoencoderKLWan(
        base_dim=3,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )
    text = UMT5Config(vocab_size=200, d_model=20, d_kv=10, d_ff=20, num_layers=1, num_heads=2)
    options: dict[str, Any] = (
        {} if cls is WanPipeline else dict.fromkeys(("image_encoder", "image_processor"))
    )
    pipe = cls(
        tokenizer=tiny_tokenizer(),
        text_encoder=UMT5EncoderModel(text).eval(),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        boundary_ratio=boundary_ratio,
        **experts,
        **options,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _frames(pipe: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(2, 1, 7, 20, generator=torch.Generator().manual_seed(1))
    image = {} if isinstance(pipe, WanPipeline) else {"image": Image.new("RGB", (32, 32), "red")}
    frames: np.ndarray = pipe(
        prompt_embeds=embeds[0],
        negative_prompt_embeds=embeds[1],
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=3,
        generator=generator,
        output_type="np",
        **image,
    ).frames
    return frames


def _scramble_all(parts: Any) -> None:
    for seed, part in enumerate(parts.values()):
        assert isinstance(part, Compressor)
        scramble(part, seed)


@pytest.mark.parametrize("cls", [WanPipeline, WanImageToVideoPipeline])
def test_one_line_attaches_to_both_experts(cls: type[Any], tmp_path: Path) -> None:
    pipe = _pipeline(cls)
    bare = _frames(pipe)
    parts = diffcr.attach(pipe)
    assert tuple(parts) == EXPERTS
    assert np.array_equal(_frames(pipe), bare)
    called: list[str] = []
    for name in EXPERTS:
        getattr(pipe, name).register_forward_hook(
            lambda module, args, output, name=name: called.append(name)
        )
    _scramble_all(parts)
    routed = _frames(pipe)
    # With guidance a step is two calls.
    assert called == ["transformer"] * 2 + ["transformer_2"] * 4
    assert not np.array_equal(routed, bare)
    with diffcr.disabled(pipe):
        assert np.array_equal(_frames(pipe), bare)
    assert diffcr.summary(pipe).count("WanTransformer3DModel with") == 2
    directory = diffcr.save(pipe, tmp_path / "saved")
    assert {path.name for path in directory.iterdir()} == {*EXPERTS, "README.md"}
    card = (directory / "README.md").read_text()
    assert all(f"{name}/" in card for name in EXPERTS)
    other = _pipeline(cls)
    assert tuple(diffcr.load(other, directory)) == EXPERTS
    assert np.array_equal(_frames(other), routed)
    diffcr.detach(pipe)
    assert np.array_equal(_frames(pipe), bare)
    assert not any(is_attached(getattr(pipe, name)) for name in EXPERTS)


def test_an_experts_checkpoint_is_not_the_others(tmp_path: Path) -> None:
    pipe = _pipeline()
    _scramble_all(diffcr.attach(pipe))
    directory = diffcr.save(pipe, tmp_path / "saved")
    other = _pipeline()
    with pytest.raises(DiffCRError, match="was trained on"):
        diffcr.load(other.transformer, directory / "transformer_2")
    (directory / "transformer").rename(directory / "aside")
    (directory / "transformer_2").rename(directory / "transformer")
    (directory / "aside").rename(directory / "transformer_2")
    with pytest.raises(DiffCRError, match="was trained on"):
        diffcr.load(other, directory)
    assert not any(is_attached(getattr(other, name)) for name in EXPERTS)


def test_directories_of_one_and_of_both_are_told_apart(tmp_path: Path) -> None:
    pipe = _pipeline()
    diffcr.attach(pipe)
    both = diffcr.save(pipe, tmp_path / "both")
    one = diffcr.save(pipe.transformer, tmp_path / "one")
    with pytest.raises(DiffCRError, match=r"holds no checkpoint for each of .*pipe\.transformer"):
        diffcr.load(pipe, one)
    with pytest.raises(DiffCRError, match=r"of a pipeline's transformer and transformer_2"):
        diffcr.load(pipe.transformer, both)
    diffcr.load(pipe.transformer, both / "transformer")
    assert diffcr.save(pipe, both) == both
    (both / "notes.txt").write_text("mine")
    with pytest.raises(DiffCRError, match="holds other files"):
        diffcr.save(pipe, both)


def test_attaching_takes_both_or_none() -> None:
    pipe = _pipeline()
    diffcr.attach(pipe.transformer_2, diffcr.MoDConfig(0.3))
    with pytest.raises(DiffCRError, match="another configuration is attached"):
        diffcr.attach(pipe)
    assert not is_attached(pipe.transformer)
    assert is_attached(pipe.transformer_2)
    with pytest.raises(DiffCRError, match="call diffcr.attach first"):
        diffcr.save(pipe, "nowhere")
    diffcr.detach(pipe)
    with pytest.raises(DiffCRError, match="call diffcr.attach first"):
        diffcr.detach(pipe)


def test_what_is_for_one_transformer_says_so() -> None:
    pipe = _pipeline()
    diffcr.attach(pipe)
    diffcr.add_lora(pipe, rank=2)
    for call in (
        lambda: get_compressor(pipe),
        lambda: diffcr.parameter_groups(pipe, lr=1e-4),
        lambda: diffcr.calibrate(pipe, ["a prompt"]),
    ):
        with pytest.raises(DiffCRError, match=r"transformer and transformer_2: pass one of them"):
            call()
    assert len(diffcr.parameter_groups(pipe.transformer_2, lr=1e-4)) == 3


def test_a_pipeline_of_one_is_that_one() -> None:
    pipe = _pipeline(boundary_ratio=None)
    pipe.transformer_2 = None
    assert isinstance(diffcr.attach(pipe), Compressor)
    pipe = _pipeline(boundary_ratio=None)
    pipe.transformer, pipe.transformer_2 = None, pipe.transformer
    assert isinstance(diffcr.attach(pipe), Compressor)
