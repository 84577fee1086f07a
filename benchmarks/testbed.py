"""A larger pipeline on the same scenes, and the methods on it: `python benchmarks/testbed.py`.

At 192 x 192 pixels a picture has 576 tokens, four times those of the embedded pipeline, and the
transformer has 12 layers of width 256 (`recipes/pretrain-testbed.yaml`): does the order of the
methods change where tokens are redundant? The pipeline is pretrained into OUTPUT/scenes, in files
of at most 16 MB, then the rows are trained where they have to be and measured, each into
OUTPUT/results/NAME.json. What is there is not done again, and a training that was stopped goes on
from its last checkpoint, so that it may run in pieces:

    timeout --signal=INT 420 python benchmarks/testbed.py --output runs/testbed
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffcr
from diffcr.binding.attachment import attach
from diffcr.evaluation.evaluate import evaluate
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.hosts.loading import load_pipeline
from diffcr.methods.config import DenseConfig, MethodConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.pretrained import GUIDANCE_SCALE, judge_path
from diffcr.pretraining.build import build_default
from diffcr.pretraining.size import TESTBED, PipelineSize
from diffcr.records.record import make_record, write_record
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import load_judge
from diffcr.training.job import run_recipe
from diffcr.training.recipe import TrainingRecipe, find_recipe, load_recipe


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        method: What is attached; trained as `recipes/scenes-diffcr-lt.yaml` says where it can be,
            calibrated to its ratio by `diffcr.calibrate` where it is token reuse.
        steps: Denoising steps.
    """

    method: MethodConfig
    steps: int = 20


ROWS = {
    "dense": Row(DenseConfig()),
    "dense-14-steps": Row(DenseConfig(), 14),
    "dense-10-steps": Row(DenseConfig(), 10),
    "reuse-30": Row(ReuseConfig(0.3)),
    "reuse-50": Row(ReuseConfig(0.5)),
    "mod-30": Row(MoDConfig(0.3)),
    "diffcr-lt-30": Row(DiffCRConfig(0.3)),
    "pruning-30": Row(StructuredPruningConfig(0.3)),
    "mod-50": Row(MoDConfig(0.5)),
    "diffcr-lt-50": Row(DiffCRConfig(0.5)),
    "pruning-50": Row(StructuredPruningConfig(0.5)),
}


@dataclass(frozen=True)
class ScenesTestbed:
    """Where and how large.

    Attributes:
        output: Directory of everything.
        size: Of the pipeline.
        shorten: Steps of training and pictures are multiplied with it, for a trial.
        eager: Whether nothing is compiled.
        images: Test captions of a row.
        batch_size: Images per call of the pipeline.
    """

    output: Path
    size: PipelineSize = TESTBED
    shorten: float = 1.0
    eager: bool = False
    images: int = 1000
    batch_size: int = 100

    def pretrain(self) -> None:
        """Make the pipeline, or go on with it."""
        stages = ("pipeline", "transformer")
        build_default(self.output, 0, self.shorten, stages, self.size, self.eager)

    def recipe(self, name: str) -> TrainingRecipe:
        """Of a row that is trained."""
        recipe = load_recipe(find_recipe("scenes-diffcr-lt")).shortened(self.shorten)
        return recipe.with_changes(
            name=name,
            method=ROWS[name].method,
            model=str(self.output / "scenes"),
            compile=recipe.compile and not self.eager,
            data=replace(recipe.data, resolution=self.size.resolution),
        )

    def measure(self, name: str) -> None:
        """Train a row where it has to be, and write its record; nothing where that is there."""
        target = self.output / "results" / f"{name}.json"
        if target.exists():
            return
        row = ROWS[name]
        is_dense, trained = isinstance(row.method, DenseConfig), row.method.trainable
        directory = self.output / "rows" / name
        if trained and not is_dense and not (directory / "training_record.json").exists():
            run_recipe(self.recipe(name), directory)
        pipe = load_pipeline(self.output / "scenes")
        if trained and not is_dense:
            diffcr.load(pipe, directory / "final")
        elif isinstance(row.method, ReuseConfig):
            self._calibrate(pipe, row)
        elif not is_dense:
            attach(pipe, row.method)
        options = EvaluationOptions(
            num_inference_steps=row.steps,
            guidance_scale=GUIDANCE_SCALE,
            image_precision="bf16",
            batch_size=self.batch_size,
            beside_dense=False,
            denoiser_repeats=0,
            pipeline_repeats=0,
            map_timesteps=(),
        )
        scenes = list(ScenesDataset("test", self.images, self.size.resolution))
        subjects = Subjects.of_scenes(scenes)
        found = evaluate(pipe, subjects, options, load_judge(judge_path()))
        configuration = {
            "method": row.method.to_json_dict(),
            "num_inference_steps": row.steps,
            "guidance_scale": GUIDANCE_SCALE,
            "images": self.images,
            "size": vars(self.size),
            "shorten": self.shorten,
        }
        record = make_record("testbed", configuration, found.to_json_dict(), seeds={"images": 0})
        print(write_record(record, target))

    def _calibrate(self, pipe: Any, row: Row) -> None:
        method: Any = row.method
        captions = [scene.caption for scene in ScenesDataset("validation", min(16, self.images))]
        diffcr.calibrate(
            pipe,
            captions,
            method.compression_ratio,
            method.granularity,
            row.steps,
            GUIDANCE_SCALE,
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(ROWS), metavar="ROW")
    parser.add_argument("--output", type=Path, default=Path("runs/testbed"))
    parser.add_argument("--shorten", type=float, default=1.0, help="factor of steps, for a trial")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=100)
    given = parser.parse_args()
    if unknown := {*given.names} - {*ROWS}:
        parser.error(f"{', '.join(sorted(unknown))}: known rows are {', '.join(ROWS)}")
    testbed = ScenesTestbed(
        given.output,
        shorten=given.shorten,
        eager=given.eager,
        images=given.images,
        batch_size=given.batch_size,
    )
    testbed.pretrain()
    for name in given.names:
        testbed.measure(name)


if __name__ == "__main__":
    main()
