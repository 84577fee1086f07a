"""Where the routers look: scores and kept tokens as maps over the picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from diffcr.binding.calls import named_arguments
from diffcr.binding.model import get_compressor
from diffcr.core.select import rank_tokens
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.modes import evaluating
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.host import host_blocks
from diffcr.hosts.latents import encode_images, grey_inputs
from diffcr.hosts.loading import text_tokens
from diffcr.methods.bound import bound_block
from diffcr.methods.diffcr.plans import LayerPlan, StepContext
from diffcr.scenes import Scene
from diffcr.training.objectives import objective_of


@dataclass(frozen=True)
class RouterMaps:
    """Maps of one picture at some denoising steps.

    Attributes:
        caption: What the picture was painted from, or shows.
        timesteps: [S], of the steps, noisiest first or as asked for.
        scores: [S, L, h, w] float32, the router's logit of every token in every layer; its sigmoid
            is the token's importance (Sec. 3.2).
        kept: [S, L, h, w] bool, the tokens that the layer computes.
        image: The picture, RGB.
        mask: [H, W] bool, where objects are; None where that is not known.
    """

    caption: str
    timesteps: tuple[float, ...]
    scores: NDArray[np.float32]
    kept: NDArray[np.bool_]
    image: Image.Image
    mask: NDArray[np.bool_] | None

    def object_share(self) -> NDArray[np.float64]:
        """Share of every token's patch that objects cover, [h, w] in [0, 1]."""
        assert self.mask is not None, "the mask is not known"
        h, w = self.kept.shape[-2:]
        rows, columns = self.mask.shape[0] // h, self.mask.shape[1] // w
        patches = self.mask[: h * rows, : w * columns].reshape(h, rows, w, columns)
        share: NDArray[np.float64] = patches.mean(axis=(1, 3))
        return share

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name, scores to three decimals; without the picture.

        With a mask, `kept_on_objects` and `kept_on_background` give per step the share of the
        objects' and the background's area that the layers compute, on average.
        """
        values: dict[str, Any] = {
            "caption": self.caption,
            "timesteps": [float(timestep) for timestep in self.timesteps],
            "scores": np.round(self.scores.astype(float), 3).tolist(),
            "kept": self.kept.astype(int).tolist(),
            "mask": None,
        }
        if self.mask is not None:
            objects = self.object_share()
            kept = self.kept.mean(axis=1)
            values["mask"] = self.mask.astype(int).tolist()
            values["kept_on_objects"] = _weighted_means(kept, objects)
            values["kept_on_background"] = _weighted_means(kept, 1 - objects)
        return values


def _weighted_means(maps: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float | None]:
    if weights.sum() == 0:
        return [None] * len(maps)
    return [float((single * weights).sum() / weights.sum()) for single in maps]


@dataclass
class RoutedCall:
    """What the routers said in one call of the transformer, by layer: [N] of the last sample."""

    timestep: float
    scores: list[Tensor] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)


@contextmanager
def recording_routers(pipe_or_transformer: Any) -> Iterator[list[RoutedCall]]:
    """Within the context every call of the attached transformer adds a `RoutedCall` to the list.

    Of a batch the last sample is recorded: with guidance, the one with the prompt.
    """
    transformer = find_transformer(pipe_or_transformer)
    compressor = get_compressor(transformer)
    calls: list[RoutedCall] = []

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = named_arguments(module, args, kwargs)
        calls.append(RoutedCall(_last_timestep(module, arguments)))

    def look(layer: int) -> Any:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            bound = bound_block(block)
            hidden_states = bound.inputs(bound.name_arguments(args, kwargs)).routed
            first = compressor.ranking_layer(layer)
            if first == layer:
                logits = compressor.router_logits(layer, hidden_states[-1:].detach())
            else:
                logits = calls[-1].scores[first].unsqueeze(0)
            plan = _plan_of_last(compressor.context, layer, hidden_states.shape[0])
            ranking = rank_tokens(logits)[0]
            kept = torch.zeros_like(ranking, dtype=torch.bool)
            kept[ranking[: plan.kept_tokens]] = True
            calls[-1].scores.append(logits[0].float().cpu())
            calls[-1].kept.append(kept.cpu())

        return hook

    handles = [transformer.register_forward_pre_hook(begin, with_kwargs=True)]
    for layer, block in enumerate(host_blocks(transformer)):
        handles.append(block.module.register_forward_pre_hook(look(layer), with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _last_timestep(transformer: Any, arguments: Mapping[str, Any]) -> float:
    """Of a batch's last sample, 0 to 1000; 0 for a model that is told none."""
    scale = family_of(transformer).noise_scale(transformer.config)
    if scale is None:
        return 0.0
    values = scale.per_sample(torch.as_tensor(arguments[scale.argument]))
    return float(scale.timesteps(values)[-1])


def _plan_of_last(context: StepContext, layer: int, batch: int) -> LayerPlan:
    for region in context.regions:
        if region.samples is None or batch - 1 in region.samples.tolist():
            return region.layers[layer]
    raise AssertionError("every sample lies in a region")


def router_maps(
    pipe: Any,
    prompt: str,
    steps: Sequence[int],
    num_inference_steps: int = 20,
    **generation: Any,
) -> RouterMaps:
    """Maps while a picture is generated.

    Args:
        pipe: An attached text-to-image pipeline.
        prompt: Of the picture.
        steps: Denoising steps to look at, 0 is the first.
        num_inference_steps: Denoising steps.
        generation: Other arguments of `generate_images`: seed, guidance, size.

    Raises:
        DiffCRError: A step does not exist, or DiffCR is not attached.
    """
    for step in steps:
        if not 0 <= step < num_inference_steps:
            raise DiffCRError(f"step {step} does not exist: give 0 to {num_inference_steps - 1}")
    with recording_routers(pipe) as calls:
        image = generate_images(
            pipe, [prompt], num_inference_steps=num_inference_steps, **generation
        )[0]
    # With guidance some pipelines call twice a step, first for the prompt.
    by_step = [next(same) for _, same in groupby(calls, key=lambda call: call.timestep)]
    return _stack([by_step[step] for step in steps], prompt, image, None)


@torch.no_grad()
def scene_router_maps(
    pipe: Any, scene: Scene, timesteps: Sequence[int], seed: int = 0
) -> RouterMaps:
    """Maps for a scene's own picture under noise, so that its object mask holds exactly.

    Args:
        pipe: An attached text-to-image pipeline with an autoencoder.
        scene: Its resolution is the pipeline's.
        timesteps: Noise levels to look at, 0 to 999.
        seed: Of the noise, the same at every level.
    """
    transformer = find_transformer(pipe)
    family, objective = family_of(transformer), objective_of(pipe.scheduler)
    latents = encode_images(pipe, [scene.image]).to(next(transformer.parameters()).dtype)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    prompt = family.call.encode_prompt(pipe, [scene.caption], text_tokens(pipe)).to(latents.device)
    with evaluating(transformer), recording_routers(pipe) as calls:
        for timestep in timesteps:
            steps = torch.tensor([timestep], device=latents.device)
            noisy = objective.add_noise(latents, noise, steps)
            values = family.denoising_scale(transformer.config).values(steps)
            inputs = family.call.inputs(transformer, noisy, values, prompt)
            transformer(**inputs | grey_inputs(pipe, noisy))
    return _stack(calls, scene.caption, scene.image, scene.mask)


def token_grid(tokens: int, image: Image.Image) -> tuple[int, int]:
    """Rows and columns of a picture's tokens, which have its proportions."""
    height = round((tokens * image.height / image.width) ** 0.5)
    return height, tokens // height


def _stack(
    calls: Sequence[RoutedCall],
    caption: str,
    image: Image.Image,
    mask: NDArray[np.bool_] | None,
) -> RouterMaps:
    scores = torch.stack([torch.stack(call.scores) for call in calls])
    kept = torch.stack([torch.stack(call.kept) for call in calls])
    shape = (*scores.shape[:2], *token_grid(scores.shape[-1], image))
    timesteps = tuple(call.timestep for call in calls)
    return RouterMaps(
        caption,
        timesteps,
        scores.reshape(shape).numpy(),
        kept.reshape(shape).numpy(),
        image,
        mask,
    )
