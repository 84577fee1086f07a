"""The pipeline: called as diffusers' inpainting pipelines are."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, ImagePipelineOutput, PixArtSigmaPipeline
from diffusers.schedulers import KarrasDiffusionSchedulers
from numpy.typing import NDArray
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer

from diffcr.errors import DiffCRError
from diffcr.inpainting.cache import TensorCache, cache_key
from diffcr.inpainting.decoder import LazyTransformer2DModel
from diffcr.inpainting.encoder import ContextEncoder
from diffcr.inpainting.images.blending import Blending
from diffcr.inpainting.images.edits import GREY, Edit
from diffcr.inpainting.images.masks import (
    group_by_count,
    latent_mask,
    mask_coverage,
    masked_tokens,
    token_indices,
)
from diffcr.inpainting.request import OutputType, Prepared, Request, finish, prepare
from diffcr.inpainting.sampling import (
    Sampler,
    decode_pixels,
    encode_pixels,
    encode_prompts,
    guided_prediction,
    pixels_per_token,
    working_side,
)


class LazyInpaintPipeline(PixArtSigmaPipeline):  # type: ignore[misc]
    """Repaints the masked part of pictures; what a step costs follows the mask's area.

    Text encoding, schedulers, offloading and saving are those of `PixArtSigmaPipeline`. A saved
    directory is opened by `LazyInpaintPipeline.from_pretrained`. Threads may share a pipeline: what
    belongs to a call is the call's own.

    Args:
        tokenizer: Of the text encoder.
        text_encoder: T5.
        vae: From pixels to latents and back.
        transformer: The decoder; what `diffcr.attach(pipe)` attaches to.
        encoder: Sees the visible part of a picture once; `diffcr.attach(pipe.encoder, ...)`.
        scheduler: Any that steps latents element by element.

    Raises:
        DiffCRError: Decoder and encoder do not fit each other.
    """

    model_cpu_offload_seq = "text_encoder->encoder->transformer->vae"

    def __init__(
        self,
        tokenizer: T5Tokenizer,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKL,
        transformer: LazyTransformer2DModel,
        encoder: ContextEncoder,
        scheduler: KarrasDiffusionSchedulers,
    ) -> None:
        super().__init__(tokenizer, text_encoder, vae, transformer, scheduler)
        self.register_modules(encoder=encoder)
        self.cache = TensorCache()
        for name in ("patch_size", "in_channels"):
            if transformer.config[name] != encoder.config[name]:
                raise DiffCRError(f"decoder and encoder differ in {name}: make them alike")
        if transformer.config.context_channels != encoder.context_channels:
            raise DiffCRError(
                f"the decoder takes context of {transformer.config.context_channels} channels, "
                f"the encoder gives {encoder.context_channels}: make them alike"
            )

    @property
    def pixels_per_token(self) -> int:
        """Side of a token's square of pixels."""
        return pixels_per_token(self)

    @property
    def working_side(self) -> int:
        """Longer side of the pictures that the model works on, in pixels."""
        return working_side(self)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Any,
        mask_image: Any,
        negative_prompt: str = "",
        num_inference_steps: int = 20,
        guidance_scale: float = 4.5,
        num_images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        blending: Blending = "poisson",
        dilation: int | None = None,
        max_sequence_length: int = 300,
        clean_caption: bool = False,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Repaint the masked part of pictures.

        Images come back at their own size, whatever size the model works at; outside of the dilated
        mask they are equal to those that were given.

        Args:
            prompt: What is to be seen; one for all pictures, or one each.
            image: One or several pictures, as `read_pictures` takes them.
            mask_image: White where a picture is repainted; one for all, or one each.
            negative_prompt: What guidance leads away from.
            num_inference_steps: Denoising steps.
            guidance_scale: Of classifier-free guidance; at most 1 is none.
            num_images_per_prompt: Images per prompt and picture.
            height: That the model works at, in pixels; by default the picture's proportions with
                the model's own size as the longer side.
            width: Likewise.
            generator: One, or one per image that comes back: then no image depends on another.
            latents: Noise [B, C, h, w] in place of a draw.
            output_type: "pil", "np" or "pt".
            return_dict: As in diffusers: an output class, or a tuple.
            blending: "poisson" or "feather".
            dilation: Pixels around the mask that are repainted and blended; 1/64 of the picture's
                longer side by default.
            max_sequence_length: Text tokens at most.
            clean_caption: As in `PixArtSigmaPipeline`.

        Returns:
            The images; under an empty mask the picture that was given, with a `DiffCRWarning`.

        Raises:
            DiffCRError: A picture and its mask differ in size, or an argument is outside its range.
        """
        # The signature above is for those who call; inside, the request goes on whole.
        passed = locals()
        request = Request(**{field.name: passed[field.name] for field in fields(Request)})
        prepared = prepare(request, self.working_side, self.pixels_per_token)
        images = finish(prepared, self._generate(prepared) if prepared.edits else [])
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _generate(self, prepared: Prepared) -> list[NDArray[np.uint8]]:
        """A picture [h, w, 3] per sample, at the model's size."""
        edits, device = prepared.edits, self._execution_device
        prompts = encode_prompts(self, prepared)
        grids = [masked_tokens(edit.working_region, self.pixels_per_token) for edit in edits]
        groups = group_by_count([token_indices(grid).to(device) for grid in grids])
        order = torch.cat([group.samples for group in groups]).argsort()
        of_groups = [prompts.select(group.samples) for group in groups]
        contexts = torch.cat([self.context(edit) for edit in edits]).to(device)
        sampler = Sampler(self, prepared)
        latents = sampler.noise(prompts.embeds.dtype)
        for timestep in sampler:
            given = sampler.model_input(latents, timestep)
            # Group by group, each sample with its own kind alone.
            outputs = [
                guided_prediction(
                    self.transformer,
                    given[group.samples],
                    timestep,
                    chosen,
                    prepared.request.guidance_scale,
                    token_indices=group.indices,
                    context=contexts[group.samples.unsqueeze(1), group.indices],
                )
                for group, chosen in zip(groups, of_groups, strict=True)
            ]
            latents = sampler.step(torch.cat(outputs)[order], timestep, latents)
        surroundings = torch.cat([self.picture_latents(edit.working_pixels) for edit in edits])
        masked = latent_mask(grids, self.transformer.config.patch_size).to(device)
        return decode_pixels(self, torch.where(masked, latents, surroundings.to(latents)))

    @torch.no_grad()
    def context(self, edit: Edit) -> Tensor:
        """The encoder's tokens [1, N, D] of a picture's visible part, computed once.

        Pixels under the region are grey before anything sees them, so tokens of an earlier call are
        used again exactly where the region and all pixels outside of it are the same: for another
        prompt or seed, and on a picture whose repainted part was accepted meanwhile.
        """
        visible = np.where(edit.working_region[..., None], np.uint8(GREY), edit.working_pixels)

        def compute() -> Tensor:
            coverage = mask_coverage(edit.working_region, self.vae_scale_factor)
            latents = encode_pixels(self, visible).to(self.encoder.dtype)
            tokens: Tensor = self.encoder(latents, mask=coverage.to(latents.device))
            return tokens

        key = cache_key((self.vae, self.encoder), visible, edit.working_region)
        return self.cache.get(key, compute)

    def picture_latents(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Scaled latents [1, C, h, w] of a whole picture [H, W, 3], computed once: what the
        autoencoder's decoder sees around the masked tokens."""
        key = cache_key((self.vae,), pixels)
        return self.cache.get(key, lambda: encode_pixels(self, pixels))
