"""The closed form is the least squares of its rank, and leaves what it does not fit as it was."""

from __future__ import annotations

import pytest
import torch

import diffcr
from diffcr.errors import DiffCRError
from diffcr.evaluation.bypass_fitting import BypassFit, _Moments, fit_bypass
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from tests.flow_pipelines import tiny_flux_pipeline
from tests.hosts import scramble
from tests.pipelines import tiny_pixart_pipeline

_PROMPTS = ["a red circle", "a blue square"]


def test_a_map_of_low_rank_with_a_bias_per_region_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    down, up, bias = (torch.randn(s, generator=generator) for s in ((6, 2), (2, 6), (2, 6)))
    moments = _Moments(3)
    for region in (0, 1):
        x = torch.randn(50, 6, generator=generator) + region
        moments.add(region, x, x @ down @ up + bias[region])
    maps = moments.fit(2, 1e-12)
    torch.testing.assert_close((maps.down @ maps.up).float(), down @ up, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(maps.bias[:2].float(), bias, atol=1e-4, rtol=1e-4)
    # The third region was in no step: what is true of all tokens.
    torch.testing.assert_close(maps.bias[2].float(), bias.mean(0), atol=1e-4, rtol=1e-4)
    assert moments.explained(maps) == pytest.approx(1, abs=1e-6)
    assert moments.explained(moments.fit(1, 1e-12)) < 0.999


def test_a_rank_is_as_good_as_its_best_map() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    y = torch.tanh(x @ torch.randn(5, 5, generator=generator, dtype=torch.float64))
    moments = _Moments(1)
    moments.add(0, x, y)
    x, y = x - x.mean(0), y - y.mean(0)
    full = x @ torch.linalg.lstsq(x, y).solution
    u, s, v = torch.linalg.svd(full, full_matrices=False)
    best = (u[:, :2] * s[:2]) @ v[:2]
    maps = moments.fit(2, 1e-12)
    torch.testing.assert_close(x @ maps.down @ maps.up, best, atol=1e-6, rtol=1e-6)


def test_tokens_that_are_not_finite_are_refused() -> None:
    moments = _Moments(1)
    moments.add(0, torch.full((4, 3), torch.inf), torch.ones(4, 3))
    with pytest.raises(DiffCRError, match="not finite"):
        moments.fit(1, 1e-4)


def _fitted(rank: int) -> tuple[diffcr.methods.diffcr.compressor.Compressor, BypassFit]:
    pipe = tiny_pixart_pipeline()
    compressor = diffcr.attach(pipe, DiffCRConfig(timestep_regions=2))
    scramble(compressor)
    ratios = compressor.ratios.detach().clone()
    weights = {n: p.clone() for n, p in pipe.transformer.named_parameters() if "bypass" not in n}
    found = fit_bypass(pipe, _PROMPTS, rank, num_inference_steps=3, progress=False)
    now = dict(pipe.transformer.named_parameters())
    assert all(torch.equal(now[name], weight) for name, weight in weights.items())
    assert torch.equal(compressor.ratios, ratios)
    return compressor, found


def test_a_pipeline_gets_the_same_maps_twice_and_more_rank_explains_more() -> None:
    compressor, found = _fitted(4)
    again, same = _fitted(4)
    assert found == same and compressor.config.bypass == "linear"
    assert compressor.linear_bypass is not None and again.linear_bypass is not None
    for own, other in zip(
        compressor.linear_bypass.parameters(), again.linear_bypass.parameters(), strict=True
    ):
        assert torch.equal(own, other)
    _, wider = _fitted(16)
    pairs = list(zip(found.explained, wider.explained, strict=True))
    assert all(0 < a <= b + 1e-9 <= 1 for a, b in pairs) and pairs[-1][0] < pairs[-1][1]


def test_what_it_cannot_do_is_said_before_anything_runs() -> None:
    pipe = tiny_pixart_pipeline()
    with pytest.raises(DiffCRError, match="not attached"):
        fit_bypass(pipe, _PROMPTS)
    diffcr.attach(pipe)
    for options, message in (
        ({"bypass_rank": 33}, "bypass_rank is 33: give a value from 1 to 32"),
        ({"ridge": 0.0}, "ridge is 0.0"),
        ({"prompts": []}, "there are no prompts"),
    ):
        with pytest.raises(DiffCRError, match=message):
            fit_bypass(pipe, **{"prompts": _PROMPTS, **options})  # type: ignore[arg-type]
    assert diffcr.get_compressor(pipe).config.bypass == "identity"


@pytest.mark.parametrize("route_every", [1, 2])
def test_a_pipeline_with_streams_of_text_is_fitted(route_every: int) -> None:
    pipe = tiny_flux_pipeline()
    diffcr.attach(pipe.transformer, MoDConfig(0.5, route_every=route_every))
    found = fit_bypass(pipe, _PROMPTS, 4, num_inference_steps=2, progress=False)
    assert all(0 < share <= 1 for share in found.explained)
    # Half of the image's tokens, never those of the text, in two steps.
    assert len({*found.tokens}) == 1
