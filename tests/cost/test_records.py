"""Operations in committed records are those of their configurations and ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from diffcr.binding.attachment import attach, detach
from diffcr.checkpoint.contenders import parse_contender
from diffcr.cost.counting import count_contender, count_flops
from diffcr.cost.sections import flops_section
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.published import make_transformer, transformer_config
from diffcr.inpainting import LazyTransformer2DModel
from diffcr.methods.config import DenseConfig
from diffcr.methods.registry import config_from_json_dict
from diffcr.pretrained import default_inpainting_path, load_default_pipeline
from diffcr.records.record import Record, read_record

_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
pytestmark = pytest.mark.skipif(not _RESULTS.exists(), reason="not in a clone")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_default_pipeline()


def _attach(transformer: Any, record: Record) -> bool:
    """Attach a record's method with the ratios that it learned; False for the dense model."""
    configuration = record.configuration
    values = configuration.get("method") or configuration["recipe"]["method"]
    config = config_from_json_dict(values)
    if isinstance(config, DenseConfig):
        return False
    attached: Any = attach(transformer, config)
    if "compression" in record.results:
        attached.set_compression_ratios(torch.tensor(record.results["compression"]["realised"]))
    return True


@pytest.mark.parametrize(
    "name",
    [
        "dense-8-steps",
        "mod-30",
        "diffcr-l-30",
        "diffcr-lt-30-regions-10",
        "diffcr-lt-30-finished",
        "diffcr-lt-30-sigmoid-mlp",
        "tome-30",
        "tome-30-attention",
        "tome-30-mlp",
        "at-edm-50",
        "pruning-30",
    ],
)
def test_a_rows_section(name: str, pipe: Any) -> None:
    record = read_record(_RESULTS / "experiments" / f"{name}-seed-0.json")
    attached = _attach(pipe.transformer, record)
    section = flops_section(pipe, record.configuration["num_inference_steps"])
    if attached:
        detach(pipe)
    assert section == record.results["flops"]


def _areas() -> list[tuple[int, dict[str, float]]]:
    """Masked tokens of every area, and what a step of each row computes there."""
    results = read_record(_RESULTS / "inpainting-area.json").results
    return list(
        zip(results["masked_tokens"].values(), results["decoder_flops"].values(), strict=True)
    )


@pytest.mark.parametrize("name", ["lazy", "mod-30", "tome-30", "at-edm-30"])
def test_an_inpainting_rows_steps_at_the_ends_of_masked_areas(name: str) -> None:
    record = read_record(_RESULTS / "inpainting" / f"{name}-seed-0.json")
    path = default_inpainting_path() / "transformer"
    with torch.device("meta"):
        decoder = LazyTransformer2DModel.from_config(LazyTransformer2DModel.load_config(path))
    decoder.eval()
    if name != "lazy":
        _attach(decoder, record)
    assert len(_areas()) == 5
    for masked, recorded in (_areas()[0], _areas()[-1]):
        count = count_flops(decoder, InputSize(48, masked_tokens=masked))
        assert count.image_tokens == masked
        assert count.mean.total == recorded[name]


def test_regenerating_the_image_computes_the_whole_of_it(pipe: Any) -> None:
    total = count_flops(pipe.transformer, InputSize(48, 32, 32)).dense.total
    assert {recorded["regenerate-image"] for _, recorded in _areas()} == {total}


@pytest.mark.parametrize(
    ("resolution", "method"), [(512, "diffcr:0.5"), (512, "tome:0.3:block"), (1024, "at-edm:0.3")]
)
def test_a_benchs_shares_of_dense(resolution: int, method: str) -> None:
    record = read_record(_RESULTS / f"forward-pixart-sigma-xl-{resolution}-h100.json")
    with torch.device("meta"):
        transformer = make_transformer(transformer_config("pixart-sigma-xl", resolution))
    count = count_contender(parse_contender(method), transformer, InputSize(120))
    mean, dense = count.mean, count.dense
    shares = {"linear": mean.linear / dense.linear, "total": mean.total / dense.total}
    assert shares == record.results["batches"]["1"][method]["flops_ratio"]
