"""A method and a family of somebody else's, each in one place with one registration."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

import diffcr
from diffcr import hosts
from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import disabled, get_attached
from diffcr.checkpoint.loading import load
from diffcr.checkpoint.saving import save
from diffcr.errors import DiffCRError
from diffcr.hosts import register_model
from diffcr.hosts.pixart import PIXART
from diffcr.methods import registry
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.bound import BoundBlock, bound_block
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.methods.registry import Method, config_from_json_dict, method_names, register_method
from diffcr.methods.seam import Seam
from diffcr.validation import Share
from tests.hosts import denoise, inputs, pixart, scramble


@dataclass(frozen=True)
class HalvedUpdateConfig(MethodConfig):
    """Every block's update shrinks."""

    method: ClassVar[str] = "halved"

    compression_ratio: Share = 0.0


class HalvedUpdate(Attached[HalvedUpdateConfig, TransformerCall]):
    """A throw-away method."""

    def build_context(self, call: TransformerCall) -> TransformerCall:
        return call

    def summary_lines(self) -> list[str]:
        return ["halved"]


def _halving_forward(block: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    bound: BoundBlock[HalvedUpdate] = bound_block(block)
    arguments = bound.name_arguments(args, kwargs)
    output = bound.host_forward(block, **arguments)
    ratio = bound.attached.config.compression_ratio
    if not bound.attached.enabled or ratio == 0:
        return output
    assert bound.attached.context.tokens == output.shape[1]
    return output - ratio * (output - arguments[bound.layout.hidden_states])


HALVED = Method(
    HalvedUpdateConfig, HalvedUpdate, lambda config: Seam(_halving_forward), HalvedUpdateConfig
)


class ElsewhereTransformer(PixArtTransformer2DModel):
    """A throw-away host: its class is none that the package names."""


ELSEWHERE = replace(
    PIXART,
    name="elsewhere",
    transformer_class=f"{ElsewhereTransformer.__module__}.ElsewhereTransformer",
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(hosts, "_FAMILIES", dict(hosts._FAMILIES))
    register_method(HALVED)
    register_model(ELSEWHERE)
    return


def elsewhere() -> nn.Module:
    transformer = pixart()
    transformer.__class__ = ElsewhereTransformer
    return transformer


@pytest.mark.parametrize("host", [pixart, elsewhere])
@pytest.mark.parametrize("config", [HalvedUpdateConfig(), DiffCRConfig()])
def test_freshly_attached_is_the_bare_model_and_detach_restores(
    host: Any, config: MethodConfig
) -> None:
    transformer, given = host(), inputs()
    with torch.no_grad():
        bare = denoise(transformer, given)
        keys = list(transformer.state_dict())
        attach(transformer, config)
        assert torch.equal(denoise(transformer, given), bare)
        detach(transformer)
    assert torch.equal(denoise(transformer, given), bare)
    assert list(transformer.state_dict()) == keys


@pytest.mark.parametrize("host", [pixart, elsewhere])
def test_the_method_acts_is_switched_off_copied_saved_and_loaded(host: Any, tmp_path: Path) -> None:
    transformer, given = host(), inputs()
    with torch.no_grad():
        bare = denoise(transformer, given)
        attach(transformer, HalvedUpdateConfig(0.5))
        halved = denoise(transformer, given)
        assert not torch.allclose(halved, bare)
        with disabled(transformer):
            assert torch.equal(denoise(transformer, given), bare)
        assert torch.equal(denoise(deepcopy(transformer), given), halved)
        one = denoise(transformer, given.only(slice(1)))
        torch.testing.assert_close(one, halved[:1], atol=1e-5, rtol=0)
        save(transformer, tmp_path / "saved")
        other = host()
        load(other, tmp_path / "saved")
        assert torch.equal(denoise(other, given), halved)
    assert "halved" in diffcr.summary(other)


def test_the_family_takes_a_method_of_the_package() -> None:
    transformer, given = elsewhere(), inputs()
    scramble(attach(transformer, DiffCRConfig()))
    with torch.no_grad():
        routed = denoise(transformer, given)
        assert torch.equal(denoise(deepcopy(transformer), given), routed)
        detach(transformer)
        assert not torch.equal(denoise(transformer, given), routed)
    assert "ElsewhereTransformer" in diffcr.supported_models()


def test_names_are_known_everywhere_and_no_name_is_taken_twice() -> None:
    assert "halved" in method_names()
    config = HalvedUpdateConfig(0.5)
    assert config_from_json_dict(config.to_json_dict()) == config
    register_method(HALVED)
    with pytest.raises(DiffCRError, match="there is a method 'tome' already"):
        register_method(
            replace(HALVED, config=type("Other", (HalvedUpdateConfig,), {"method": "tome"}))
        )
    with pytest.raises(DiffCRError, match="ElsewhereTransformer already"):
        register_model(replace(ELSEWHERE, name="another"))
    transformer = pixart()
    attach(transformer, config)
    assert get_attached(transformer).config == config
    with pytest.raises(DiffCRError, match="another configuration"):
        attach(transformer, DiffCRConfig())
