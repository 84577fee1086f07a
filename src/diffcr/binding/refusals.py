"""What `attach` refuses, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from diffcr.binding.calls import refuse_call
from diffcr.errors import DiffCRError
from diffcr.hosts import is_sharded, unwrapped
from diffcr.hosts.host import Host, HostBlock
from diffcr.methods.bound import argument_names
from diffcr.methods.config import MethodConfig
from diffcr.methods.registry import method_of
from diffcr.methods.seam import Seam
from diffcr.methods.step_caches.cache import refuses_beside
from diffcr.methods.step_caches.config import StepCacheConfig


def refuse_beside(present: Sequence[MethodConfig], config: MethodConfig, seam: Seam) -> None:
    """Refuse a method on others: of those that are no step caches, one has to bind no block; a step
    cache says itself what it goes with."""
    for other in present:
        for cache, method in ((config, other), (other, config)):
            reason = isinstance(cache, StepCacheConfig) and refuses_beside(cache, method)
            if reason:
                raise DiffCRError(f"{cache.method} cannot be beside {method.method}: {reason}")
    bound = [other for other in present if not isinstance(other, StepCacheConfig)]
    if not bound or isinstance(config, StepCacheConfig):
        return
    if seam.block is None or method_of(bound[0]).seam(bound[0]).block is not None:
        raise DiffCRError(
            f"another configuration is attached ({bound[0]}): call diffcr.detach first"
        )


def refuse_unfit(host: Host, config: MethodConfig) -> None:
    """Refuse a method that the model's blocks cannot be run with, and blocks of another kind."""
    refuse_call(host.transformer, host.family, {})
    name = type(host.transformer).__name__
    for layout in host.family.block_groups.values():
        reason = method_of(config).refuses(config, layout)
        if reason is not None:
            raise DiffCRError(f"{name} cannot be run with method {config.method!r}: {reason}")
    for block in host.blocks:
        unknown = block.layout.arguments - {*argument_names(type(block.module).forward)}
        if unknown:
            raise DiffCRError(
                f"{name}'s blocks ({type(block.module).__name__}) take no "
                f"{', '.join(sorted(unknown))}: family {host.family.name!r} is written for another "
                "version of diffusers"
            )


def refuse_patched(block: HostBlock, seam: Seam) -> None:
    """Refuse a block, or a part of it that the method binds, whose forward is not its class's."""
    attributes = [getattr(block.layout, part) for part in seam.parts]
    modules = {block.name: block.module}
    modules |= {f"{block.name}.{name}": block.module.get_submodule(name) for name in attributes}
    for name, module in modules.items():
        if "forward" in vars(module):
            raise DiffCRError(
                f"{name} already has a patched forward (a diffusers or accelerate hook?), which "
                "would stop firing: attach first, then offload or cache"
            )


def refuse_distributed(pipe_or_transformer: Any) -> None:
    """Refuse a model whose gradients or parameters are shared by processes already."""
    if not isinstance(pipe_or_transformer, nn.Module):
        return
    for layer in unwrapped(pipe_or_transformer):
        if isinstance(layer, DistributedDataParallel) or is_sharded(layer):
            kind = "sharded" if is_sharded(layer) else "wrapped in DistributedDataParallel"
            raise DiffCRError(
                f"the model is {kind}, which would not synchronise routers and ratios: attach "
                "first, then wrap"
            )
