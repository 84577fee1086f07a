"""The testbed's script, at a tiny size."""

from __future__ import annotations

from pathlib import Path

from testbed import ScenesTestbed

from diffcr.hosts.loading import load_pipeline
from diffcr.pretraining.size import TESTBED, PipelineSize
from diffcr.records.record import read_record
from diffcr.training.recipe import find_recipe, load_recipe

_TINY = PipelineSize(resolution=32, layers=2, width=32, recipe="pretrain-testbed")


def test_a_pipeline_and_a_row_of_each_kind_are_made_once(tmp_path: Path) -> None:
    tiny = ScenesTestbed(tmp_path, _TINY, shorten=1e-4, eager=True, images=2, batch_size=2)
    tiny.pretrain()
    for name in ("mod-30", "reuse-50", "dense-10-steps"):
        tiny.measure(name)
        record = read_record(tmp_path / "results" / f"{name}.json")
        assert record.results["quality"] and record.configuration["images"] == 2
    pipe = load_pipeline(tmp_path / "scenes", "cpu")
    assert pipe.transformer.config.sample_size == 8 and pipe.transformer.config.num_layers == 2
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    tiny.pretrain()
    tiny.measure("mod-30")
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_testbed_has_the_size_that_is_asked_for() -> None:
    recipe = load_recipe(find_recipe(TESTBED.recipe))
    assert recipe.data.resolution == TESTBED.resolution and recipe.compile
    assert (TESTBED.latent_side // 2) ** 2 == 576
    assert TESTBED.layers >= 12 and TESTBED.width == 256
