"""What a method makes every layer of a model compute, from configurations alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffcr.checkpoint.contenders import Contender
from diffcr.checkpoint.stored import read_checkpoint
from diffcr.cost.flops import LayerCost, TransformerShape, routed_costs
from diffcr.errors import DiffCRError
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.at_edm.pruner import pruning_costs
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.config import RoutedConfig
from diffcr.methods.diffcr.ratios import BINS, bounded, kept_tokens, snap_bins
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.pruning.pruner import pruned_costs
from diffcr.methods.tome.config import ToMeConfig
from diffcr.methods.tome.merger import merging_costs


def method_costs(
    contender: Contender, shape: TransformerShape
) -> Sequence[Sequence[LayerCost]] | None:
    """What every layer computes in every timestep region, [L][R]; None for the dense model.

    Args:
        contender: The method. DiffCR without a checkpoint has its target in every layer.
        shape: Of the model.

    Raises:
        DiffCRError: The checkpoint is damaged or another model's.
    """
    config = contender.config
    if isinstance(config, DenseConfig):
        return None
    if isinstance(config, ToMeConfig):
        return merging_costs(config, shape)
    if isinstance(config, ATEDMConfig):
        return pruning_costs(config, shape)
    if isinstance(config, StructuredPruningConfig):
        return pruned_costs(config, shape)
    assert isinstance(config, RoutedConfig)
    if contender.checkpoint is not None:
        bins = _learned_bins(contender.checkpoint, config, shape.layers)
    else:
        bins = [[round(config.target_compression_ratio * BINS)]] * shape.layers
    tokens = shape.image_tokens
    kept = [[kept_tokens(tokens, bin_index) for bin_index in row] for row in bins]
    return routed_costs(shape, kept)


def _learned_bins(directory: Path, config: RoutedConfig, layers: int) -> list[list[int]]:
    ratios = read_checkpoint(directory).state["ratios"]
    if len(ratios) != layers:
        raise DiffCRError(
            f"{directory} has ratios of {len(ratios)} layers, the model has {layers}: "
            "give the model that it was trained on"
        )
    return snap_bins(bounded(ratios, config.max_compression_ratio).tolist(), config.max_bin)
