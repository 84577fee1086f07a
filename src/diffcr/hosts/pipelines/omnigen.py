"""How OmniGen is called (diffusers/pipelines/omnigen/pipeline_omnigen.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.pipelines.call import PipelineCall, turned_output
from diffcr.hosts.pipelines.prompt import Prompt, of_rows


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """A row for the timestep and those of the image are behind the text."""
    patch = transformer.config.patch_size
    tokens = latents.shape[2] // patch * (latents.shape[3] // patch)
    text = prompt.padded_in_front()
    seen = torch.cat([text.seen, text.seen.new_ones(len(latents), 1 + tokens)], dim=1)
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "input_ids": text.embeds,
        "input_img_latents": [],
        "input_image_sizes": {},
        "attention_mask": _attention(seen, tokens),
        "position_ids": (seen.cumsum(1) - 1).clamp(min=0),
        "return_dict": False,
    }


def _attention(seen: Tensor, tokens: int) -> Tensor:
    """Of rows [B, S] bool that are no padding, and the last `tokens` an image's: [B, S, S] float32,
    1 where a row sees another. Text sees what is before it, the image and padding see all."""
    rows = seen.shape[1]
    causal = torch.ones(rows, rows, device=seen.device).tril()
    causal[rows - tokens :] = 1
    return torch.where(seen[:, :, None], causal * seen[:, None], 1.0)


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """The model embeds tokens itself. They are those of the pipeline's instruction, captions among
    them, whose end cannot be cut."""
    device, prompts = pipe._execution_device, []
    for caption in captions:
        found = pipe.multimodal_processor.process_multi_modal_prompt(caption, None)["input_ids"]
        if len(found) > max_sequence_length:
            raise DiffCRError(
                f"a caption has {len(found)} tokens with its instruction, more than "
                f"max_sequence_length ({max_sequence_length}): shorten it or give a larger one"
            )
        prompts.append(torch.tensor(found, device=device))
    return of_rows(prompts)


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    tokens = torch.zeros(1, text_tokens, dtype=torch.int64)
    return Prompt(tokens, torch.ones_like(tokens))


OMNIGEN_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=_encode,
    prediction=turned_output,
    blank_prompt=_blank_prompt,
)
