"""Directories of pictures, and networks of the published formats with tiny random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

_WIDTH = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
_DEPTH = {"num_hidden_layers": 2}


def picture(seed: int, width: int = 40, height: int = 32) -> Image.Image:
    """Noise with structure at several scales, RGB."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = smooth + random.integers(-40, 40, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_pictures(directory: Path, count: int, seed: int = 0, suffix: str = ".png") -> Path:
    """`count` pictures of several sizes, with indexed names."""
    directory.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image = picture(seed + i, 40 + 8 * (i % 2), 32 + 4 * (i % 3))
        image.save(directory / f"image-{i:04d}{suffix}")
    return directory


def write_clip(directory: Path, image_size: int = 28) -> Path:
    """A CLIP that reads 12 tokens of letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    ends = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1}
    text = CLIPTextConfig(
        vocab_size=len(vocabulary), max_position_embeddings=12, **_WIDTH, **_DEPTH, **ends
    )
    vision = CLIPVisionConfig(image_size=image_size, patch_size=14, **_WIDTH, **_DEPTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(directory)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(directory)
    return directory


def write_dinov2(directory: Path) -> Path:
    """A DINOv2 whose positions are of 70 x 70 pixels."""
    config = Dinov2Config(image_size=70, hidden_size=24, num_attention_heads=4, **_DEPTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Dinov2Model(config)
    model.save_pretrained(directory)
    return directory


class _Pooling(nn.Module):
    """Stands for Inception: it is called as the file of StyleGAN's code is."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        pooled = torch.nn.functional.adaptive_avg_pool2d(x - 128, 2).flatten(1) / 128
        if return_features:
            return pooled
        return pooled.softmax(1)


def write_inception(path: Path) -> Path:
    """A TorchScript file with 12 features."""
    torch.jit.script(_Pooling()).save(str(path))
    return path
