"""What hangs on a host's block so that its own forward can run on fewer tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from diffcr.core.select import gather_tokens

if TYPE_CHECKING:
    from diffcr.compressor import Compressor

BOUND_BLOCK = "diffcr_bound"
BOUND_MLP = "diffcr_bound_mlp"


@dataclass(frozen=True)
class BlockLayout:
    """How a class of blocks takes its inputs; part of a model family's adapter.

    Attributes:
        hidden_states: Name of the argument with the routed tokens, [B, N, D].
        batched: Arguments whose first dimension is the batch. Anything else is shared by samples.
        token_dims: Arguments other than `hidden_states` that hold one entry per routed token, with
            their token dimension; they are gathered with the same indices.
        mlp: Attribute of the block's feed-forward module, [B, N, D] -> [B, N, D].
    """

    hidden_states: str
    batched: tuple[str, ...]
    token_dims: Mapping[str, int] = field(default_factory=dict)
    mlp: str = "ff"

    def select_samples(self, arguments: Mapping[str, Any], samples: Tensor) -> dict[str, Any]:
        """The arguments of some samples of the batch, `samples` [B'] int64."""
        selected = dict(arguments)
        for name in self.batched:
            value = selected.get(name)
            if isinstance(value, Tensor) and value.shape[0] > 1:
                selected[name] = value.index_select(0, samples)
        return selected

    def select_tokens(self, arguments: Mapping[str, Any], indices: Tensor) -> dict[str, Any]:
        """The arguments of the kept tokens, `indices` [B, K] int64."""
        selected = dict(arguments)
        selected[self.hidden_states] = gather_tokens(selected[self.hidden_states], indices)
        for name, dim in self.token_dims.items():
            if isinstance(selected.get(name), Tensor):
                selected[name] = gather_tokens(selected[name], indices, dim)
        return selected


@dataclass
class BoundBlock:
    """Stored in `block.__dict__`: a deep copy of the model copies it with its compressor, and a
    plain object adds no state-dict key, unlike a module attribute.

    Attributes:
        compressor: Owner of this layer's router and ratios.
        layer: Index over all routed blocks of the model.
        group: Attribute of the transformer that lists the block.
        row: Index of the block in its group.
        host_forward: The class's forward, unbound. Looking it up through `type(block)` inside
            traced code raises `Unsupported` in torch.compile.
        argument_names: Parameters of `host_forward` in order, without self.
        layout: How the block takes its inputs.
        mlp_scale: [B, K], what the feed-forward's output is multiplied with while the block runs.
    """

    compressor: Compressor
    layer: int
    group: str
    row: int
    host_forward: Callable[..., Tensor]
    argument_names: tuple[str, ...]
    layout: BlockLayout
    mlp_scale: Tensor | None = None

    def name_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments by name: hosts pass them by name, gradient checkpointing by position."""
        return {**dict(zip(self.argument_names, args, strict=False)), **kwargs}

    @property
    def router(self) -> Tensor:
        """Router weights of this layer, [D]."""
        router: Tensor = self.compressor.routers[self.group][self.row]
        return router


@dataclass
class BoundMLP:
    """Stored in the `__dict__` of a block's feed-forward under the gate "sigmoid-mlp".

    Attributes:
        owner: What is stored on its block.
        host_forward: The feed-forward class's forward, unbound.
    """

    owner: BoundBlock
    host_forward: Callable[..., Tensor]


def argument_names(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Names of an unbound method's parameters, without self."""
    return tuple(inspect.signature(forward).parameters)[1:]


def bound_block(block: nn.Module) -> BoundBlock:
    """What `attach` stored on the block."""
    stored: BoundBlock = block.__dict__[BOUND_BLOCK]
    return stored


def bound_mlp(mlp: nn.Module) -> BoundMLP:
    """What `attach` stored on the feed-forward."""
    stored: BoundMLP = mlp.__dict__[BOUND_MLP]
    return stored
