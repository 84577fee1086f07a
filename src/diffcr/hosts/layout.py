"""How a class of blocks takes its inputs, and what its parts are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from diffcr.core.select import gather_tokens
from diffcr.errors import DiffCRError


@dataclass(frozen=True)
class AttentionWithMap:
    """What a self-attention gives when its map is wanted.

    Attributes:
        output: [B, N, D].
        attention: [B, heads, N, N], rows are queries and sum to 1.
    """

    output: Tensor
    attention: Tensor


@dataclass(frozen=True)
class PrunableUnits:
    """Equal parts of a block that can be taken out, heads or channels; all names are paths from it.

    Attributes:
        name: Of the part of the block.
        rows: Linear layers whose outputs are the units' values, one unit after another.
        columns: Linear layers whose inputs they are.
        of_text: Those of `rows` that compute text tokens.
        heads: Integer attribute with the number of heads; empty where the units are channels of the
            feed-forward.
        fused: Boolean attribute that says whether another layer computes in the place of `rows`.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    of_text: tuple[str, ...] = ()
    heads: str = ""
    fused: str = ""


@dataclass(frozen=True)
class BlockLayout:
    """How a class of blocks takes its inputs; part of a model family's adapter.

    Attributes:
        hidden_states: Name of the argument with the routed tokens, [B, N, D].
        batched: Arguments whose first dimension is the batch. Anything else is shared by samples.
        token_dims: Arguments other than `hidden_states` that hold one entry per routed token, with
            their token dimension; they are gathered with the same indices.
        self_attention: Attribute of the block's self-attention, whose first argument is [B, N, D].
        cross_attention: Attribute of its cross-attention, which may be None or missing.
        mlp: Attribute of the block's feed-forward module, [B, N, D] -> [B, N, D].
        prunable: What structured pruning takes units out of.
        keys_and_values: Attributes of the self-attention, layers from its input [B, N, D] to the
            tokens' keys and values as its processor calls them; empty where they cannot be kept.
        attend_with_map: From a self-attention and its arguments by name to its output and its map.
    """

    hidden_states: str
    batched: tuple[str, ...]
    attend_with_map: Callable[[nn.Module, Mapping[str, Any]], AttentionWithMap]
    token_dims: Mapping[str, int] = field(default_factory=dict)
    self_attention: str = "attn1"
    cross_attention: str = "attn2"
    mlp: str = "ff"
    prunable: tuple[PrunableUnits, ...] = ()
    keys_and_values: tuple[str, ...] = ()

    def first_layers(self, block: nn.Module) -> dict[str, nn.Linear]:
        """The first linear layer of each part of a block, which every token that the part computes
        passes, by its path from the block; self-attention first."""
        layers = {}
        for name in (self.self_attention, self.cross_attention, self.mlp):
            part = getattr(block, name, None)
            if part is not None:
                linear = ((p, m) for p, m in part.named_modules() if isinstance(m, nn.Linear))
                path, layer = next(linear)
                layers[f"{name}.{path}"] = layer
        return layers

    def select_samples(self, arguments: Mapping[str, Any], samples: Tensor) -> dict[str, Any]:
        """The arguments of some samples of the batch, `samples` [B'] int64."""
        selected = dict(arguments)
        for name in self.batched:
            value = selected.get(name)
            if isinstance(value, Tensor) and value.shape[0] > 1:
                selected[name] = value.index_select(0, samples)
        return selected

    def with_tokens(
        self, arguments: Mapping[str, Any], kept: Tensor, indices: Tensor
    ) -> dict[str, Any]:
        """The arguments with the tokens at `indices` [B, K] int64 alone, whose hidden states are
        `kept` [B, K, D]."""
        selected = {**arguments, self.hidden_states: kept}
        for name, dim in self.token_dims.items():
            if isinstance(selected.get(name), Tensor):
                selected[name] = gather_tokens(selected[name], indices, dim)
        return selected

    def refuse_token_inputs(self, arguments: Mapping[str, Any], method: str) -> None:
        """Raises DiffCRError where a block gets more per token than its hidden states."""
        for name in self.token_dims:
            if isinstance(arguments.get(name), Tensor):
                raise DiffCRError(
                    f"{method} cannot join tokens that {name} tells apart: call the model without"
                )
