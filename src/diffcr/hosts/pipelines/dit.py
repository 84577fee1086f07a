"""How DiT is called (diffusers/pipelines/dit/pipeline_dit.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "class_labels": prompt.embeds,
        "return_dict": False,
    }


def _classes(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """A caption is the name or the number of a class; the empty one is the class for none."""
    count = pipe.transformer.config.num_embeds_ada_norm
    known = {str(number): number for number in range(count)} | pipe.labels | {"": count}
    for caption in captions:
        if caption not in known:
            raise DiffCRError(
                f"{caption!r} is no class of {type(pipe).__name__}: give one of its `labels`, or a "
                f"number from 0 to {count - 1}"
            )
    return Prompt(torch.tensor([known[caption] for caption in captions]))


DIT_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=_classes,
    blank_prompt=lambda config, text_tokens: Prompt(torch.zeros(1, dtype=torch.int64)),
)
