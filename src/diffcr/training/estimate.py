"""What a run needs of each process's device, from its recipe and the model's configuration alone.

Weights, gradients and states are counted on a model without data. Activations are estimated as
34 N D bytes a layer and sample for N tokens of width D in half precision, with attention that keeps
no map (Korthikanti et al. 2022, arXiv 2205.05198, Sec. 4.1; twice that in float32): a block with
cross-attention or modulation of its own keeps more, one that drops tokens less.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffcr.errors import DiffCRError, first_line
from diffcr.files import read_json
from diffcr.hosts import family_of, host_blocks_within
from diffcr.hosts.input_size import InputSize
from diffcr.pretrained import default_pipeline_path
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.run import make_trainable

_FLOAT32 = 4
_BYTES_PER_ACTIVATION = 34


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process needs while it trains, by what for.

    Attributes:
        weights: Of the transformer, float32.
        gradients: Of what is trained, with the copy that DistributedDataParallel sends.
        optimizer: The two moments of AdamW.
        averages: Of what is trained, and the weights that they take the place of while saving.
        teacher: A second model, where what is distilled from is no longer in the first.
        gathered: Blocks and the model's own group that are whole while they compute.
        activations: Of the samples of one micro-batch.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int
    teacher: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())

    def lines(self) -> list[str]:
        """For people, in GiB."""
        parts = {**asdict(self), "total": self.total}
        return [f"{name:<12}{bytes_ / 2**30:8.2f} GiB" for name, bytes_ in parts.items()]


def estimate_memory(recipe: TrainingRecipe, processes: int = 1) -> MemoryEstimate:
    """Estimate what a recipe needs of each of several processes' devices.

    Args:
        recipe: Its `model` is a pipeline directory, which needs no weights, or a Hub id, of which
            the configuration alone is fetched.
        processes: That the batch is split over, and with `sharding` the model.

    Raises:
        DiffCRError: The model cannot be found, its inputs are not known, or the batch cannot be
            split.
    """
    micro, left = divmod(recipe.batch_size, recipe.gradient_accumulation * processes)
    if left:
        raise DiffCRError(
            f"batch_size {recipe.batch_size} cannot be split over {processes} processes and "
            f"{recipe.gradient_accumulation} micro-batches"
        )
    model = recipe.model or str(default_pipeline_path())
    config = read_config(model, "transformer")
    with torch.device("meta"):
        transformer = _class_of(config).from_config(config)
        bare = _size(transformer)
        make_trainable(transformer, replace(recipe, checkpoint=""))
    trained = _size(transformer, trained_alone=True)
    sharded = recipe.sharding == "fsdp" and processes > 1
    share = processes if sharded else 1
    blocks = [_size(block) for block in host_blocks_within(transformer)]
    own = _size(transformer) - sum(blocks)
    copies = recipe.finetune == "full" and recipe.distillation_weight > 0
    reduced = 2 if processes > 1 and not sharded else 1
    return MemoryEstimate(
        weights=_FLOAT32 * _size(transformer) // share,
        gradients=_FLOAT32 * reduced * trained // share,
        optimizer=2 * _FLOAT32 * trained // share,
        averages=2 * _FLOAT32 * trained // share if recipe.ema_decay > 0 else 0,
        teacher=_FLOAT32 * bare // share if copies or recipe.checkpoint else 0,
        # The next block arrives while one computes; gradients are whole until they are reduced.
        gathered=_FLOAT32 * (3 * max(blocks) + 2 * own) if sharded else 0,
        activations=micro * _activations(transformer, recipe, model),
    )


def _activations(transformer: Any, recipe: TrainingRecipe, model: str) -> int:
    """Bytes of one sample's activations in all layers."""
    family = family_of(transformer)
    vae = read_config(model, "vae")
    levels = vae.get("block_out_channels")
    scale = vae.get("scale_factor_spatial", 8) if levels is None else 2 ** (len(levels) - 1)
    side = recipe.data.resolution // scale
    text = recipe.data.max_sequence_length
    given = family.call.inputs_without_content(transformer, InputSize(text, side, side))
    tokens = family.tokens(transformer, given) + text
    values = tokens * family.width(transformer.config)
    layer = _BYTES_PER_ACTIVATION * values * (2 if recipe.mixed_precision == "no" else 1)
    layers = len(list(host_blocks_within(transformer)))
    if recipe.gradient_checkpointing:
        # The input of every block, float32 beside its weights, and one block at a time.
        return layers * _FLOAT32 * values + layer
    return layers * layer


def read_config(model: str, part: str) -> dict[str, Any]:
    """Configuration of a part of a pipeline: from a directory, or from the Hub alone.

    Raises:
        DiffCRError: There is none.
    """
    file = Path(model) / part / "config.json"
    if Path(model).is_dir():
        return read_json(file)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return read_json(Path(hf_hub_download(model, f"{part}/config.json")))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = first_line(error)
        raise DiffCRError(f"{model} has no {part}/config.json: {reason}") from error


def _class_of(config: dict[str, Any]) -> Any:
    import diffusers

    found = getattr(diffusers, str(config.get("_class_name")), None)
    if found is None:
        raise DiffCRError(f"diffusers has no {config.get('_class_name')}: give another model")
    return found


def _size(module: nn.Module, trained_alone: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_alone)
