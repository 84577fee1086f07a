"""Opening a pipeline that the caller names."""

from __future__ import annotations

import inspect
import os
from math import lcm
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError, first_line
from diffcr.files import read_json
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.host import require_blocks

_INPAINTING = "LazyInpaintPipeline"


def load_pipeline(model: str | Path, device: str | None = None) -> Any:
    """A diffusers pipeline from a directory or a Hub id.

    Args:
        model: What `DiffusionPipeline.from_pretrained` takes.
        device: Where to; a GPU where there is one by default.

    Raises:
        DiffCRError: There is no such pipeline, it cannot be read, or its class is not supported.
    """
    from diffusers import DiffusionPipeline

    name = str(model)
    is_id = isinstance(model, str) and is_hub_id(name)
    if not is_id and not Path(model).is_dir():
        raise DiffCRError(f"{name} is not a directory: give a pipeline directory or a Hub id")
    index = Path(model) / "model_index.json"
    if index.is_file() and read_json(index).get("_class_name") == _INPAINTING:
        raise DiffCRError(
            f"{name} is an inpainting pipeline: use `diffcr inpaint`, or a recipe with the section "
            "'inpainting'"
        )
    pipe = read_pipeline(DiffusionPipeline, model)
    require_blocks(find_transformer(pipe))
    return pipe.to(device or own_device())


def is_hub_id(name: str) -> bool:
    """Whether a name is written as the Hub's are, "user/name"."""
    return name.count("/") == 1 and name[0] not in "./~" and not name.endswith("/")


def read_pipeline(pipeline_class: Any, model: str | Path, **components: Any) -> Any:
    """`pipeline_class.from_pretrained(model, **components)`, where whatever it raises is one line.

    Raises:
        DiffCRError: It cannot be read.
    """
    from torch import nn

    try:
        # Without it diffusers falls back to unpickling where there is no safetensors file.
        pipe = pipeline_class.from_pretrained(model, use_safetensors=True, **components)
    except DiffCRError:
        raise
    # Wrong values in its files are found where they are used: a division by a patch size of 0.
    except Exception as error:
        reason = first_line(error)
        raise DiffCRError(
            f"no pipeline can be loaded from {model}: {type(error).__name__}: {reason}"
        ) from error
    for name, part in pipe.components.items():
        # What the files do not hold, diffusers leaves without data.
        for weight, value in part.named_parameters() if isinstance(part, nn.Module) else ():
            if value.is_meta:
                raise DiffCRError(
                    f"no pipeline can be loaded from {model}: the weights of {name} lack {weight}"
                )
    return pipe


def size_multiple(pipe: Any) -> int:
    """What height and width in pixels have to be multiples of: tokens are whole patches of latents,
    and pipelines ask for multiples of 8 besides."""
    transformer = find_transformer(pipe)
    _, rows, columns = family_of(transformer).call.patch(transformer.config)
    return lcm(8, vae_scale(pipe) * rows, vae_scale(pipe) * columns)


def vae_scale(pipe: Any) -> int:
    """Pixels of a side of what becomes one latent."""
    return pipeline_scale(pipe) // family_of(find_transformer(pipe)).call.latents_of_scale


def pipeline_scale(pipe: Any) -> int:
    """Pixels of a side of what the pipeline itself counts as one, such as its default size."""
    names = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
    return next((int(getattr(pipe, name)) for name in names if hasattr(pipe, name)), 8)


def text_tokens(pipe: Any) -> int:
    """Length that the pipeline's prompts are padded to."""
    functions = (type(pipe).__call__, getattr(type(pipe), "encode_prompt", type(pipe).__call__))
    named = (inspect.signature(function).parameters for function in functions)
    lengths = (
        names["max_sequence_length"].default for names in named if "max_sequence_length" in names
    )
    default = next(lengths, 120)
    tokenizer = longest_tokenizer(pipe)
    return int(min(default, default if tokenizer is None else tokenizer.model_max_length))


def longest_tokenizer(pipe: Any) -> Any | None:
    """Of a pipeline's tokenizers the one that `max_sequence_length` is for: beside T5's, CLIP's
    always gives 77 tokens. None where there is none."""
    names = ("tokenizer", "tokenizer_2", "tokenizer_3")
    parts = (getattr(pipe, name, None) for name in names)
    # FLUX.2's is a processor that holds one.
    present = [getattr(part, "tokenizer", part) for part in parts if part is not None]
    return max(present, key=lambda tokenizer: tokenizer.model_max_length, default=None)


def own_device() -> str:
    """This process's GPU where there is one: under torchrun each has its own."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK")
    return "cuda" if rank is None else f"cuda:{int(rank) % torch.cuda.device_count()}"
