"""What a pipeline gives its transformer in a step, and its scheduler of the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class OneStep:
    """What a pipeline's second step was: the transformer's arguments and output, and what the
    scheduler was told."""

    inputs: dict[str, Any]
    output: Any
    prediction: Tensor
    sample: Tensor


class _StopError(Exception):
    """Ends a call of a pipeline."""


def one_step(pipe: Any, **arguments: Any) -> OneStep:
    """Nothing is decoded, so that the pipeline needs no autoencoder."""
    seen: dict[str, Any] = {}
    calls = []
    # Z-Image's and EasyAnimate's are passed by position.
    names = ("x", "t", "cap_feats") if "ZImage" in type(pipe).__name__ else _POSITIONS

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(1)
        seen.update(inputs={**dict(zip(names, args, strict=False)), **kwargs}, output=output[0])

    step, stepped = pipe.scheduler.step, 0

    def watched(model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any:
        nonlocal stepped
        if stepped == len(calls):
            return (sample,)  # of the sound, beside the video
        stepped = len(calls)
        if stepped == 2:
            seen.update(prediction=model_output, sample=sample)
            raise _StopError
        return step(model_output, timestep, sample, **options)

    pipe.scheduler.step = watched
    hook = pipe.transformer.register_forward_hook(look, with_kwargs=True)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    try:
        pipe(num_inference_steps=2, generator=generator, output_type="latent", **arguments)
    except _StopError:
        hook.remove()
    return OneStep(**seen)


_POSITIONS = ("hidden_states", "timestep")


def assert_same(found: Any, expected: Any, name: str) -> None:
    """Equal to the bit; what is None may be left out."""
    if isinstance(expected, Tensor):
        assert torch.equal(found, expected), name
    elif isinstance(expected, (list, tuple)) and not isinstance(expected[0], (int, float)):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, name)
    else:
        assert not found if not expected else found == expected, name
