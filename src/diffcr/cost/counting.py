"""Floating-point operations of a model under a method, counted while it runs on the meta device.

A model of the same class and configuration is made there, where tensors have shapes and no data;
the method is attached to it as to any, and one forward of one sample runs in every timestep region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffcr.binding.attachment import attach
from diffcr.binding.model import computing_all_tokens, get_attached, is_attached
from diffcr.checkpoint.contenders import Contender, attach_untrained, leave_out_layers
from diffcr.checkpoint.stored import read_checkpoint
from diffcr.cost.flops import FlopCount, Flops
from diffcr.errors import DiffCRError, DiffCRWarning, first_line
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.host import HostBlock, host_blocks
from diffcr.hosts.input_size import InputSize
from diffcr.methods.config import MethodConfig

_aten = torch.ops.aten
_LINEAR = frozenset((_aten.addmm, _aten.mm, _aten.mv, _aten.convolution))


def count_flops(transformer: nn.Module, size: InputSize, batch_size: int = 1) -> FlopCount:
    """Count a model as it is, bare or with methods attached; it is not called.

    A LoRA is left out: merged into its layers it costs nothing. Of a step cache nothing is counted:
    what a model computes that computes every step.

    Args:
        transformer: On any device.
        size: Of a sample's inputs.
        batch_size: Samples.

    Raises:
        DiffCRError: Its class is not supported, or its forward does not run on shapes
            alone, as one that depends on values in its inputs.
    """
    transformer = find_transformer(transformer)
    twin = _on_meta(transformer)
    if is_attached(transformer):
        attached = get_attached(transformer)
        # A step cache has no operations of its own, and decides by values what it skips.
        configs = [m.config for m in attached.stack() if not m.hooks_blocks]
        if configs:
            _attach_all(twin, configs[::-1], attached.state_dict())
    return _count(twin, size, batch_size)


def count_contender(
    contender: Contender, transformer: nn.Module, size: InputSize, batch_size: int = 1
) -> FlopCount:
    """Count a bare model under a method; neither the model's weights nor a checkpoint's matter.

    Args:
        contender: The method. DiffCR without a checkpoint has its target in every layer.
        transformer: Bare, on any device.
        size: Of a sample's inputs.
        batch_size: Samples.

    Raises:
        DiffCRError: The method does not fit, or the checkpoint is damaged or another model's.
    """
    twin = _on_meta(transformer)
    if contender.checkpoint is None:
        attach_untrained(twin, contender.config)
        leave_out_layers(twin, contender.left_out)
    else:
        stored = read_checkpoint(contender.checkpoint)
        _attach_all(twin, (*stored.beneath, stored.config), stored.state, str(stored.directory))
    return _count(twin, size, batch_size)


def _on_meta(transformer: nn.Module) -> Any:
    """A bare model of the same class and configuration, without data."""
    family_of(transformer)
    host: Any = transformer
    with torch.device("meta"):
        return type(host).from_config(host.config).eval()


def _attach_all(
    twin: Any, configs: Sequence[MethodConfig], state: Mapping[str, Tensor], source: str = ""
) -> None:
    """Attach methods in this order, and give the last one what of its state its calls read: what it
    keeps off the meta device, ratios."""
    for config in configs:
        attached = attach(twin, config)
    read = {name: value for name, value in attached.state_dict().items() if not value.is_meta}
    for name, value in read.items():
        if state[name].shape != value.shape:
            raise DiffCRError(
                f"{source} has {name} of {len(state[name])} layers, the model has {len(value)}: "
                "give the model that it was trained on"
            )
    if read:
        attached.load_state_dict({name: state[name] for name in read}, strict=False)


def _count(twin: Any, size: InputSize, batch_size: int) -> FlopCount:
    arguments = family_of(twin).call.inputs_without_content(twin, size)
    regions: list[_Forward] = []
    if is_attached(twin):
        with computing_all_tokens(twin):
            dense = _run(twin, arguments)
        attached = get_attached(twin)
        # From noise to picture: what a call keeps for later ones is there when they come.
        for region in reversed(range(attached.timestep_regions)):
            with attached.in_region(region):
                regions.insert(0, _run(twin, arguments))
    else:
        dense = _run(twin, arguments)
        regions.append(dense)
    tokens = family_of(twin).tokens(twin, arguments)
    rows = zip(dense.rows, *(region.rows for region in regions), strict=True)
    layers = zip(*(region.layers for region in regions), strict=True)
    return FlopCount(
        image_tokens=tokens,
        text_tokens=size.text_tokens,
        batch_size=batch_size,
        skipped=[[(every - some) / tokens for some in computed] for every, *computed in rows],
        dense=dense.whole * batch_size,
        per_region=[region.whole * batch_size for region in regions],
        per_layer=[[count * batch_size for count in layer] for layer in layers],
        region_names=get_attached(twin).region_names if is_attached(twin) else None,
    )


@dataclass(frozen=True)
class _Forward:
    """One forward of one sample.

    Attributes:
        whole: All of it.
        layers: Each of its blocks.
        rows: That a block computes, tokens and others, mean over its parts.
    """

    whole: Flops
    layers: Sequence[Flops]
    rows: Sequence[float]


def _run(twin: Any, arguments: Mapping[str, Any]) -> _Forward:
    # torch counts no products of a matrix and a vector, which routers are. Attention is its two
    # products: the meta device has no fused kernel.
    counter = FlopCounterMode(display=False, custom_mapping={_aten.mv: _matrix_vector_flops})
    with torch.no_grad(), counter, catch_warnings():
        # That ratios of 0 save nothing, the count says.
        simplefilter("ignore", DiffCRWarning)
        try:
            twin(**arguments)
        except RuntimeError as error:
            raise DiffCRError(
                f"operations of {type(twin).__name__} cannot be counted: its forward does not run "
                f"on shapes alone, without values or a device ({first_line(error)})"
            ) from error
    root = type(twin).__name__
    by_module = {
        name.removeprefix(f"{root}."): _flops(counts)
        for name, counts in counter.get_flop_counts().items()
    }
    blocks = host_blocks(twin)
    return _Forward(
        by_module[root],
        [by_module.get(block.name, Flops(0, 0)) for block in blocks],
        [_computed_rows(by_module, block) for block in blocks],
    )


def _matrix_vector_flops(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _flops(by_operation: Mapping[Any, int]) -> Flops:
    linear = sum(count for operation, count in by_operation.items() if operation in _LINEAR)
    return Flops(linear, sum(by_operation.values()))


def _computed_rows(by_module: Mapping[str, Flops], block: HostBlock) -> float:
    """Rows that pass the first layer of each part of a block, mean over its parts."""
    computed = [
        by_module.get(f"{block.name}.{path}", Flops(0, 0)).linear // (2 * layer.weight.numel())
        for path, layer in block.layout.first_layers(block.module).items()
    ]
    return sum(computed) / len(computed)
