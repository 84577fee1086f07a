"""How well pictures match their prompts: both sides of a CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.local_model import load_model, load_tokenizer
from diffcr.evaluation.metrics.networks import FeatureNetwork, Resizing, clip_images


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
        clip: Its image side, whose features have norm 1.
        network: `CLIPModel` of transformers, on `device`.
        tokenizer: `CLIPTokenizer` of the same model.
        device: Where the network is, as torch names it.
    """

    clip: FeatureNetwork
    network: Any
    tokenizer: Any
    device: str

    @torch.no_grad()
    def embed(self, prompts: Sequence[str], batch_size: int = 32) -> PromptEmbeddings:
        """Embeddings of prompts, at least one, each padded or cut to the length that the model
        reads (77 tokens for OpenAI's)."""
        length = self.network.config.text_config.max_position_embeddings
        counts = map(len, self.tokenizer(list(prompts), verbose=False)["input_ids"])
        batches = []
        for start in range(0, len(prompts), batch_size):
            tokens = self.tokenizer(
                list(prompts[start : start + batch_size]),
                padding="max_length",
                truncation=True,
                max_length=length,
                return_tensors="pt",
            ).to(self.device)
            pooled = self.network.text_model(**tokens).pooler_output
            batches.append(normalize(self.network.text_projection(pooled)).cpu())
        return PromptEmbeddings(torch.cat(batches), sum(count > length for count in counts))


def load_matcher(name: str, resizing: Resizing, device: str) -> PromptMatcher:
    """A CLIP and its tokenizer; see `load_model`.

    Raises:
        DiffCRError: One of the two is not on this machine.
    """
    from transformers import CLIPModel

    network: Any = load_model(CLIPModel, name, device)
    tokenizer = load_tokenizer(name)
    expected = network.config.text_config.vocab_size
    # Where its files are missing, transformers makes a tokenizer of a few special tokens.
    if len(tokenizer) != expected:
        raise DiffCRError(
            f"{name} has a tokenizer of {len(tokenizer)} tokens for a model of {expected}: put the "
            "model's tokenizer.json or vocab.json and merges.txt there"
        )
    return PromptMatcher(clip_images(network, name, resizing, device), network, tokenizer, device)


def cosines(images: Tensor, prompts: Tensor) -> Tensor:
    """Cosine of picture i and prompt i, [n] in [-1, 1], of embeddings [n, F] of norm 1."""
    return (images.double() * prompts.double()).sum(1).clamp(-1, 1)
