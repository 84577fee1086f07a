"""Structured pruning: the host's blocks run as they are, on narrower weights.

The modules of the host stay, what changes places are their parameters and the sizes that go with
them. So state-dict keys, adapters and compiled forwards find what they look for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffcr.errors import DiffCRError
from diffcr.hosts.host import Host
from diffcr.hosts.layout import BlockLayout, PrunableUnits
from diffcr.hosts.weights import host_parameters, is_quantised
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.pruning.units import (
    UnitSizes,
    kept_counts,
    kept_units,
    unit_features,
    unit_magnitudes,
)


@dataclass(frozen=True)
class _Cut:
    """What of a parameter stays.

    Attributes:
        kept: Name of the buffer with the kept units, [blocks, K].
        row: Of the buffer.
        dim: Dimension of the parameter that holds the units.
        units: Their number before.
    """

    kept: str
    row: int
    dim: int
    units: int


@dataclass
class _Weight:
    """A parameter of the host in two versions.

    Attributes:
        path: Its name in the transformer.
        owner: The module that holds it.
        name: Its name there.
        dense: As it was.
        pruned: What stays of it, or a copy where nothing goes: fine-tuning leaves `dense` alone.
        cut: None where nothing goes.
    """

    path: str
    owner: nn.Module
    name: str
    dense: nn.Parameter
    pruned: nn.Parameter
    cut: _Cut | None


@dataclass(frozen=True)
class _Size:
    """An integer attribute of a module of the host in two versions."""

    owner: nn.Module
    name: str
    dense: int
    pruned: int


class StructuredPruner(Attached[StructuredPruningConfig, None]):
    """The pruned weights of a transformer, and the dense ones while those are in their place.

    `enabled` says which of the two the transformer holds. Which units stay is in buffers, one for
    each kind of them, [blocks, kept] int64: a half-precision load of the same base model may order
    them differently.
    """

    replaces_weights: ClassVar[bool] = True

    def __init__(self, config: StructuredPruningConfig, host: Host) -> None:
        self._weights: list[_Weight] = []
        self._sizes: list[_Size] = []
        super().__init__(config, host)
        self._enabled = False
        transformer: Any = host.transformer
        for name, parameter in host_parameters(transformer):
            if is_quantised(parameter):
                raise DiffCRError(
                    f"{name} is quantised and cannot be pruned: quantise after attach"
                )
        self._summary: list[str] = []
        cuts: dict[Tensor, _Cut] = {}
        for group, layout in host.family.block_groups.items():
            blocks = getattr(transformer, group)
            sizes = [_sizes(blocks[0], units) for units in layout.prunable]
            counts = kept_counts(sizes, config.compression_ratio)
            for units, size, after in zip(layout.prunable, sizes, counts, strict=True):
                cuts |= self._choose(units, f"{group}_{units.name}", blocks, size.count, after)
            self._summary.append(_summary(sizes, counts))
        self._weights = [
            self._weight(path, owner, name, parameter, cuts.get(parameter))
            for path, owner in transformer.named_modules()
            for name, parameter in owner.named_parameters(recurse=False)
        ]
        self._remember_samples()

    def _choose(
        self,
        units: PrunableUnits,
        buffer: str,
        blocks: Iterable[nn.Module],
        before: int,
        after: int,
    ) -> dict[Tensor, _Cut]:
        """Which units of each block stay, and what that cuts of its parameters."""
        cuts: dict[Tensor, _Cut] = {}
        kept = []
        for row, block in enumerate(blocks):
            rows, columns = (
                [_linear(block, path, units) for path in paths]
                for paths in (units.rows, units.columns)
            )
            magnitudes = unit_magnitudes(
                [layer.weight for layer in rows], [layer.weight for layer in columns], before
            )
            kept.append(kept_units(magnitudes, after))
            for layer in rows:
                self._sizes.append(_scaled(layer, "out_features", before, after))
                cuts |= {p: _Cut(buffer, row, 0, before) for p in layer.parameters()}
            for layer in columns:
                self._sizes.append(_scaled(layer, "in_features", before, after))
                cuts[layer.weight] = _Cut(buffer, row, 1, before)
            if units.heads:
                path, _, name = units.heads.rpartition(".")
                self._sizes.append(_Size(block.get_submodule(path), name, before, after))
        self.register_buffer(buffer, torch.stack(kept))
        return cuts

    def _weight(
        self, path: str, owner: nn.Module, name: str, dense: nn.Parameter, cut: _Cut | None
    ) -> _Weight:
        pruned = nn.Parameter(self._selected(dense, cut), dense.requires_grad)
        return _Weight(f"{path}.{name}".lstrip("."), owner, name, dense, pruned, cut)

    def _selected(self, dense: Tensor, cut: _Cut | None) -> Tensor:
        if cut is None:
            return dense.detach().clone()
        kept = self.get_buffer(cut.kept)[cut.row]
        features = unit_features(kept, dense.shape[cut.dim] // cut.units)
        return dense.detach().index_select(cut.dim, features)

    def _remember_samples(self) -> None:
        self.base = self.base.replaced_by((weight.path, weight.pruned) for weight in self._weights)

    @property
    def enabled(self) -> bool:  # type: ignore[override]
        """Whether the transformer holds the pruned weights; setting it exchanges them."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value
        for weight in self._weights:
            # Assigning attributes of a module takes ten times as long.
            weight.owner._parameters[weight.name] = weight.pruned if value else weight.dense
        for size in self._sizes:
            vars(size.owner)[size.name] = size.pruned if value else size.dense

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StructuredPruner:
        # The transformer moves the weights that it holds.
        for weight in self._weights:
            aside = weight.dense if self.enabled else weight.pruned
            aside.data = fn(aside.data)
        applied: StructuredPruner = super()._apply(fn, recurse)
        return applied

    @torch.no_grad()
    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As `nn.Module.load_state_dict`; the pruned weights become the base model's again.

        Not in a hook, which would also run where the transformer's own state dict is loaded, whose
        weights are to stay.
        """
        loaded = super().load_state_dict(*args, **kwargs)
        for weight in self._weights:
            weight.pruned.copy_(self._selected(weight.dense, weight.cut))
        self._remember_samples()
        return loaded

    def build_context(self, call: TransformerCall) -> None:
        """Nothing: all calls are alike."""

    def summary_lines(self) -> list[str]:
        """What stays of a block."""
        return self._summary


def refuses_pruning(config: StructuredPruningConfig, layout: BlockLayout) -> str | None:
    """Why blocks of a layout cannot be pruned."""
    return None if layout.prunable else "what can be taken out of its blocks is not known"


def _summary(sizes: Sequence[UnitSizes], counts: Sequence[int]) -> str:
    kept = {
        units.are_heads: f"{n} of {units.count}" for units, n in zip(sizes, counts, strict=True)
    }
    return (
        f"of each attention {kept[True]} heads are kept, of the feed-forward {kept[False]} channels"
    )


def _sizes(block: nn.Module, units: PrunableUnits) -> UnitSizes:
    columns = [_linear(block, path, units) for path in units.columns]
    count = columns[0].in_features
    if units.heads:
        path, _, name = units.heads.rpartition(".")
        count = getattr(block.get_submodule(path), name)
    rows = [_linear(block, path, units) for path in units.rows if path not in units.of_text]
    weights = sum(layer.in_features * layer.out_features for layer in (*rows, *columns))
    return UnitSizes(count, weights // count, bool(units.heads))


def _scaled(layer: nn.Linear, name: str, before: int, after: int) -> _Size:
    features: int = getattr(layer, name)
    return _Size(layer, name, features, features // before * after)


def _linear(block: nn.Module, path: str, units: PrunableUnits) -> nn.Linear:
    """A layer of a block.

    Raises:
        DiffCRError: It cannot be pruned.
    """
    layer = block.get_submodule(path)
    if type(layer) is not nn.Linear:
        raise DiffCRError(
            f"{path} is a {type(layer).__name__}, pruning needs a plain Linear: attach before you "
            "add adapters or quantise"
        )
    # Where a whole model has none, its operations are counted.
    if layer.weight.is_meta and hasattr(layer, "_hf_hook"):
        raise DiffCRError(
            f"{path} holds no weights (meta device or offloaded layer by layer), and pruning "
            "chooses by them: attach before you offload"
        )
    if units.fused:
        owner, _, name = units.fused.rpartition(".")
        if getattr(block.get_submodule(owner), name):
            raise DiffCRError(f"{path} is fused with others: unfuse the projections, then attach")
    return layer
