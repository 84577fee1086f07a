"""What hangs on a host's block, and on parts of it, so that they can run on fewer tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from diffcr.hosts.block_inputs import BlockInputs, BlockOutput
from diffcr.hosts.layout import BlockLayout
from diffcr.methods.base import Attached

BOUND = "diffcr_bound"
# Where positional arguments beyond the named ones are kept, which some blocks take and ignore.
_SURPLUS = "*"

AttachedT = TypeVar("AttachedT", bound=Attached[Any, Any])


@dataclass(frozen=True)
class BoundBlock(Generic[AttachedT]):
    """Stored in `block.__dict__`: a deep copy of the model copies it with what is attached, and a
    plain object adds no state-dict key, unlike a module attribute.

    Attributes:
        attached: The method, as it is registered on the transformer.
        layer: Index over all routed blocks of the model.
        group: Attribute of the transformer that lists the block.
        row: Index of the block in its group.
        host_forward: The class's forward, unbound. Looking it up through `type(block)` inside
            traced code raises `Unsupported` in torch.compile.
        argument_names: Parameters of `host_forward` in order, without self.
        layout: How the block takes its inputs.
    """

    attached: AttachedT
    layer: int
    group: str
    row: int
    host_forward: Callable[..., BlockOutput]
    argument_names: tuple[str, ...]
    layout: BlockLayout

    def name_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments by name: hosts pass them by name, gradient checkpointing by position."""
        named = {**dict(zip(self.argument_names, args, strict=False)), **kwargs}
        if len(args) > len(self.argument_names):
            named[_SURPLUS] = args[len(self.argument_names) :]
        return named

    def inputs(self, arguments: dict[str, Any]) -> BlockInputs:
        """The arguments of a call of the block within one of its transformer.

        Raises:
            DiffCRError: One of them cannot be combined with routed tokens.
        """
        self.layout.refuse(arguments)
        call = self.attached.call
        return BlockInputs(self.layout, arguments, call.tokens, call.starts)

    def run(self, block: nn.Module, arguments: Mapping[str, Any]) -> BlockOutput:
        """The host's forward on arguments by name."""
        if _SURPLUS not in arguments:
            return self.host_forward(block, **arguments)
        named = dict(arguments)
        surplus = named.pop(_SURPLUS)
        return self.host_forward(
            block, *(named.pop(n) for n in self.argument_names), *surplus, **named
        )

    def run_with(self, running: Any, block: nn.Module, arguments: Mapping[str, Any]) -> BlockOutput:
        """As `run`, with `running` for the block's parts meanwhile."""
        current = self.attached.current
        current.running = running
        try:
            return self.run(block, arguments)
        finally:
            # Recomputation under gradient checkpointing leaves the block by an exception.
            current.running = None


@dataclass(frozen=True)
class BoundPart:
    """Stored in the `__dict__` of a module of a block that a method changes.

    Attributes:
        owner: What is stored on its block.
        host_forward: The module's class's forward, unbound.
        argument_names: Parameters of `host_forward` in order, without self.
    """

    owner: BoundBlock[Any]
    host_forward: Callable[..., Any]
    argument_names: tuple[str, ...]

    @property
    def running(self) -> Any:
        """What the block tells its parts in the calling thread; None outside of `run_with`."""
        return self.owner.attached.current.running


def argument_names(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Names of an unbound method's parameters, without self, `*args` and `**kwargs`."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(forward).parameters.values()
    return tuple(p.name for p in parameters if p.kind not in variable)[1:]


def bound_block(block: nn.Module) -> BoundBlock[Any]:
    """What `attach` stored on the block."""
    stored: BoundBlock[Any] = block.__dict__[BOUND]
    return stored


def bound_part(module: nn.Module) -> BoundPart:
    """What `attach` stored on a module of a block."""
    stored: BoundPart = module.__dict__[BOUND]
    return stored
