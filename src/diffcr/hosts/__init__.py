"""One adapter per model family, found by the transformer's exact class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from diffcr.errors import DiffCRError
from diffcr.hosts.allegro import ALLEGRO
from diffcr.hosts.aura_flow import AURA_FLOW
from diffcr.hosts.bria import BRIA
from diffcr.hosts.bria_fibo import BRIA_FIBO
from diffcr.hosts.chroma import CHROMA
from diffcr.hosts.chrono_edit import CHRONO_EDIT
from diffcr.hosts.cogvideox import COGVIDEOX
from diffcr.hosts.cogview import COGVIEW3_PLUS, COGVIEW4
from diffcr.hosts.cosmos import COSMOS
from diffcr.hosts.dit import DIT
from diffcr.hosts.easyanimate import EASYANIMATE
from diffcr.hosts.family import Family
from diffcr.hosts.flux import FLUX
from diffcr.hosts.flux2 import FLUX2
from diffcr.hosts.glm_image import GLM_IMAGE
from diffcr.hosts.helios import HELIOS
from diffcr.hosts.hidream import HIDREAM
from diffcr.hosts.hunyuan_framepack import HUNYUAN_FRAMEPACK
from diffcr.hosts.hunyuan_image import HUNYUAN_IMAGE
from diffcr.hosts.hunyuan_video import HUNYUAN_VIDEO
from diffcr.hosts.hunyuan_video15 import HUNYUAN_VIDEO15
from diffcr.hosts.ideogram4 import IDEOGRAM4
from diffcr.hosts.kandinsky5 import KANDINSKY5
from diffcr.hosts.krea2 import KREA2
from diffcr.hosts.lazy import LAZY_DECODER, LAZY_ENCODER
from diffcr.hosts.longcat_image import LONGCAT_IMAGE
from diffcr.hosts.ltx import LTX
from diffcr.hosts.ltx2 import LTX2
from diffcr.hosts.lumina2 import LUMINA2
from diffcr.hosts.lumina_next import LUMINA_NEXT
from diffcr.hosts.mochi import MOCHI
from diffcr.hosts.motif_video import MOTIF_VIDEO
from diffcr.hosts.omnigen import OMNIGEN
from diffcr.hosts.ovis_image import OVIS_IMAGE
from diffcr.hosts.pixart import PIXART
from diffcr.hosts.prx import PRX
from diffcr.hosts.qwen_image import QWEN_IMAGE
from diffcr.hosts.refused import REFUSED_CLASSES
from diffcr.hosts.sd3 import SD3
from diffcr.hosts.skyreels import SKYREELS
from diffcr.hosts.wan import WAN
from diffcr.hosts.wan_animate import WAN_ANIMATE
from diffcr.hosts.wan_vace import WAN_VACE
from diffcr.hosts.z_image import Z_IMAGE

_FAMILIES: dict[str, Family] = {
    family.transformer_class: family
    for family in (
        *(PIXART, DIT, SD3, FLUX, QWEN_IMAGE, Z_IMAGE),
        *(CHROMA, OVIS_IMAGE, LONGCAT_IMAGE, BRIA, BRIA_FIBO, FLUX2, AURA_FLOW, KREA2),
        *(LUMINA2, COGVIEW4, COGVIEW3_PLUS, HIDREAM, IDEOGRAM4, GLM_IMAGE, PRX, OMNIGEN),
        *(LUMINA_NEXT, HUNYUAN_IMAGE),
        *(WAN, WAN_VACE, WAN_ANIMATE, CHRONO_EDIT),
        *(LTX, LTX2, HUNYUAN_VIDEO, HUNYUAN_VIDEO15, HUNYUAN_FRAMEPACK, COGVIDEOX, SKYREELS),
        *(COSMOS, KANDINSKY5, MOCHI, ALLEGRO, EASYANIMATE, MOTIF_VIDEO, HELIOS),
        *(LAZY_DECODER, LAZY_ENCODER),
    )
}


# What pipelines call the transformers that denoise: Wan 2.2's experts, Ideogram 4's pair.
PARTS = ("transformer", "transformer_2", "unconditional_transformer")


def register_model(family: Family) -> None:
    """Make the transformers of one more class known to `attach`.

    Raises:
        DiffCRError: Another family is of that class.
    """
    if _FAMILIES.setdefault(family.transformer_class, family) != family:
        raise DiffCRError(
            f"there is a family for {family.transformer_class} already: attach to it as it is"
        )


def class_path(model: object) -> str:
    """Module and name of an object's class, of a sharded module's (FSDP2) those of its own."""
    own = type(model).__mro__[2 if is_sharded(model) else 0]
    return f"{own.__module__}.{own.__qualname__}"


def is_sharded(model: object) -> bool:
    """Whether a module's parameters are split over processes by `fully_shard` (FSDP2), which puts a
    class made for it and `FSDPModule` before the module's own."""
    return any(kind.__name__ == "FSDPModule" for kind in type(model).__mro__[1:2])


def find_transformer(pipe_or_transformer: Any) -> nn.Module:
    """The transformer of a diffusers pipeline, or the transformer itself, out of whatever wraps it
    (DDP, torch.compile, a `PeftModel`).

    Raises:
        DiffCRError: There is none, or the pipeline has several.
    """
    first, *others = find_transformers(pipe_or_transformer).items()
    if others:
        names = [name for name, _ in (first, *others)]
        raise DiffCRError(
            f"{type(pipe_or_transformer).__name__} has {' and '.join(names)}: pass one of them, "
            f"such as pipe.{names[0]}"
        )
    return first[1]


def find_transformers(pipe_or_transformer: Any) -> dict[str, nn.Module]:
    """All transformers that denoise in a diffusers pipeline by their names there, such as both
    experts of Wan 2.2; or the transformer itself. Out of whatever wraps them.

    Raises:
        DiffCRError: There is none.
    """
    if isinstance(pipe_or_transformer, nn.Module):
        found = {PARTS[0]: pipe_or_transformer}
    else:
        named = ((name, getattr(pipe_or_transformer, name, None)) for name in PARTS)
        found = {name: part for name, part in named if isinstance(part, nn.Module)}
    if not found:
        raise DiffCRError(
            f"{class_path(pipe_or_transformer)} has no transformer: "
            f"pass a pipeline or one of {', '.join(supported_models())}"
        )
    return {name: list(unwrapped(part))[-1] for name, part in found.items()}


def unwrapped(module: nn.Module) -> Iterator[nn.Module]:
    """The module, then what it wraps, down to the model itself."""
    yield module
    base_model: Any = getattr(module, "get_base_model", None)
    if base_model is not None:
        yield from unwrapped(base_model())
        return
    for attribute in ("_orig_mod", "module"):
        if isinstance(getattr(module, attribute, None), nn.Module):
            yield from unwrapped(getattr(module, attribute))
            return


def family_of(transformer: nn.Module) -> Family:
    """The adapter of a transformer.

    Raises:
        DiffCRError: Its class is not supported.
    """
    family = _FAMILIES.get(class_path(transformer))
    if family is None:
        reason = REFUSED_CLASSES.get(class_path(transformer).rpartition(".")[2])
        if reason is not None:
            raise DiffCRError(f"{type(transformer).__name__} is not supported: {reason}")
        raise DiffCRError(
            f"{type(transformer).__name__} is not a supported model class: "
            f"supported are {', '.join(supported_models())}"
        )
    return family


def host_blocks_within(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of every supported model that a module is or holds."""
    for part in models_within(model):
        for group in family_of(part).block_groups:
            yield from getattr(part, group)


def models_within(model: nn.Module) -> list[nn.Module]:
    """The supported models that a module is or holds."""
    return [part for part in model.modules() if class_path(part) in _FAMILIES]


def families() -> dict[str, Family]:
    """All adapters by the names of their transformer classes."""
    return {path.rsplit(".", 1)[1]: family for path, family in _FAMILIES.items()}


def supported_models() -> list[str]:
    """Names of the transformer classes that `attach` accepts."""
    return [*families()]
