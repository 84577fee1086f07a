"""Methods to be timed side by side: their names, and models of one set of weights."""

from __future__ import annotations

import copy
import math
import types
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from diffcr.binding.attachment import attach
from diffcr.binding.compilation import compile as compile_attached
from diffcr.binding.lora import remove_lora
from diffcr.binding.model import get_attached, is_attached
from diffcr.checkpoint.loading import load
from diffcr.checkpoint.stored import read_checkpoint, resolve_checkpoint
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.methods.config import DenseConfig, MethodConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.registry import method_names, named_method

ROUTERS_SEED = 0


@dataclass(frozen=True)
class Contender:
    """A method to be timed.

    Attributes:
        name: As the user writes it.
        config: Its configuration. DiffCR without a checkpoint has its target compression ratio in
            every layer.
        checkpoint: Directory with what it learned; None for random routers.
        owns_weights: Whether the checkpoint brings host weights of its own.
        left_out: Share of the layers that a control goes without, in [0, 1).
    """

    name: str
    config: MethodConfig
    checkpoint: Path | None = None
    owns_weights: bool = False
    left_out: float = 0.0


FEWER_LAYERS = "fewer-layers"
DENSE = Contender("dense", DenseConfig())


def parse_contender(text: str) -> Contender:
    """A method from `NAME[:COMPRESSION_RATIO[:PLACEMENT]]`, such as `tome:0.3:block`.

    Every method but `dense` has a ratio, `tome` alone a placement. `diffcr:0.3` is the routed
    forward with a ratio of 0.3 in every layer, which costs what `mod:0.3` costs. `fewer-layers:0.3`
    is a control for timing: the dense model without 30 % of its layers.

    Raises:
        DiffCRError: It is not written so, or a value is outside the method's range.
    """
    name, *settings = text.split(":")
    if name == FEWER_LAYERS and len(settings) == 1:
        left_out = _parse_ratio(text, settings[0])
        if not 0 <= left_out < 1:
            raise DiffCRError(f"method is {text!r}: give a share of the layers in [0, 1)")
        return Contender(f"{name}:{left_out:g}", DenseConfig(), left_out=left_out)
    if name not in method_names() or len(settings) > 2:
        raise DiffCRError(
            f"method is {text!r}: write NAME[:COMPRESSION_RATIO[:PLACEMENT]] with one of "
            f"{', '.join(method_names())}, such as tome:0.3:block"
        )
    if name == DenseConfig.method:
        if settings:
            raise DiffCRError(f"method is {text!r}: dense has no compression ratio")
        return DENSE
    if not settings:
        raise DiffCRError(f"method is {text!r}: give a compression ratio, such as {name}:0.3")
    method, (ratio, *placement) = named_method(name), settings
    if placement and not method.takes_placement:
        raise DiffCRError(f"method is {text!r}: {name} takes a ratio alone")
    compression_ratio = _parse_ratio(text, ratio)
    config = method.at_ratio(compression_ratio, *placement)
    return Contender(":".join([name, f"{compression_ratio:g}", *placement]), config)


def _parse_ratio(text: str, ratio: str) -> float:
    try:
        value = float(ratio)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DiffCRError(f"method is {text!r}: {ratio!r} is no compression ratio, give a number")
    return value


def checkpoint_contender(directory_or_hub_id: str | Path) -> Contender:
    """What a checkpoint holds, under the name `checkpoint`.

    Raises:
        DiffCRError: There is none, or it is damaged.
    """
    stored = read_checkpoint(resolve_checkpoint(directory_or_hub_id))
    return Contender("checkpoint", stored.config, stored.directory, bool(stored.weights))


def build(contender: Contender, transformer: nn.Module, compiled: bool = False) -> nn.Module:
    """A model under a method, in eval mode; weights are shared with the bare transformer, which
    stays bare. All of them are frozen: which kernels run depends on it.

    A checkpoint's LoRA is left out: merged into its layers it costs nothing. One with host weights
    gets a copy of them.

    Args:
        contender: The method.
        transformer: Bare.
        compiled: Blocks of the dense model and of routed methods are compiled, training-free
            methods as a whole.

    Raises:
        DiffCRError: The checkpoint belongs to another model, or the method does not fit.
    """
    model = (
        copy.deepcopy(transformer) if contender.owns_weights else _with_same_weights(transformer)
    )
    if contender.checkpoint is not None:
        load(model, contender.checkpoint)
        remove_lora(model)
    else:
        attach_untrained(model, contender.config)
        leave_out_layers(model, contender.left_out)
    if is_attached(model) and get_attached(model).depends_on_steps:
        raise DiffCRError(
            f"{contender.name} computes less from step to step, and a forward alone is dense: "
            "time it with diffcr eval"
        )
    if compiled:
        _compile(model)
    return model.requires_grad_(False).eval()


def leave_out_layers(transformer: nn.Module, share: float) -> None:
    """Take that share of each kind of block out of a bare transformer, evenly spread; the first and
    the last stay."""
    for group in family_of(transformer).block_groups if share else ():
        blocks = getattr(transformer, group)
        count = max(1, round(len(blocks) * (1 - share)))
        last = len(blocks) - 1
        kept = [round(place * last / max(1, count - 1)) for place in range(count)]
        setattr(transformer, group, nn.ModuleList(blocks[place] for place in kept))


def attach_untrained(transformer: nn.Module, config: MethodConfig) -> None:
    """Attach a method as it is timed without a checkpoint: routers are random, every ratio is the
    target. The dense model stays bare."""
    if isinstance(config, DenseConfig):
        return
    attached = attach(transformer, config)
    if isinstance(attached, Compressor):
        draw_routers(attached)
        attached.set_compression_ratios(attached.config.target_compression_ratio)


def _with_same_weights(transformer: nn.Module) -> nn.Module:
    tensors = (*transformer.parameters(), *transformer.buffers())
    return copy.deepcopy(transformer, {id(tensor): tensor for tensor in tensors})


def draw_routers(compressor: Compressor) -> None:
    """Make routers random in place: untrained ones are 0, and all tokens would tie."""
    generator = torch.Generator().manual_seed(ROUTERS_SEED)
    with torch.no_grad():
        for router in compressor.routers.values():
            router.copy_(torch.randn(router.shape, generator=generator))


def _compile(model: nn.Module) -> None:
    attached = getattr(model, "diffcr", None)
    if attached is not None:
        alike = isinstance(attached, Compressor) or attached.replaces_weights
        compile_attached(model, "block" if alike else "model")
        return
    for group in family_of(model).block_groups:
        blocks = getattr(model, group)
        # One function for all blocks: they share its graph.
        forward = torch.compile(type(blocks[0]).forward, dynamic=False, fullgraph=True)
        for block in blocks:
            vars(block)["forward"] = types.MethodType(forward, block)
