"""Operations counted without weights against those of a model that runs."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffcr.cost.counting import count_flops
from diffcr.errors import DiffCRError
from diffcr.hosts import _FAMILIES, family_of
from diffcr.hosts.family import Family
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.pipelines.call import no_blank_prompt
from tests.tiny_hosts import TINY_HOSTS
from tests.tiny_hosts.host import TinyHost

_LATENTS = (12, 8)
_VIDEO = (8, 4, 3)
_OTHER_LATENTS = {
    "BriaFiboTransformer2DModel": (6, 4),
    "LTXVideoTransformer3DModel": (4, 2, 3),
    "LTX2VideoTransformer3DModel": (4, 2, 3),
    "HunyuanVideoTransformer3DModel": _VIDEO,
    "HunyuanVideoTransformer3DModel-token_replace": _VIDEO,
    "CogVideoXTransformer3DModel": _VIDEO,
    "CogVideoXTransformer3DModel-v15": (8, 4, 6),
    "SkyReelsV2Transformer3DModel": (6, 4, 4),
    "Kandinsky5Transformer3DModel": _VIDEO,
    "Kandinsky5Transformer3DModel-visual_cond": _VIDEO,
    "EasyAnimateTransformer3DModel": _VIDEO,
    "MotifVideoTransformer3DModel": _VIDEO,
    "CosmosTransformer3DModel": _VIDEO,
    "CosmosTransformer3DModel-cosmos2": _VIDEO,
    "AllegroTransformer3DModel": _VIDEO,
}


def _is_counted(family: Family) -> bool:
    call = family.call
    return call.blank_inputs is not None or call.blank_prompt is not no_blank_prompt


# Their forwards read values, such as the lengths of the texts off their mask, or ask for a device's
# precision.
_NOT_COUNTED = {
    "Lumina2Transformer2DModel": _LATENTS,
    "MochiTransformer3DModel": _VIDEO,
    "HeliosTransformer3DModel": _VIDEO,
    "HunyuanVideo15Transformer3DModel": (4, 2, 3),
    "HunyuanImageTransformer2DModel": _LATENTS,
    "Ideogram4Transformer2DModel": _LATENTS,
}
_COUNTED = [
    name
    for name, host in TINY_HOSTS.items()
    if host.transformer_class in _FAMILIES
    and name not in _NOT_COUNTED
    and "encoder_hidden_states" in host.inputs(1, 0)
    and (not host.variant or name in _OTHER_LATENTS)
    and _is_counted(_FAMILIES[host.transformer_class])
]


@pytest.mark.parametrize("name", _COUNTED)
def test_what_is_counted_is_what_runs(name: str) -> None:
    host = TINY_HOSTS[name]
    transformer, given = host.make(), host.inputs(1, 0)
    with torch.no_grad(), FlopCounterMode(display=False) as seen, sdpa_kernel(SDPBackend.MATH):
        transformer(**given)
    count = count_flops(transformer, _size(host))
    assert count.dense.total == seen.get_total_flops()
    assert count.image_tokens == family_of(transformer).tokens(transformer, given)


def _size(host: TinyHost) -> InputSize:
    text_tokens = host.inputs(1, 0)["encoder_hidden_states"].shape[1]
    return InputSize(text_tokens, *_OTHER_LATENTS.get(host.name, _LATENTS))


@pytest.mark.parametrize("name", _NOT_COUNTED)
def test_a_forward_that_needs_more_than_shapes_is_not_counted(name: str) -> None:
    with pytest.raises(DiffCRError, match="shapes alone"):
        count_flops(TINY_HOSTS[name].make(), InputSize(7, *_NOT_COUNTED[name]))


def test_a_model_without_a_size_asks_for_one() -> None:
    with pytest.raises(DiffCRError, match="give rows and columns"):
        count_flops(TINY_HOSTS["FluxTransformer2DModel"].make(), InputSize(7))
