"""What a run trains: the model that is called, and what a micro-batch asks of it.

Shapes: B samples, C latent channels, h x w latents, K masked tokens, N tokens of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffcr.core.select import gather_tokens
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of, find_transformer
from diffcr.inpainting.decoder import LazyTransformer2DModel
from diffcr.inpainting.encoder import ContextEncoder
from diffcr.inpainting.pipeline import LazyInpaintPipeline
from diffcr.training.data.encoding import EncodedDataset
from diffcr.training.data.masked import MaskedDataset
from diffcr.training.draws import MicroBatch
from diffcr.training.objective import NoiseSchedule
from diffcr.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class Batch:
    """A micro-batch on its device.

    Attributes:
        inputs: Arguments of the model's forward.
        latents: x_0, [B, C, h, w].
        noise: epsilon, [B, C, h, w].
        timesteps: [B] int64.
    """

    inputs: dict[str, Any]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor


class Task(Protocol):
    """A task of the training loop."""

    @property
    def model(self) -> nn.Module:
        """What is called."""
        ...

    @property
    def trained(self) -> nn.Module:
        """The module in it, or itself, that a method is attached to and whose weights move."""
        ...

    @property
    def parts(self) -> Mapping[str, Any]:
        """The models of the pipeline that are trained, by their names in it."""
        ...

    @property
    def pictures(self) -> EncodedDataset:
        """Encoded, of the size of what is generated."""
        ...

    @property
    def items(self) -> int:
        """Number of items that are drawn from."""
        ...

    @property
    def groups(self) -> tuple[Tensor, ...]:
        """Items that may share a micro-batch, [m] int64 each; empty where all may."""
        ...

    def batch(self, draw: MicroBatch, schedule: NoiseSchedule, device: torch.device) -> Batch:
        """What a draw stands for."""
        ...

    def denoised(self, values: Tensor, batch: Batch) -> Tensor:
        """Of values [B, C, h, w] those of latents that the model denoises, [B, C, h', w']."""
        ...


class TextToImage:
    """Every token of a picture is denoised."""

    groups: tuple[Tensor, ...] = ()

    def __init__(self, pipe: Any, data: EncodedDataset) -> None:
        self.model = self.trained = find_transformer(pipe)
        self.parts: Mapping[str, Any] = {"transformer": self.model}
        self.pictures = data
        self.items = len(data)

    def batch(self, draw: MicroBatch, schedule: NoiseSchedule, device: torch.device) -> Batch:
        """As in `Task`."""
        return _noisy_batch(self.model, self.pictures, draw.indices, draw, schedule, device)

    def denoised(self, values: Tensor, batch: Batch) -> Tensor:
        """All of them."""
        return values


class LazyModel(nn.Module):
    """Encoder and decoder of a `LazyInpaintPipeline` as one module, which gradients pass through.

    Args:
        encoder: Of the visible part of a picture.
        decoder: Of the masked tokens.
    """

    def __init__(self, encoder: ContextEncoder, decoder: LazyTransformer2DModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self, visible: Tensor, coverage: Tensor, token_indices: Tensor, **inputs: Any
    ) -> tuple[Tensor]:
        """What the decoder gives, [B, C_out, h, w] in a tuple.

        Args:
            visible: [B, C, h, w], latents of the pictures with what is masked grey.
            coverage: [B, 1, h, w], share of each latent's pixels that are masked.
            token_indices: [B, K] int64.
            inputs: Further arguments of the decoder's forward.
        """
        context = gather_tokens(self.encoder(visible, mask=coverage), token_indices)
        output: tuple[Tensor] = self.decoder(token_indices=token_indices, context=context, **inputs)
        return output


class Inpainting:
    """The masked tokens of a picture are denoised, from what an encoder sees of the others."""

    def __init__(self, pipe: Any, data: MaskedDataset, part: str) -> None:
        self.model = LazyModel(pipe.encoder, pipe.transformer)
        both = {"transformer": pipe.transformer, "encoder": pipe.encoder}
        chosen = {"both": [*both], "decoder": ["transformer"], "encoder": ["encoder"]}[part]
        self.parts: Mapping[str, Any] = {name: both[name] for name in chosen}
        self.trained: nn.Module = self.model if part == "both" else self.parts[chosen[0]]
        self.data = data
        self.pictures = data.pictures
        self.groups = data.groups
        self.items = len(data)

    def batch(self, draw: MicroBatch, schedule: NoiseSchedule, device: torch.device) -> Batch:
        """As in `Task`."""
        items = self.data.picture_of[draw.indices]
        batch = _noisy_batch(self.model.decoder, self.pictures, items, draw, schedule, device)
        batch.inputs.update(
            visible=self.data.visible[draw.indices].to(device),
            coverage=self.data.coverage[draw.indices].to(device),
            token_indices=self.data.token_indices(draw.indices).to(device),
        )
        return batch

    def denoised(self, values: Tensor, batch: Batch) -> Tensor:
        """Those under the mask, as a strip one patch high: [B, C, p, K p]."""
        patch = self.model.decoder.config.patch_size
        patches = values.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
        tokens = patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [B, N, C, p, p]
        kept = gather_tokens(tokens, batch.inputs["token_indices"])
        return kept.permute(0, 2, 3, 1, 4).flatten(3)


def _noisy_batch(
    denoiser: nn.Module,
    pictures: EncodedDataset,
    items: Tensor,
    draw: MicroBatch,
    schedule: NoiseSchedule,
    device: torch.device,
) -> Batch:
    latents = pictures.latents[items].to(device)
    noise, timesteps = draw.noise.to(device), draw.timesteps.to(device)
    rows = pictures.captions(items, draw.drop_caption)
    inputs = family_of(denoiser).call_inputs(
        denoiser,
        schedule.add_noise(latents, noise, timesteps),
        timesteps,
        pictures.prompt_embeds[rows].to(device),
        pictures.prompt_masks[rows].to(device),
    )
    return Batch(inputs, latents, noise, timesteps)


def make_task(recipe: TrainingRecipe, pipe: Any, data: EncodedDataset | MaskedDataset) -> Task:
    """The task of a recipe.

    Raises:
        DiffCRError: The pipeline or the data are of another task.
    """
    inpaints = recipe.inpainting is not None
    if isinstance(pipe, LazyInpaintPipeline) != inpaints:
        wanted = "a LazyInpaintPipeline" if inpaints else "a text-to-image pipeline"
        raise DiffCRError(f"the recipe is for {wanted}, not for a {type(pipe).__name__}")
    if recipe.inpainting is None:
        if not isinstance(data, EncodedDataset):
            raise DiffCRError("the data have masks: encode them with encode_dataset")
        return TextToImage(pipe, data)
    if not isinstance(data, MaskedDataset):
        raise DiffCRError("the data have no masks: encode them with encode_masked")
    return Inpainting(pipe, data, recipe.inpainting.part)
