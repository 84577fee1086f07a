"""How the size of all blocks' update changes from step to step, which MagCache skips steps by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import generate_images
from diffcr.hosts import find_transformer
from diffcr.hosts.host import host_blocks


@torch.no_grad()
def measure_mag_ratios(
    pipe: Any, prompts: Sequence[str], num_inference_steps: int = 20, guidance_scale: float = 4.5
) -> tuple[float, ...]:
    """The ratios that `MagCacheConfig` needs, of this model and number of steps (arXiv 2506.09045).

    The ratio of a step is the mean, over tokens and images, of the norm of what all blocks add to a
    token by the norm of what they added at the step before; that of the first step is 1.

    Args:
        pipe: A text-to-image pipeline, whose model is called once a step with all samples: bare, or
            with a method that is no step cache.
        prompts: One image each, all in one call of the pipeline.
        num_inference_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance.

    Returns:
        As many ratios as steps.

    Raises:
        DiffCRError: There are no prompts, or the model is not called once a step.
    """
    blocks = [block.module for block in host_blocks(find_transformer(pipe))]
    layouts = [block.layout for block in host_blocks(find_transformer(pipe))]
    entered: list[Tensor] = []
    updates: list[Tensor] = []

    def enter(block: Any, args: Any, kwargs: Any) -> None:
        entered.append(kwargs[layouts[0].hidden_states] if not args else args[0])

    def leave(block: Any, args: Any, output: Any) -> None:
        tokens = output if isinstance(output, Tensor) else output[-1]
        updates.append((tokens - entered[-1]).float().norm(dim=-1))

    handles = [
        blocks[0].register_forward_pre_hook(enter, with_kwargs=True),
        blocks[-1].register_forward_hook(leave),
    ]
    try:
        generate_images(
            pipe,
            prompts,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            batch_size=max(1, len(prompts)),
        )
    finally:
        for handle in handles:
            handle.remove()
    if len(updates) != num_inference_steps:
        raise DiffCRError(
            f"the model was called {len(updates)} times in {num_inference_steps} steps, and "
            "MagCache counts calls: give guidance_scale=1, or choose another cache"
        )
    ratios = [
        (now / before).mean().item() for before, now in zip(updates, updates[1:], strict=False)
    ]
    return (1.0, *ratios)
