"""CLIP: how well pictures match their prompts, and the embeddings of CMMD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.local_model import load_model, load_tokenizer, model_name
from diffcr.evaluation.metrics.preprocessing import (
    CLIP,
    crop_then_resize,
    resize_then_crop,
    resize_then_pad,
)


@dataclass(frozen=True)
class Resizing:
    """How pictures come to the network's size.

    Attributes:
        name: For the record.
        resize: RGB picture and side of the input to [3, side, side] float32, black 0 and white 1.
    """

    name: str
    resize: Callable[[Image.Image, int], Tensor]


CLIP_SCORE = Resizing("bicubic on the shorter side, centre", resize_then_crop)
CMMD = Resizing("centre, bicubic", crop_then_resize)
HPS = Resizing("antialiased bicubic on the longer side, black beside", resize_then_pad)


@dataclass(frozen=True)
class CLIPNetwork:
    """A CLIP model with one way of resizing; its features are image embeddings of norm 1.

    Attributes:
        network: `CLIPModel` of transformers.
        name: For the record.
        resizing: What the pictures go through.
        device: That the network is on.
    """

    network: Any
    name: str
    resizing: Resizing
    device: str

    @property
    def description(self) -> dict[str, str]:
        """Model and resizing."""
        return {"model": self.name, "resizer": f"{self.resizing.name}, {self._side}"}

    @property
    def _side(self) -> int:
        return int(self.network.config.vision_config.image_size)

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """[B, F] float32 of norm 1."""
        pixels = torch.stack([self.resizing.resize(image, self._side) for image in images])
        pooled = self.network.vision_model(pixel_values=CLIP(pixels).to(self.device)).pooler_output
        return normalize(self.network.visual_projection(pooled))


def load_clip(name: str, resizing: Resizing, device: str) -> CLIPNetwork:
    """A CLIP of a local directory or the local Hub cache; see `load_model`."""
    from transformers import CLIPModel

    return CLIPNetwork(load_model(CLIPModel, name, device), model_name(name), resizing, device)


@dataclass(frozen=True)
class PromptEmbeddings:
    """Prompts as the text side of a CLIP sees them.

    Attributes:
        values: [n, F] float32 of norm 1, on the CPU.
        truncated: How many prompts are longer than the model reads.
    """

    values: Tensor
    truncated: int


@dataclass(frozen=True)
class PromptMatcher:
    """Both sides of a CLIP.

    Attributes:
        clip: The model.
        tokenizer: Its own.
    """

    clip: CLIPNetwork
    tokenizer: Any

    @torch.no_grad()
    def embed(self, prompts: Sequence[str], batch_size: int = 32) -> PromptEmbeddings:
        """Embeddings of prompts, at least one, each padded or cut to the length that the model
        reads (77 tokens for OpenAI's)."""
        network = self.clip.network
        length = network.config.text_config.max_position_embeddings
        counts = map(len, self.tokenizer(list(prompts), verbose=False)["input_ids"])
        batches = []
        for start in range(0, len(prompts), batch_size):
            tokens = self.tokenizer(
                list(prompts[start : start + batch_size]),
                padding="max_length",
                truncation=True,
                max_length=length,
                return_tensors="pt",
            ).to(self.clip.device)
            pooled = network.text_model(**tokens).pooler_output
            batches.append(normalize(network.text_projection(pooled)).cpu())
        return PromptEmbeddings(torch.cat(batches), sum(count > length for count in counts))


def load_matcher(name: str, resizing: Resizing, device: str) -> PromptMatcher:
    """A CLIP and its tokenizer; see `load_model`.

    Raises:
        DiffCRError: One of the two is not on this machine.
    """
    clip, tokenizer = load_clip(name, resizing, device), load_tokenizer(name)
    expected = clip.network.config.text_config.vocab_size
    # Where its files are missing, transformers makes a tokenizer of a few special tokens.
    if len(tokenizer) != expected:
        raise DiffCRError(
            f"{name} has a tokenizer of {len(tokenizer)} tokens for a model of {expected}: put the "
            "model's tokenizer.json or vocab.json and merges.txt there"
        )
    return PromptMatcher(clip, tokenizer)


def cosines(images: Tensor, prompts: Tensor) -> Tensor:
    """Cosine of picture i and prompt i, [n] in [-1, 1], of embeddings [n, F] of norm 1."""
    return (images.double() * prompts.double()).sum(1).clamp(-1, 1)
