"""Methods by name, as they are timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.lora import add_lora
from diffcr.binding.model import get_attached
from diffcr.checkpoint.contenders import DENSE, build, checkpoint_contender, parse_contender
from diffcr.cost.counting import count_contender
from diffcr.evaluation.timing.speed import forward_inputs
from diffcr.evaluation.timing.subject import open_subject
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import denoise, inputs, pixart, trained_pixart

METHODS = ("mod:0.2", "diffcr:0.3", "tome:0.3:block", "at-edm:0.3", "pruning:0.3")


def test_methods_are_named_with_ratio_and_placement() -> None:
    assert parse_contender("mod:0.20").name == "mod:0.2"
    assert parse_contender("mod:0.2").config == MoDConfig(0.2)
    assert parse_contender("tome:0.3:block").config == ToMeConfig(0.3, "block")
    assert parse_contender("tome:0.3").config == ToMeConfig(0.3)
    assert parse_contender("at-edm:0.3").config == ATEDMConfig(0.3)
    routed = parse_contender("diffcr:0.3").config
    assert routed == DiffCRConfig(target_compression_ratio=0.3, timestep_regions=1)


@pytest.mark.parametrize("method", ["dense", *METHODS])
def test_a_method_computes_what_attach_alone_computes_on_the_same_weights(method: str) -> None:
    bare = pixart()
    contender = parse_contender(method)
    model = build(contender, bare)
    own = {name: p for name, p in model.named_parameters() if not name.startswith("diffcr.")}
    assert own.keys() == dict(bare.named_parameters()).keys()
    shares = [own[name] is parameter for name, parameter in bare.named_parameters()]
    assert all(shares) if method != "pruning:0.3" else not any(shares)
    alone = pixart()
    if method != "dense":
        attached = attach(alone, contender.config)
        attached.load_state_dict(get_attached(model).state_dict())
    alone.requires_grad_(False)
    for seed in (1, 2):
        given = inputs(seed=seed)
        assert torch.equal(denoise(model, given), denoise(alone, given))
        assert torch.equal(denoise(bare, given), denoise(pixart(), given))


def test_routers_are_random_and_ratios_uniform() -> None:
    for method in ("mod:0.2", "diffcr:0.2"):
        compressor = diffcr.get_compressor(build(parse_contender(method), pixart()))
        assert compressor.kept_tokens(16) == [[13]] * 3
        assert compressor.routers["transformer_blocks"].std() > 0.5


def test_a_checkpoint_keeps_its_weights_to_itself_and_loses_its_lora(tmp_path: Path) -> None:
    bare = pixart()
    trained = trained_pixart(DiffCRConfig(timestep_regions=2))
    diffcr.save(trained, tmp_path / "light")
    add_lora(trained, rank=2)
    with torch.no_grad():
        trained.proj_out.weight.add_(1)
    diffcr.save(trained, tmp_path / "heavy")
    light = build(checkpoint_contender(tmp_path / "light"), bare)
    heavy = build(checkpoint_contender(tmp_path / "heavy"), bare)
    assert light.proj_out.weight is bare.proj_out.weight
    assert torch.equal(heavy.proj_out.weight, bare.proj_out.weight + 1)
    assert not any("lora" in name for name, _ in heavy.named_parameters())
    assert torch.equal(denoise(bare, inputs()), denoise(pixart(), inputs()))


def test_the_dtype_holds_under_every_method() -> None:
    subject = open_subject("", None, "bfloat16")
    assert (subject.name, subject.random_weights) == ("scenes", False)
    dense = count_contender(DENSE, subject.transformer, subject.size)
    assert dense.image_tokens == 144
    assert next(subject.transformer.parameters()).dtype == torch.bfloat16
    given = forward_inputs(subject.transformer, 2, 24, 24, subject.text_tokens, [500])[500]
    for method in ("dense", *METHODS):
        output = build(parse_contender(method), subject.transformer)(**given)[0]
        assert output.dtype == torch.bfloat16
        assert output.isfinite().all()
