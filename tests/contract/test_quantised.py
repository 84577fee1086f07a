"""On hosts whose weights are quantised. torchao and bitsandbytes are where they are installed:
`make test-quantised`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import diffcr
from diffcr.errors import DiffCRError
from diffcr.hosts.weights import take_fingerprint
from tests.hosts import denoise, inputs, pixart, scramble

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")


def _layerwise_casting(transformer: nn.Module) -> None:
    transformer.enable_layerwise_casting(torch.float8_e4m3fn, compute_dtype=torch.float32)


def _torchao(transformer: nn.Module) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(
        transformer,
        quantization.Int8WeightOnlyConfig(),
        filter_fn=lambda module, name: isinstance(module, nn.Linear) and "lora" not in name,
    )


def _bitsandbytes(make: str) -> Callable[[nn.Module], None]:
    def quantise(transformer: nn.Module) -> None:
        layers = pytest.importorskip("bitsandbytes.nn")
        for name, layer in list(transformer.named_modules()):
            if type(layer) is not nn.Linear or "lora" in name:
                continue
            bias = layer.bias is not None
            if make == "Linear4bit":
                options = {"compute_dtype": torch.float32, "quant_type": "nf4"}
            else:
                options = {"has_fp16_weights": False}
            quantised = getattr(layers, make)(
                layer.in_features, layer.out_features, bias, **options
            )
            quantised.load_state_dict(layer.state_dict())
            transformer.set_submodule(name, quantised.requires_grad_(False).to("cpu"))

    return quantise


QUANTISERS = {
    "layerwise casting": _layerwise_casting,
    "torchao": _torchao,
    "Linear4bit": _bitsandbytes("Linear4bit"),
    "Linear8bitLt": _bitsandbytes("Linear8bitLt"),
}
each_quantiser = pytest.mark.parametrize("quantise", QUANTISERS.values(), ids=QUANTISERS)


def _host(seed: int = 0) -> nn.Module:
    return pixart(seed).requires_grad_(False)


def _save(directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    transformer = _host().to(dtype)
    scramble(diffcr.attach(transformer))
    diffcr.add_lora(transformer, rank=2)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return diffcr.save(transformer, directory)


@each_quantiser
def test_attach_and_detach(quantise: Callable[[nn.Module], None]) -> None:
    transformer = _host()
    quantise(transformer)
    keys = list(transformer.state_dict())
    bare = denoise(transformer, inputs())
    compressor = diffcr.attach(transformer)
    assert torch.equal(denoise(transformer, inputs()), bare)
    scramble(compressor)
    assert not torch.equal(denoise(transformer, inputs()), bare)
    diffcr.detach(transformer, restore=True)
    assert torch.equal(denoise(transformer, inputs()), bare)
    assert list(transformer.state_dict()) == keys


@each_quantiser
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_loads_onto_its_base_alone(
    tmp_path: Path, quantise: Callable[[nn.Module], None], dtype: torch.dtype
) -> None:
    directory = _save(tmp_path / "saved", dtype)
    plain = _host()
    diffcr.load(plain, directory)
    transformer, other = _host(), _host(seed=1)
    quantise(transformer)
    quantise(other)
    bare = denoise(transformer, inputs())
    diffcr.load(transformer, directory)
    expected = denoise(plain, inputs())
    gap = (denoise(transformer, inputs()) - expected).norm() / expected.norm()
    assert gap < 0.3, gap
    again = diffcr.save(transformer, tmp_path / "again")
    assert not (again / "transformer.safetensors").exists()
    for checkpoint in (directory, again):
        reloaded = _host()
        diffcr.load(reloaded, checkpoint)
        assert torch.equal(denoise(reloaded, inputs()), expected)
        with pytest.raises(DiffCRError, match="was trained on"):
            diffcr.load(other, checkpoint)
    diffcr.load(transformer, again)
    diffcr.detach(transformer, restore=True)
    assert torch.equal(denoise(transformer, inputs()), bare)
    assert not any(p.requires_grad for p in transformer.parameters())


@each_quantiser
def test_quantised_after_attach(tmp_path: Path, quantise: Callable[[nn.Module], None]) -> None:
    directory = _save(tmp_path / "saved")
    transformer, bare = _host(), _host()
    quantise(bare)
    scramble(diffcr.attach(transformer))
    quantise(transformer)
    with diffcr.disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), denoise(bare, inputs()))
    diffcr.load(transformer, directory)
    again = diffcr.save(transformer, tmp_path / "again")
    assert not (again / "transformer.safetensors").exists()
    diffcr.detach(transformer, restore=True)
    assert torch.equal(denoise(transformer, inputs()), denoise(bare, inputs()))


@each_quantiser
def test_weights_of_ones_own_are_refused(
    tmp_path: Path, quantise: Callable[[nn.Module], None]
) -> None:
    full = _host()
    diffcr.attach(full)
    directory = diffcr.save(full, tmp_path / "full", weights=True)
    transformer = _host()
    quantise(transformer)
    with pytest.raises(DiffCRError, match="is quantised: load it before quantising"):
        diffcr.load(transformer, directory)
    with pytest.raises(DiffCRError, match="is quantised and cannot be pruned"):
        diffcr.attach(transformer, diffcr.StructuredPruningConfig(0.3))
    diffcr.attach(transformer)
    with pytest.raises(DiffCRError, match="is quantised.*weights=False"):
        diffcr.save(transformer, tmp_path / "own", weights=True)
    assert not (tmp_path / "own").exists()


@each_quantiser
def test_a_lora_trains(quantise: Callable[[nn.Module], None]) -> None:
    transformer = _host()
    quantise(transformer)
    compressor = diffcr.attach(transformer)
    scramble(compressor)
    diffcr.add_lora(transformer, rank=2)
    transformer.train()
    denoise(transformer, inputs()).square().mean().backward()
    assert compressor.routers["transformer_blocks"].grad.abs().sum() > 0
    gradients = [p.grad for n, p in transformer.named_parameters() if ".lora_B." in n]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_a_quantised_pipeline_is_of_the_same_base(tmp_path: Path) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    from diffusers import PixArtTransformer2DModel, TorchAoConfig

    directory = _save(tmp_path / "saved")
    _host().save_pretrained(tmp_path / "transformer")
    transformer = PixArtTransformer2DModel.from_pretrained(
        tmp_path / "transformer",
        quantization_config=TorchAoConfig(quantization.Int8WeightOnlyConfig()),
    )
    diffcr.load(transformer, directory)
    assert denoise(transformer, inputs().to(torch.bfloat16)).isfinite().all()


def test_the_places_that_are_looked_at_are_those_of_the_plain_model() -> None:
    plain, cast = _host(), _host()
    _layerwise_casting(cast)
    ours, theirs = take_fingerprint(plain), take_fingerprint(cast)
    assert ours is not None and theirs is not None and ours.beside is not None
    known = ~theirs.weights.isnan()
    assert 0 < int(known.sum()) < len(known)
    assert torch.equal(ours.weights[known], theirs.weights[known])
    assert not ours.beside.isnan().any()
