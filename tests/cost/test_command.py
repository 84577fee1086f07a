"""`diffcr flops`: against the paper, and what cannot be counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import diffcr
from diffcr.cli import main
from diffcr.errors import DiffCRError
from diffcr.hosts.published import make_transformer, transformer_config
from diffcr.pretrained import (
    default_checkpoint_path,
    default_pipeline_path,
    load_default_pipeline,
)


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["flops", *arguments])
    captured = capsys.readouterr()
    return captured.out if exit_.value.code == 0 else captured.err


_SIGMA = ("--model", "pixart-sigma-xl", "--resolution", "512", "--batch-size", "16")


def test_the_papers_table_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    uniform = ("--method", "mod", "--compression-ratio", "0.2", "--json")
    counted = json.loads(_run(capsys, *_SIGMA, *uniform))
    assert counted["dense"]["linear"] / 1e9 == pytest.approx(17361.7, rel=1e-3)
    assert counted["mean"]["linear"] / 1e9 == pytest.approx(13949.3, rel=1e-3)
    dense = json.loads(_run(capsys, *_SIGMA, "--method", "dense", "--json"))
    assert dense["mean"] == dense["dense"] == counted["dense"]
    assert "17357.4" in _run(capsys, *_SIGMA, "--method", "dense")


@pytest.mark.parametrize(("ratio", "papers"), [("0.1", 16391.4), ("0.2", 15421.2)])
def test_the_papers_merging_is_around_the_mlp_alone(
    capsys: pytest.CaptureFixture[str], ratio: str, papers: float
) -> None:
    tome = ("--method", "tome", "--compression-ratio", ratio, "--placement", "mlp", "--json")
    counted = json.loads(_run(capsys, *_SIGMA, *tome))
    assert counted["mean"]["linear"] / 1e9 == pytest.approx(papers, rel=5e-3)


def test_attention_pruning_saves_what_uniform_ratios_save(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shared = ("--compression-ratio", "0.2", "--json")
    pruned = json.loads(_run(capsys, *_SIGMA, "--method", "at-edm", *shared))
    uniform = json.loads(_run(capsys, *_SIGMA, "--method", "mod", *shared))
    assert pruned["mean"]["linear"] == pytest.approx(uniform["mean"]["linear"], rel=2e-3)
    assert len(pruned["per_region"]) == 4


def test_pruning_is_counted_by_the_widths_that_stay(capsys: pytest.CaptureFixture[str]) -> None:
    pruning = ("--method", "pruning", "--compression-ratio", "0.3", "--json")
    counted = json.loads(_run(capsys, *_SIGMA, *pruning))
    realised = 1 - counted["mean"]["linear"] / counted["dense"]["linear"]
    assert realised == pytest.approx(0.3, abs=0.02)
    assert counted["mean"]["total"] < counted["dense"]["total"]
    assert counted["skipped"] == [[0.0]] * 28


def test_a_method_is_named_in_one_word_or_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    parts = ("--method", "tome", "--compression-ratio", "0.2", "--placement", "mlp")
    apart = json.loads(_run(capsys, *parts, "--json"))
    assert json.loads(_run(capsys, "--method", "tome:0.2:mlp", "--json")) == apart
    counted = [
        json.loads(_run(capsys, "--method", name, "--json"))["mean"]
        for name in ("diffcr:0.2", "mod:0.2")
    ]
    assert counted[0] == counted[1]


def test_the_embedded_checkpoint_is_counted_by_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    counted = json.loads(_run(capsys, "--json"))
    compressor = diffcr.load(load_default_pipeline(), default_checkpoint_path())
    kept = [[round(144 * (1 - share)) for share in row] for row in counted["skipped"]]
    assert kept == compressor.kept_tokens(144)
    assert counted["image_tokens"] == 144
    assert 0.5 < counted["mean"]["total"] / counted["dense"]["total"] < 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "pixart-sigma-xl"), "several resolutions"),
        (("--model", "nowhere"), "neither a published model"),
        (("--model", "pixart-sigma-xl", "--resolution", "500"), "multiple of 16"),
        (_SIGMA, "learns its ratios"),
        ((*_SIGMA, "--method", "guess"), "one of dense, diffcr, mod, tome, at-edm, reuse, pruning"),
        ((*_SIGMA, "--method", "mod"), "give a compression ratio, such as mod:0.3"),
        ((*_SIGMA, "--compression-ratio", "0.2"), "belong to a --method"),
        ((*_SIGMA, "--method", "mod:0.2", "--compression-ratio", "0.2"), "named without them"),
        ((*_SIGMA, "--method", "tome", "--compression-ratio", "0.8"), "from 0 to 0.75"),
        ((*_SIGMA, "--method", "dense", "--placement", "mlp"), "dense has no compression ratio"),
        ((*_SIGMA, "--method", "mod", "--compression-ratio", "0.25"), "multiple of 0.1"),
        ((*_SIGMA, "--checkpoint", str(default_checkpoint_path())), "the model has 28"),
        (("--checkpoint", str(default_checkpoint_path()), "--method", "dense"), "exclude"),
    ],
)
def test_what_cannot_be_counted_is_said(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    error = _run(capsys, *arguments)
    assert message in error
    assert len(error.splitlines()) == 1


def test_another_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    with pytest.raises(DiffCRError, match="holds a FluxTransformer2DModel"):
        transformer_config(str(tmp_path), 512)
    assert transformer_config(str(default_pipeline_path()), None)["sample_size"] == 24


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        ({"attention_head_dim": "x"}, "no PixArtTransformer2DModel has such a configuration"),
        ({"sample_size": None}, "no PixArtTransformer2DModel has such a configuration"),
        ({"num_layers": 0}, "has no blocks"),
    ],
    ids=str,
)
def test_a_configuration_of_no_model_is_one_line(change: dict[str, object], saying: str) -> None:
    config = transformer_config(str(default_pipeline_path()), None)
    with torch.device("meta"), pytest.raises(DiffCRError, match=saying):
        make_transformer(config | change)
