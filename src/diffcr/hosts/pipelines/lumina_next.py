"""How Lumina-Next is called (diffusers/pipelines/lumina/pipeline_lumina.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_seen_rows


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Rotary places as for pictures of the model's own size, which the pipeline stretches for
    larger ones."""
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

    config = transformer.config
    rows, columns = (side // config.patch_size for side in latents.shape[2:])
    width = config.hidden_size // config.num_attention_heads
    own_tokens = (config.sample_size // config.patch_size) ** 2
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "encoder_hidden_states": prompt.embeds,
        "encoder_mask": prompt.mask,
        "image_rotary_emb": get_2d_rotary_pos_embed_lumina(width, rows, columns),
        "cross_attention_kwargs": {"base_sequence_length": own_tokens},
        "return_dict": False,
    }


def _prediction(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The pipeline takes the first half of the channels and turns the sign."""
    return -output[:, : latents.shape[1]]


LUMINA_NEXT_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_seen_rows,
    prediction=_prediction,
    blank_prompt=partial(blank_text, channels="cross_attention_dim", masked=True),
)
