"""What single families need of the seam, beyond what all promise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import diffcr
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.grid import Grid
from diffcr.methods.base import TransformerCall
from diffcr.methods.tome.merger import TokenMerger
from tests.families import features
from tests.tiny_hosts import TINY_HOSTS

_REFERENCES = ("FluxTransformer2DModel-kontext", "Flux2Transformer2DModel-reference")


@pytest.mark.parametrize(
    "name",
    [
        *("FluxTransformer2DModel", "OvisImageTransformer2DModel", "Krea2Transformer2DModel"),
        *("LongCatImageTransformer2DModel", "Ideogram4Transformer2DModel-ragged"),
        *_REFERENCES,
    ],
)
def test_places_of_packed_tokens(name: str) -> None:
    host = TINY_HOSTS[name]
    transformer, given = host.make(), host.inputs(2, 0)
    family = family_of(transformer)
    assert family.read_grid is not None
    expected = Grid(6, 4, beside=15 if name in _REFERENCES else 0)
    assert family.read_grid(transformer, given) == expected
    assert family.grid(transformer, given) == Grid(0, 0, beside=expected.tokens)


def test_places_are_read_for_methods_that_ask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    host = TINY_HOSTS["FluxTransformer2DModel"]
    transformer, given = host.make(), host.inputs(1, 0)
    calls: list[TransformerCall] = []

    def see(self: Any, call: TransformerCall) -> Any:
        calls.append(call)
        return build(self, call)

    compressor = diffcr.attach(transformer)
    build: Any = type(compressor).build_context
    monkeypatch.setattr(type(compressor), "build_context", see)
    features.forward(transformer, given)
    diffcr.detach(transformer)
    build = TokenMerger.build_context
    monkeypatch.setattr(TokenMerger, "build_context", see)
    diffcr.attach(transformer, diffcr.ToMeConfig(0.5, placement="block"))
    features.forward(transformer, given)
    assert [call.grid for call in calls] == [Grid(0, 0, beside=24), Grid(6, 4)]


def test_places_that_are_no_grid() -> None:
    host = TINY_HOSTS["FluxTransformer2DModel"]
    transformer, given = host.make(), host.inputs(1, 0)
    diffcr.attach(transformer, diffcr.ToMeConfig(0.5, placement="block"))
    ids = given["img_ids"].clone()
    ids[[5, 6]] = ids[[6, 5]]
    with pytest.raises(DiffCRError, match="24 tokens are no grid of 6 x 4"):
        transformer(**{**given, "img_ids": ids})


def test_chroma_without_a_mask_recomputes() -> None:
    host = TINY_HOSTS["ChromaTransformer2DModel"]

    def unmasked(batch: int, seed: int) -> dict[str, Any]:
        return {**host.inputs(batch, seed), "attention_mask": None}

    features.checkpoints_gradients(replace(host, inputs=unmasked))


@pytest.mark.parametrize("name", ["FluxTransformer2DModel", "Flux2Transformer2DModel"])
@pytest.mark.parametrize("square", [False, True])
def test_a_mask_among_attention_arguments_is_gathered(name: str, square: bool) -> None:
    host = TINY_HOSTS[name]

    def masked(batch: int, seed: int) -> dict[str, Any]:
        rows = 7 + host.tokens
        mask = torch.ones(batch, 1, rows if square else 1, rows, dtype=torch.bool)
        for sample in range(batch):
            mask[sample, ..., 9 + sample] = False
        return {**host.inputs(batch, seed), "joint_attention_kwargs": {"attention_mask": mask}}

    features.half_is_masked_attention(replace(host, inputs=masked))


def test_empty_caches_of_a_pipeline_are_no_reason() -> None:
    from diffusers.models.transformers.transformer_glm_image import GlmImageKVCache

    host = TINY_HOSTS["GlmImageTransformer2DModel"]
    caches = GlmImageKVCache(num_layers=3)

    def cached(batch: int, seed: int) -> dict[str, Any]:
        return {**host.inputs(batch, seed), "kv_caches": caches}

    features.half_is_masked_attention(replace(host, inputs=cached))
    features.compiles(replace(host, inputs=cached))
    caches.set_mode("write")
    with pytest.raises(DiffCRError, match="given pictures"):
        features.forward(features.routed(host), cached(1, 0))


def test_kept_keys_of_references_are_refused() -> None:
    host = TINY_HOSTS["Flux2Transformer2DModel-reference"]
    transformer = features.routed(host)
    with pytest.raises(DiffCRError, match="kv_cache_mode"):
        transformer(**host.inputs(1, 0), kv_cache_mode="extract", num_ref_tokens=15)


def test_ideogram_images_of_two_sizes_are_refused() -> None:
    host = TINY_HOSTS["Ideogram4Transformer2DModel"]
    transformer, given = features.routed(host), host.inputs(2, 0)
    given["indicator"][0, 7] = 0
    with pytest.raises(DiffCRError, match="of one size"):
        transformer(**given)


@pytest.mark.parametrize("placement", ["mlp", "attention"])
def test_merging_inside_a_sequence_with_text_is_refused(placement: Any) -> None:
    transformer = TINY_HOSTS["AuraFlowTransformer2DModel"].make()
    with pytest.raises(DiffCRError, match="give placement 'block'"):
        diffcr.attach(transformer, diffcr.ToMeConfig(0.5, placement=placement))
