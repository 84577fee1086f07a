"""What a run trains, and what one of its micro-batches is.

Shapes: B samples, C latent channels, h x w latents, K masked tokens of N, patches of p x p latents.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Size, Tensor, nn

from diffcr.core.select import gather_tokens
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.latents import grey_inputs
from diffcr.inpainting.decoder import LazyTransformer2DModel
from diffcr.inpainting.encoder import ContextEncoder
from diffcr.inpainting.pipeline import LazyInpaintPipeline
from diffcr.training.data.encoded import EncodedPictures
from diffcr.training.data.masked import MaskedDataset
from diffcr.training.data.order import GroupedItems, ItemOrder
from diffcr.training.draws import MicroBatch
from diffcr.training.losses import Batch
from diffcr.training.objectives.objective import Objective
from diffcr.training.recipe import TrainingRecipe


class Task(ABC):
    """Which models a run trains on which data.

    Attributes:
        model: What is called.
        trained: The module in it, or itself, that a method is attached to and whose weights move.
        parts: The models of the pipeline that are trained, by their names in it.
        pictures: Encoded, as large as what is generated.
        items: Number of items that are drawn from.
        groups: Items that may share a micro-batch, [m] int64 each; empty where all may.
    """

    model: nn.Module
    trained: nn.Module
    parts: Mapping[str, Any]
    pictures: EncodedPictures
    items: int
    groups: tuple[Tensor, ...] = ()

    def order(self, seed: int) -> ItemOrder:
        """In which order a run meets the items."""
        return self.pictures.order(seed)

    @abstractmethod
    def batch(self, draw: MicroBatch, objective: Objective) -> Batch:
        """What a draw stands for, on the model's device: arguments of its forward, and what they
        were made of."""

    def _noisy_batch(
        self, denoiser: Any, items: Tensor, draw: MicroBatch, objective: Objective
    ) -> Batch:
        """Noisy latents of pictures, [B] `items`, as the denoiser's own family calls it."""
        device, family = next(denoiser.parameters()).device, family_of(denoiser)
        encoded = self.pictures.batch(items, draw.drop_caption)
        latents = encoded.latents.to(device)
        tokens = family.call.tokens_of(denoiser.config, latents.shape[1:])
        levels = objective.draw(draw.timesteps, draw.regions, tokens)
        noise, timesteps = draw.noise.to(device), levels.timesteps.to(device)
        inputs = family.call.inputs(
            denoiser,
            objective.add_noise(latents, noise, timesteps),
            family.denoising_scale(denoiser.config).values(timesteps),
            encoded.prompts.to(device),
        )
        inputs.update(self._grey_inputs(latents))

        def prediction(output: Any) -> Tensor:
            return family.call.prediction(denoiser, output, latents)

        return Batch(inputs, latents, noise, timesteps, levels.weight.to(device), prediction)

    def _grey_inputs(self, latents: Tensor) -> dict[str, Any]:
        return {}


class TextToImage(Task):
    """Every token of a picture is denoised."""

    def __init__(self, pipe: Any, data: EncodedPictures) -> None:
        self.model = self.trained = find_transformer(pipe)
        family_of(self.model).call.check_trainable(self.model)
        self.parts = {"transformer": self.model}
        self.pictures = data
        self.items = len(data)
        self._pipe = pipe
        self._grey: dict[Size, dict[str, Any]] = {}

    def _grey_inputs(self, latents: Tensor) -> dict[str, Any]:
        if latents.shape not in self._grey:
            self._grey[latents.shape] = grey_inputs(self._pipe, latents)
        return self._grey[latents.shape]

    def with_own_model(self) -> TextToImage:
        """The same task with a copy of its model."""
        copied = copy.copy(self)
        copied.model = copied.trained = copy.deepcopy(self.model)
        copied.parts = {"transformer": copied.model}
        return copied

    def batch(self, draw: MicroBatch, objective: Objective) -> Batch:
        """As in `Task`."""
        return self._noisy_batch(self.model, draw.indices, draw, objective)


class LazyModel(nn.Module):
    """Encoder and decoder of a `LazyInpaintPipeline` as one module, which gradients pass through.

    Args:
        encoder: Sees the visible part of a picture.
        decoder: Denoises the masked tokens, with what the encoder says of their places.
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


@dataclass(frozen=True)
class MaskedBatch(Batch):
    """A micro-batch whose model denoises the masked tokens alone, `inputs["token_indices"]`.

    Attributes:
        patch_size: p.
    """

    patch_size: int

    def denoised(self, values: Tensor) -> Tensor:
        """Those under the mask, as a strip one patch high: [B, C, p, K p]."""
        patches = values.unflatten(3, (-1, self.patch_size)).unflatten(2, (-1, self.patch_size))
        tokens = patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [B, N, C, p, p]
        masked = gather_tokens(tokens, self.inputs["token_indices"])
        return masked.permute(0, 2, 3, 1, 4).flatten(3)


class Inpainting(Task):
    """The masked tokens of a picture are denoised, from what an encoder sees of the others."""

    model: LazyModel

    def __init__(self, pipe: Any, data: MaskedDataset, part: str) -> None:
        self.model = LazyModel(pipe.encoder, pipe.transformer)
        both = {"transformer": pipe.transformer, "encoder": pipe.encoder}
        chosen = {"both": [*both], "decoder": ["transformer"], "encoder": ["encoder"]}[part]
        self.parts = {name: both[name] for name in chosen}
        self.trained = self.model if part == "both" else self.parts[chosen[0]]
        self.data = data
        self.pictures = data.pictures
        self.items = len(data)
        self.groups = data.groups

    def order(self, seed: int) -> ItemOrder:
        """As in `Task`: items of a micro-batch have equally many masked tokens."""
        return GroupedItems(self.groups, self.data.pictures.latent_shape)

    def batch(self, draw: MicroBatch, objective: Objective) -> Batch:
        """As in `Task`."""
        decoder = self.model.decoder
        batch = self._noisy_batch(decoder, self.data.picture_of[draw.indices], draw, objective)
        device = batch.latents.device
        batch.inputs.update(
            visible=self.data.visible[draw.indices].to(device),
            coverage=self.data.coverage[draw.indices].to(device),
            token_indices=self.data.token_indices(draw.indices).to(device),
        )
        return MaskedBatch(**vars(batch), patch_size=decoder.config.patch_size)


def make_task(recipe: TrainingRecipe, pipe: Any, data: EncodedPictures | MaskedDataset) -> Task:
    """The task of a recipe.

    Raises:
        DiffCRError: The pipeline or the data are of another task.
    """
    inpaints = recipe.inpainting is not None
    if isinstance(pipe, LazyInpaintPipeline) != inpaints:
        wanted = "a LazyInpaintPipeline" if inpaints else "a text-to-image pipeline"
        raise DiffCRError(f"the recipe is for {wanted}, not for a {type(pipe).__name__}")
    if recipe.inpainting is None:
        if isinstance(data, MaskedDataset):
            raise DiffCRError("the data have masks: encode them with encode_dataset")
        return TextToImage(pipe, data)
    if not isinstance(data, MaskedDataset):
        raise DiffCRError("the data have no masks: encode them with encode_masked")
    return Inpainting(pipe, data, recipe.inpainting.part)
