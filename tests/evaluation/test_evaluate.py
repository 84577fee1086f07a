"""An evaluation's record holds every section, measured on the right model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcr.binding.attachment import attach
from diffcr.binding.model import disabled
from diffcr.core.regions import region_of
from diffcr.errors import DiffCRError
from diffcr.evaluation.evaluate import evaluate
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.evaluation.quality import measure_quality
from diffcr.hosts.sampling import sampler_levels
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.records.record import read_record, write_record
from diffcr.report.sections import make_tables
from diffcr.scenes import Scene, ScenesDataset
from diffcr.scenes.judge import JudgeConfig, SceneJudge
from tests.evaluation.test_held_out import _data
from tests.hosts import scramble
from tests.pipelines import TEXT_LENGTH, tiny_pixart_pipeline

OPTIONS = EvaluationOptions(
    num_inference_steps=3,
    saved_images=2,
    held_out_samples=2,
    latency_batch_size=1,
    denoiser_repeats=2,
    pipeline_repeats=1,
    map_timesteps=(900, 100),
    router_scenes=2,
)


def _scenes(count: int) -> list[Scene]:
    dataset = ScenesDataset("test", size=count, resolution=32)
    return [dataset[i] for i in range(count)]


def _judge(features: int = 128) -> SceneJudge:
    return SceneJudge(JudgeConfig(resolution=32, features=features)).eval()


def test_an_attached_pipeline_is_measured_dense_and_compressed(tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    compressor = attach(pipe, DiffCRConfig(timestep_regions=2))
    scramble(compressor)
    scenes = _scenes(3)
    subjects = Subjects.of_scenes(scenes, _data())
    record = evaluate(pipe, subjects, OPTIONS, _judge()).save(tmp_path)
    results = record.results
    assert results["compression"]["realised"] == [
        [b / 10 for b in row] for row in compressor.inference_bins()
    ]
    assert results["flops"]["text_tokens"] == TEXT_LENGTH
    assert results["flops"]["compressed"]["total"] < results["flops"]["dense"]["total"]
    assert set(results["quality"]) == set(results["held_out_loss"]) == {"dense", "compressed"}
    assert results["quality"]["dense"]["images"] == 3
    assert len(results["held_out_loss"]["dense"]["noise"]) == 2
    assert np.asarray(results["router_maps"]["kept"]).shape == (2, 3, 4, 4)
    assert np.asarray(results["router_auc"]["mean"]).shape == (3, 2)
    assert results["router_auc"]["scenes"] == 2
    with disabled(pipe):
        expected = generate_images(pipe, subjects.prompts, 0, 3, batch_size=16)[1]
    with Image.open(tmp_path / results["images"]["dense"][1]) as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(expected))
    assert len(record.samples["latency/denoiser, one step, 2 samples/dense"]) == 2
    assert record.configuration["method"]["timestep_regions"] == 2
    assert read_record(write_record(record, tmp_path / "r.json")).results == results
    assert len(make_tables(record)) == 7


def test_a_bare_pipeline_is_measured_with_prompts_of_ones_own(tmp_path: Path) -> None:
    measured = evaluate(tiny_pixart_pipeline(), Subjects(["a cat"]), OPTIONS, _judge())
    record = measured.save(tmp_path)
    assert set(record.results) == {"images", "flops"}
    assert "compressed" not in record.results["flops"]
    assert record.results["images"]["dense"] == ["images/dense-0000.png"]
    assert [table.rows[0][0] for table in make_tables(record)] == ["dense"]


def test_known_dense_images_are_taken(tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    scramble(attach(pipe))
    known = [Image.new("RGB", (32, 32), "red")]
    record = evaluate(pipe, Subjects(["a cat"], dense_images=known), OPTIONS).save(tmp_path)
    with Image.open(tmp_path / record.results["images"]["dense"][0]) as saved:
        assert saved.getpixel((0, 0)) == (255, 0, 0)


def test_dense_is_the_bare_pipeline_where_host_weights_were_trained(tmp_path: Path) -> None:
    pipe, bare = tiny_pixart_pipeline(), tiny_pixart_pipeline()
    scramble(attach(pipe))
    with torch.no_grad():
        pipe.transformer.proj_out.weight.add_(0.1)
    subjects = Subjects(["a cat"], held_out=_data())
    with pytest.raises(DiffCRError, match="give the base pipeline as bare"):
        evaluate(pipe, subjects, OPTIONS)
    alone = evaluate(pipe, subjects, replace(OPTIONS, beside_dense=False)).save(tmp_path / "alone")
    beside = evaluate(pipe, subjects, OPTIONS, bare=bare).save(tmp_path / "beside")
    only = evaluate(bare, subjects, OPTIONS).save(tmp_path / "only")
    losses = [r.results["held_out_loss"] for r in (alone, beside, only)]
    assert losses[1]["compressed"] == losses[0]["compressed"]
    assert [*losses[0]] == ["compressed"] and losses[1]["dense"] == losses[2]["dense"]
    images = [tmp_path / name / "images/dense-0000.png" for name in ("beside", "only")]
    assert images[0].read_bytes() == images[1].read_bytes()


def test_scenes_that_are_not_the_prompts_own_are_refused() -> None:
    with pytest.raises(DiffCRError, match="1 prompts and 2 scenes"):
        Subjects(["a cat"], _scenes(2))


def test_the_samplers_steps_fall_into_regions_from_noisy_to_clean(
    capsys: pytest.CaptureFixture[str],
) -> None:
    regions = [region_of(level, 4) for level in sampler_levels(tiny_pixart_pipeline(), 20)]
    assert len(regions) == 20
    assert regions[0] == 3
    assert regions[-1] == 0
    assert regions == sorted(regions, reverse=True)
    # The call that is stopped for them leaves no bar behind.
    assert capsys.readouterr().err == ""


def test_a_frechet_distance_needs_more_pictures_than_features() -> None:
    scenes = _scenes(9)
    images = [scene.image for scene in scenes]
    assert measure_quality(_judge(features=64), images, scenes).frechet_distance is None
    same = measure_quality(_judge(features=8), images, scenes).frechet_distance
    assert same == pytest.approx(0, abs=1e-6)
    larger = [image.resize((64, 64)) for image in images]
    other = measure_quality(_judge(features=8), larger, scenes)
    assert other.frechet_distance is not None
    assert other.caption_accuracy.count == 9
