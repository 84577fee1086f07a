"""Methods on shared weights, in turns; no test asserts a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import diffcr
from diffcr.checkpoint.contenders import build, parse_contender
from diffcr.cli import main
from diffcr.cost.counting import count_contender
from diffcr.cost.flops import Flops
from diffcr.errors import DiffCRError
from diffcr.evaluation.timing import memory as memory_module
from diffcr.evaluation.timing import subject as subject_module
from diffcr.evaluation.timing import timed_batch
from diffcr.evaluation.timing.bench import BenchOptions, bench
from diffcr.evaluation.timing.latency import LatencyRatio, Timing
from diffcr.evaluation.timing.memory import PeakMemory, peak_memory
from diffcr.evaluation.timing.subject import Subject, open_subject
from diffcr.evaluation.timing.timed_batch import Measured, Share, Variant, Visit, visits_of
from diffcr.hosts import find_transformer, published
from diffcr.pretrained import default_checkpoint_path, load_default_pipeline
from diffcr.records.record import read_record, write_record
from diffcr.report.sections import make_tables
from tests.checkpoint.test_contenders import METHODS
from tests.hosts import denoise, inputs, pixart


def _subject(**options: Any) -> Subject:
    return Subject("tiny", pixart(**options).requires_grad_(False), 5, 8, True)


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", *map(str, arguments)])
    captured = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("guess:0.2", "with one of dense, diffcr, mod, tome, at-edm, reuse, pruning"),
        ("checkpoint", "NAME[:COMPRESSION_RATIO[:PLACEMENT]]"),
        ("", "such as tome:0.3:block"),
        ("tome:0.3:block:2", "NAME[:COMPRESSION_RATIO[:PLACEMENT]]"),
        ("mod", "give a compression ratio, such as mod:0.3"),
        ("dense:0.2", "dense has no compression ratio"),
        ("mod:0.2:block", "mod takes a ratio alone"),
        ("mod:much", "'much' is no compression ratio"),
        ("mod:nan", "'nan' is no compression ratio"),
        ("mod:0.25", "multiple of 0.1"),
        ("diffcr:1.0", "multiple of 0.1 from 0.0 to 0.9"),
        ("tome:0.8", "from 0 to 0.75"),
        ("tome:0.3:middle", "placement is 'middle'"),
    ],
)
def test_what_is_no_method_is_said(
    capsys: pytest.CaptureFixture[str], method: str, message: str
) -> None:
    code, printed, error = _run(capsys, "--method", method)
    assert (code, printed) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1


def test_other_mistakes_are_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text("{}")
    sigma = ("--model", "pixart-sigma-xl")
    for arguments, message in (
        (("--output", record), "--force"),
        (("--output", tmp_path), "is a directory"),
        (("--output", record / "x"), "is a file"),
        (("--model", "nowhere", "--method", "mod:0.2"), "neither a published model"),
        ((*sigma, "--resolution", 512), "nothing to compare"),
        ((*sigma, "--method", "mod:0.2"), "several resolutions"),
        ((*sigma, "--checkpoint", default_checkpoint_path()), "random weights"),
        (("--dtype", "float16"), "dtype is 'float16'"),
        (("--batch-size", 0), "--batch-size"),
        (("--pairs", 0), "--pairs"),
    ):
        code, _, error = _run(capsys, *arguments)
        assert code == 2
        assert message in error, error
        assert len([line for line in error.splitlines() if "error:" in line]) == 1
    assert record.read_text() == "{}"


def test_efficiency_is_the_measured_by_the_predicted_speed_up() -> None:
    latency = LatencyRatio(Timing((2.0, 4.0, 10.0)), Timing((1.0, 3.2, 8.0)))
    model, visits = nn.Identity(), (Visit(500, 1.0),)
    variant = Variant("mod:0.5", "dense", model, visits, Share(0.4, 0.6))
    measured = Measured(variant, latency, None)
    assert latency.ratio == pytest.approx(0.8)
    # A speed-up of 1.25, where 2.5 and 1.67 were predicted.
    assert measured.efficiency.linear == pytest.approx(1.25 / 2.5)
    assert measured.efficiency.total == pytest.approx(1.25 * 0.6)
    values = measured.to_json_dict()
    assert values["ratio_to_dense"] == latency.ratio
    assert "peak_memory" not in values


def test_regions_that_compute_the_same_are_visited_once() -> None:
    few, many = Flops(5, 7), Flops(9, 14)
    assert visits_of([[few]]) == (Visit(500, 1.0),)
    assert visits_of([[few, few, many, few]] * 2) == (Visit(375, 0.75), Visit(625, 0.25))
    subject = _subject()
    count = count_contender(parse_contender("at-edm:0.3"), subject.transformer, subject.size)
    late, early = visits_of(count.per_layer)
    assert (late.weight, early.weight) == (0.75, 0.25)
    assert late.timestep < 750 <= early.timestep


def test_a_record_holds_every_forwards_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contenders = [parse_contender(method) for method in ("dense", *METHODS, "mod:0.2")]
    record = bench(_subject(), contenders, BenchOptions(batch_sizes=(1, 3), pairs=2, warmup=0))
    assert read_record(write_record(record, tmp_path / "r.json")) == record
    assert set(record.samples) == {
        f"batch {batch}/{name}"
        for batch in (1, 3)
        for name in (
            "dense/t 500",
            "mod:0.2/t 500",
            "diffcr:0.3/t 500",
            "tome:0.3:block/t 500",
            "at-edm:0.3/t 375",
            "at-edm:0.3/t 875",
            "pruning:0.3/t 500",
        )
    }
    assert all(len(seconds) == 2 for seconds in record.samples.values())
    measured = record.results["batches"]["3"]
    assert list(measured) == ["dense", *METHODS]
    dense = measured["dense"]
    assert dense["ratio_to_dense"] == dense["efficiency"]["total"] == 1
    early, late = (record.samples[f"batch 3/at-edm:0.3/t {t}"] for t in (875, 375))
    mean = sum(0.25 * a + 0.75 * b for a, b in zip(early, late, strict=True)) / 2
    assert measured["at-edm:0.3"]["median_seconds"] == pytest.approx(mean)
    assert "batch 3" in capsys.readouterr().err
    times, efficiencies, *_ = make_tables(record)
    assert [row[0] for row in times.rows] == [row[0] for row in efficiencies.rows]


def test_what_does_not_fit_is_left_out_and_dense_has_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = timed_batch._forward

    def too_large(fails: Callable[[nn.Module], bool]) -> Callable[..., Any]:
        def run(model: nn.Module, arguments: dict[str, Any]) -> Any:
            if fails(model):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(model, arguments)

        return run

    contenders = [parse_contender("mod:0.2"), parse_contender("at-edm:0.3")]
    options = BenchOptions(pairs=1)
    pruned = too_large(lambda model: hasattr(model, "diffcr") and not model.diffcr.state_dict())
    monkeypatch.setattr(timed_batch, "_forward", pruned)
    record = bench(_subject(), contenders, options)
    assert list(record.results["batches"]["1"]) == ["dense", "mod:0.2"]
    assert record.results["left_out"] == {"1": {"at-edm:0.3": "out of memory"}}
    assert "at-edm:0.3 was left out: out of memory." in make_tables(record)[0].note
    monkeypatch.setattr(timed_batch, "_forward", too_large(lambda model: True))
    with pytest.raises(DiffCRError, match="dense cannot run at batch size 1: out of memory"):
        bench(_subject(), contenders, options)
    with pytest.raises(DiffCRError, match="batch sizes"):
        bench(_subject(), contenders, BenchOptions(batch_sizes=()))


def test_memory_that_cannot_be_measured_is_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_module, "_PROCESS", tmp_path / "no-proc")
    assert peak_memory(lambda: None, torch.device("cpu")) is None
    assert peak_memory(lambda: None, torch.device("meta")) is None
    record = bench(_subject(), [parse_contender("at-edm:0.3")], BenchOptions(pairs=1))
    assert all("peak_memory" not in values for values in record.results["batches"]["1"].values())
    assert all(row[-2:] == ("-", "-") for row in make_tables(record)[0].rows)
    # A peak that the kernel does not reset is that of something else.
    (tmp_path / "no-proc").mkdir()
    (tmp_path / "no-proc" / "clear_refs").touch()
    (tmp_path / "no-proc" / "status").write_text("VmHWM:  900000 kB\nVmRSS:  100000 kB\n")
    assert peak_memory(lambda: None, torch.device("cpu")) is None


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_the_peak_of_a_call_is_seen_and_what_was_freed_before_is_not() -> None:
    torch.zeros(2**26).add_(1)
    found = peak_memory(lambda: torch.zeros(2**24).add_(1), torch.device("cpu"))
    if found is None:
        pytest.skip("the kernel does not reset the peak")
    assert found.source == "resident set"
    assert 0.9 * 2**26 < found.rise < 2 * 2**26
    assert PeakMemory(5, 3, "cuda allocator").to_json_dict()["rise"] == 2


def test_published_sizes_have_random_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 2}
    small |= {"cross_attention_dim": 48, "caption_channels": 32}
    told = {"pixart-alpha-xl": 64, "pixart-sigma-xl": None}
    for model, size in told.items():
        known = published._MODELS[model]
        changed = replace(known, config={**known.config, **small}, told_size_at=size)
        monkeypatch.setitem(published._MODELS, model, changed)  # type: ignore[arg-type]
    first, second = (open_subject("pixart-alpha-xl", 64).transformer for _ in range(2))
    assert first.use_additional_conditions
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    for model in told:
        sized = ("--model", model, "--resolution", 64, "--method", "diffcr:0.3")
        code, printed, _ = _run(capsys, *sized, "--pairs", 1, "--json")
        assert code == 0
        configuration = json.loads(printed)["configuration"]
        assert (configuration["model"], configuration["random_weights"]) == (model, True)
        assert (configuration["image_tokens"], configuration["text_tokens"]) == (16, 120)


@pytest.mark.parametrize("model", ["flux-dev", "sd35-medium", "qwen-image", "z-image", "wan-1.3b"])
def test_models_that_people_run_are_timed_at_a_tiny_size(model: str) -> None:
    subject = open_subject(model, None, "bfloat16", "cpu", tiny=True)
    contenders = [parse_contender(text) for text in ("diffcr:0.5", "fewer-layers:0.5")]
    record = bench(subject, contenders, BenchOptions(pairs=1, warmup=0))
    measured = record.results["batches"]["1"]
    assert record.configuration["model"] == f"{model}, tiny" and not record.results["left_out"]
    assert {*measured} == {"dense", "diffcr:0.5", "fewer-layers:0.5"}
    assert all(measured[name]["flops_ratio"]["total"] < 0.9 for name in {*measured} - {"dense"})


def test_a_model_that_does_not_fit_says_so_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject_module, "free_memory", lambda device: 10**9)
    with pytest.raises(DiffCRError, match=r"wan-1.3b takes 2.8 GB .* and 1.0 GB are free on cpu"):
        open_subject("wan-1.3b", None, "bfloat16", "cpu")


def test_the_command_measures_the_embedded_default_with_its_checkpoint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "deep" / "record.json"
    arguments = ("--pairs", 1, "--method", "mod:0.3", "--output", output)
    code, printed, _ = _run(capsys, *arguments, "--json")
    assert code == 0
    record = read_record(output)
    assert json.loads(printed) == asdict(record)
    measured = record.results["batches"]["1"]
    assert list(measured) == ["dense", "mod:0.3", "checkpoint"]
    checkpoint = diffcr.load(load_default_pipeline(), default_checkpoint_path())
    assert sum(measured["checkpoint"]["timestep_weights"].values()) == pytest.approx(1)
    assert record.configuration["methods"]["checkpoint"]["timestep_regions"] == (
        checkpoint.config.timestep_regions
    )
    code, printed, _ = _run(capsys, *arguments, "--force")
    assert code == 0
    assert "FLOPs of dense, and efficiency" in printed
    assert "…" not in printed


@pytest.mark.slow
def test_compiled_variants_compute_what_eager_ones_do() -> None:
    bare = pixart()
    with torch.no_grad():
        for method in ("dense", "mod:0.2", "tome:0.3:block"):
            contender = parse_contender(method)
            eager, compiled = build(contender, bare), build(contender, bare, compiled=True)
            difference = denoise(eager, inputs()) - denoise(compiled, inputs())
            assert difference.abs().max() < 1e-5
    options = BenchOptions(pairs=1, compiled=True)
    measured = bench(_subject(), [parse_contender("mod:0.2")], options).results["batches"]["1"]
    assert measured["mod:0.2, compiled"]["baseline"] == "dense, compiled"
    assert "forward" not in vars(find_transformer(bare).transformer_blocks[0])
