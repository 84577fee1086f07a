"""Every method in one table: what it is configured with, how it is made, what it binds.

A method is a folder beside this file and an entry here; from outside of the package,
`register_method` adds one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.hosts.host import Host
from diffcr.hosts.layout import BlockLayout
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.at_edm.pruner import TokenPruner, at_edm_seam, refuses_maps
from diffcr.methods.base import Attached
from diffcr.methods.config import DenseConfig, MethodConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.diffcr.forward import refuses_routing, routed_seam
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.pruning.pruner import StructuredPruner, refuses_pruning
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.methods.reuse.forward import refuses_reuse, reuse_seam
from diffcr.methods.reuse.reuser import TokenReuser
from diffcr.methods.seam import Seam, no_seam
from diffcr.methods.step_caches.cache import STEP_CACHES, StepCache
from diffcr.methods.tome.config import ToMeConfig
from diffcr.methods.tome.merger import TokenMerger, refuses_merging, tome_seam
from diffcr.validation import refuse_unknown_key


def _nothing(config: MethodConfig, layout: BlockLayout) -> str | None:
    return None


@dataclass(frozen=True)
class Method:
    """A way to make a transformer cheaper.

    Attributes:
        config: Class of its configuration, whose `method` is the method's name.
        build: The module that it registers on a host.
        seam: The forwards that it binds.
        at_ratio: Its configuration with one compression ratio, and a placement where it takes one.
        refuses: Why blocks of a layout cannot be run with a configuration; None where they can.
        takes_placement: Whether `at_ratio` has a second argument.
        subject: What it makes of a model, for a model card; `{}` is the model's class.
    """

    config: type[MethodConfig]
    build: Callable[[Any, Host], Attached[Any, Any]]
    seam: Callable[[Any], Seam]
    at_ratio: Callable[..., MethodConfig]
    refuses: Callable[[Any, BlockLayout], str | None] = _nothing
    takes_placement: bool = False
    subject: str = "Token compression for `{}`: layers compute only some of the tokens."


def _uniform_diffcr(compression_ratio: float) -> DiffCRConfig:
    target = MoDConfig(compression_ratio).compression_ratio
    return DiffCRConfig(target_compression_ratio=target, timestep_regions=1)


_METHODS: dict[str, Method] = {
    method.config.method: method
    for method in (
        Method(DiffCRConfig, Compressor, routed_seam, _uniform_diffcr, refuses_routing),
        Method(MoDConfig, Compressor, routed_seam, MoDConfig, refuses_routing),
        Method(ToMeConfig, TokenMerger, tome_seam, ToMeConfig, refuses_merging, True),
        Method(ATEDMConfig, TokenPruner, at_edm_seam, ATEDMConfig, refuses_maps),
        Method(ReuseConfig, TokenReuser, reuse_seam, ReuseConfig, refuses_reuse, True),
        Method(
            StructuredPruningConfig,
            StructuredPruner,
            no_seam,
            StructuredPruningConfig,
            refuses_pruning,
            subject="Structured pruning of `{}`: blocks without some of their heads and channels.",
        ),
        *(
            Method(cache, StepCache, no_seam, cache, subject="A step cache for `{}`.")
            for cache in STEP_CACHES
        ),
    )
}


def register_method(method: Method) -> None:
    """Make a method known to `attach`, checkpoints and the command line.

    Raises:
        DiffCRError: Another method has its name.
    """
    name = method.config.method
    if name == DenseConfig.method or _METHODS.setdefault(name, method) != method:
        raise DiffCRError(f"there is a method {name!r} already: give yours another name")


def method_names() -> list[str]:
    """Names of all methods, `dense` first."""
    return [DenseConfig.method, *_METHODS]


def method_of(config: MethodConfig) -> Method:
    """The method of a configuration.

    Raises:
        DiffCRError: It is no method's, or the dense model's.
    """
    if isinstance(config, DenseConfig):
        raise DiffCRError("DenseConfig is the bare model: there is nothing to attach")
    method = _METHODS.get(getattr(config, "method", ""))
    if method is None or not isinstance(config, method.config):
        raise DiffCRError(
            f"{config!r} configures no method: give diffcr.DiffCRConfig(...) or another of "
            f"{', '.join(sorted(m.config.__name__ for m in _METHODS.values()))}"
        )
    return method


def named_method(name: str) -> Method:
    """The method of a name.

    Raises:
        DiffCRError: There is none.
    """
    if name not in _METHODS:
        raise DiffCRError(f"method is {name!r}: known are {', '.join(method_names())}")
    return _METHODS[name]


def config_from_json_dict(values: dict[str, Any]) -> MethodConfig:
    """Inverse of `MethodConfig.to_json_dict`.

    Raises:
        DiffCRError: The method or a key is not known, or a value is outside its range.
    """
    values = dict(values)
    name = values.pop("method", None)
    if not isinstance(name, str) or name not in method_names():
        raise DiffCRError(f"method is {name!r}: known are {', '.join(sorted(method_names()))}")
    config = DenseConfig if name == DenseConfig.method else _METHODS[name].config
    known = [field.name for field in fields(config)]
    for key in values:
        refuse_unknown_key(key, known)
    return config(**values)
