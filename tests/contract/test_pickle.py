"""A whole attached model in a pickle, as torch.save and spawned processes make it."""

from __future__ import annotations

import io
from copy import deepcopy

import pytest
import torch

import diffcr
from diffcr.methods.config import MethodConfig
from tests.hosts import denoise, inputs, pixart, scramble

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")

CONFIGURATIONS = [
    diffcr.DiffCRConfig(),
    diffcr.DiffCRConfig(gate="sigmoid-mlp"),
    diffcr.MoDConfig(0.3),
    diffcr.ToMeConfig(0.3),
    diffcr.ATEDMConfig(0.3),
    diffcr.ReuseConfig(0.3),
    diffcr.StructuredPruningConfig(0.3),
]


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: str(config.method))
def test_a_pickled_model_comes_back_attached(config: MethodConfig) -> None:
    transformer = pixart()
    attached = diffcr.attach(transformer, config)
    if isinstance(config, diffcr.DiffCRConfig):
        scramble(attached)
    expected = denoise(transformer, inputs())
    file = io.BytesIO()
    torch.save(transformer, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(denoise(loaded, inputs()), expected)
    assert torch.equal(denoise(deepcopy(loaded), inputs()), expected)
    diffcr.detach(loaded)
    assert torch.equal(denoise(loaded, inputs()), denoise(pixart(), inputs()))
    assert torch.equal(denoise(transformer, inputs()), expected)
