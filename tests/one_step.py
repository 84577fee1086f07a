"""One step of a pipeline, to compare training's calls of its transformer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts import family_of
from diffcr.hosts.prompt import Prompt


@dataclass
class OneStep:
    """What a pipeline's last step was: the transformer's arguments and output, and what the
    scheduler was told."""

    inputs: dict[str, Any]
    output: Any
    prediction: Tensor
    sample: Tensor


def one_step(pipe: Any, **arguments: Any) -> OneStep:
    seen: dict[str, Any] = {}
    names = ("x", "t", "cap_feats")  # Z-Image's are passed by position

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen.update(inputs={**dict(zip(names, args, strict=False)), **kwargs}, output=output[0])

    step = pipe.scheduler.step

    def watched(model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any:
        seen.update(prediction=model_output, sample=sample)
        return step(model_output, timestep, sample, **options)

    pipe.scheduler.step = watched
    hook = pipe.transformer.register_forward_hook(look, with_kwargs=True)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    pipe(num_inference_steps=2, generator=generator, output_type="latent", **arguments)
    hook.remove()
    return OneStep(**seen)


def assert_called_as_the_pipeline_calls(
    pipe: Any, step: OneStep, prompt: Prompt, size: tuple[int, int]
) -> None:
    """What the family makes of the step's latents, of so many rows and columns, and of the prompt
    are the arguments that the pipeline gave, and of the output what it told its scheduler."""
    family, transformer = family_of(pipe.transformer), pipe.transformer
    scale = family.denoising_scale(transformer.config)
    values = scale.per_sample(step.inputs[scale.argument])
    packed = step.sample.dim() == 3
    shape = (1, family.latent_channels(transformer.config), *size)

    def latents_of(values: Tensor) -> Tensor:
        return _unpacked(values, shape) if packed else values

    latents = latents_of(step.sample)
    given = family.call_inputs(transformer, latents, values, prompt)
    for argument, expected in step.inputs.items():
        _assert_same(given.get(argument), expected, argument)
    assert set(given) <= set(step.inputs)
    predicted = family.prediction(transformer, step.output, latents)
    assert torch.equal(predicted, latents_of(step.prediction))


def _unpacked(tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Of tokens [B, N, C p p] latents of a shape (B, C, h, w)."""
    _, channels, rows, columns = shape
    side = round((tokens.shape[2] // channels) ** 0.5)
    grid = tokens.view(1, rows // side, columns // side, channels, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(shape)


def _assert_same(found: Any, expected: Any, name: str) -> None:
    if isinstance(expected, Tensor):
        assert torch.equal(found, expected), name
    elif isinstance(expected, list) and isinstance(expected[0], Tensor):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), name
    else:
        assert not found if not expected else found == expected, name
