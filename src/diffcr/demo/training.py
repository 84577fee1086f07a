"""`diffcr demo --train`: DiffCR-LT on the embedded pipeline in a few minutes, all measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from diffcr.demo.shared import DemoResult, check_demo, open_embedded
from diffcr.errors import DiffCRError
from diffcr.evaluation.compression import Trajectory
from diffcr.evaluation.evaluate import evaluate
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.evaluation.results import Evaluation
from diffcr.hosts.loading import text_tokens
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.pretrained import GUIDANCE_SCALE
from diffcr.records.record import Record
from diffcr.report.report import Report, write_report
from diffcr.report.screen import Screen, gains, show_screen
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import SceneJudge
from diffcr.training import EncodedDataset, TrainingRecipe, encode_dataset, train
from diffcr.training.recipe import OptimizerRecipe, RatioLossRecipe
from diffcr.training.run_directory import read_history

_METHOD = DiffCRConfig(target_compression_ratio=0.3, timestep_regions=4, branching="sampled")
_CAVEAT = (
    "This is a short training, which shows the method at work and not what it reaches: quality "
    "recovers in longer runs. 'dense' is the pretrained pipeline as it was loaded; it was not "
    "trained any further. Routing costs a fixed time per layer, which weighs much in a model as "
    "small as this one."
)


@dataclass(frozen=True)
class DemoPlan:
    """How long the demo trains and how much it measures.

    Attributes:
        steps: Optimizer steps, 1 or more.
        batch_size: Pictures of an optimizer step.
        lora_rank: Rank of the adapters that are trained beside routers and ratios.
        training_scenes: Pictures that are encoded and trained on.
        held_out_scenes: Pictures that the held-out loss is measured on.
        prompts: Test captions that images are generated from, before and after.
        resolution: Height and width of the pictures in pixels, a multiple of 8 from 32 on.
        evaluation: How much is measured; its size and seed are the plan's.
        seed: Of the draws in training, of the first image, of the held-out noise.
    """

    steps: int = 240
    batch_size: int = 16
    lora_rank: int = 32
    training_scenes: int = 768
    held_out_scenes: int = 64
    prompts: int = 64
    resolution: int = 96
    evaluation: EvaluationOptions = field(
        default_factory=lambda: EvaluationOptions(
            guidance_scale=GUIDANCE_SCALE,
            held_out_samples=64,
            denoiser_repeats=9,
            pipeline_repeats=6,
            latency_batch_size=4,
            router_scenes=16,
        )
    )
    seed: int = 0


def run_demo(output_dir: str | Path, steps: int | None = None) -> DemoResult:
    """Fine-tune the embedded default for a short time and report what that gave.

    A demo that was interrupted while it trained goes on.

    Args:
        output_dir: Of the report; made where it is missing.
        steps: Of training, 240 by default: about two minutes on two CPU cores.

    Raises:
        DiffCRError: `steps` is not positive, the directory holds another demo, or the embedded
            weights are not in this installation.
    """
    plan = DemoPlan() if steps is None else DemoPlan(steps=steps)
    check_demo(output_dir)
    if plan.steps < 1:
        raise DiffCRError(f"steps is {plan.steps}: give 1 or more")
    console = Console()
    judge, pipe = open_embedded(console)
    return demonstrate(pipe, judge, output_dir, plan, console)


def demonstrate(
    pipe: Any,
    judge: SceneJudge,
    output_dir: str | Path,
    plan: DemoPlan,
    console: Console | None = None,
) -> DemoResult:
    """The demo on any PixArt pipeline that paints scenes.

    Args:
        pipe: The bare pipeline; DiffCR stays attached to it.
        judge: For caption accuracy.
        output_dir: Of the report.
        plan: How much to do.
        console: Where to print to.

    Raises:
        DiffCRError: The plan cannot be done, or DiffCR cannot be attached to the pipeline.
    """
    check_demo(output_dir)
    console = console or Console()
    output, size, started = Path(output_dir), plan.resolution, time.perf_counter()
    seconds: dict[str, float] = {}
    options = replace(plan.evaluation, seed=plan.seed, height=size, width=size)
    with _timed(seconds, "before"):
        subjects = _subjects(pipe, plan, options, output)
    console.print(
        f"Training DiffCR-LT for {plan.steps} steps: LoRA, routers, and a compression ratio per "
        f"layer and timestep region, {_METHOD.target_compression_ratio:.0%} on average."
    )
    with _timed(seconds, "encoding"):
        data = _encode(pipe, plan, output, "train")
    recipe = demo_recipe(plan)
    with _timed(seconds, "training"):
        trained = train(recipe, pipe, data, output / "training")
    console.print("Measuring the dense and the compressed model in turns.")
    with _timed(seconds, "measuring"):
        evaluation = evaluate(pipe, subjects, options, judge)
    seconds["training steps"] = round(trained.seconds, 2)
    record = _complete(evaluation, output, recipe, trained.directory, seconds)
    report = write_report(record, output, "DiffCR demo")
    took, checkpoint = time.perf_counter() - started, trained.directory / "final"
    show_screen(_screen(record, report, checkpoint, took), console)
    return DemoResult(record, report, checkpoint, took)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - start, 2)


def demo_recipe(plan: DemoPlan) -> TrainingRecipe:
    """A short run, whose learning rates are high enough for the mean to reach its target in it."""
    return TrainingRecipe(
        name="demo",
        method=_METHOD,
        lora_rank=plan.lora_rank,
        steps=plan.steps,
        batch_size=plan.batch_size,
        ema_decay=0.98,
        # As in the pretraining of the embedded pipeline: without it the short run spends noisy
        # timesteps, where places are decided, on the ratio's target.
        largest_loss_weight=100.0,
        seed=plan.seed,
        log_every=max(1, plan.steps // 60),
        checkpoint_every=plan.steps,
        by_product_step=0.1,
        optimizer=OptimizerRecipe(
            learning_rate=5e-4,
            router_learning_rate=2e-3,
            ratio_learning_rate=6e-3,
        ),
        # With a larger lambda all ratios rise alike, and the table says nothing of the layers.
        ratio_loss=RatioLossRecipe(weight=3.0, raise_every=10),
    )


def _subjects(pipe: Any, plan: DemoPlan, options: EvaluationOptions, output: Path) -> Subjects:
    """Test scenes, and what the bare pipeline makes of their captions."""
    scenes = list(ScenesDataset("test", size=plan.prompts, resolution=plan.resolution))
    subjects = Subjects.of_scenes(scenes, _encode(pipe, plan, output, "validation"))
    images = generate_images(
        pipe,
        subjects.prompts,
        batch_size=options.batch_size,
        progress="generating before",
        **options.generation,
    )
    return replace(subjects, dense_images=images)


def _encode(pipe: Any, plan: DemoPlan, output: Path, split: str) -> EncodedDataset:
    size = plan.training_scenes if split == "train" else plan.held_out_scenes
    scenes = ScenesDataset(split, size=size, resolution=plan.resolution)  # type: ignore[arg-type]
    return encode_dataset(pipe, scenes, output / "encoded", text_tokens(pipe))


def _complete(
    evaluation: Evaluation,
    output: Path,
    recipe: TrainingRecipe,
    run: Path,
    seconds: dict[str, float],
) -> Record:
    """The record with what is known of the training in `run`."""
    record, history = evaluation.save(output, "demo"), read_history(run / "history.jsonl")
    sections = {
        "trajectory": Trajectory.of(history, _METHOD.target_compression_ratio).to_json_dict(),
        "seconds": seconds,
        "notes": _notes(recipe.steps, evaluation),
    }
    return replace(
        record,
        results={**record.results, **sections},
        configuration={**record.configuration, "recipe": recipe.to_json_dict()},
        seeds={**record.seeds, "training": recipe.seed},
    )


def _notes(steps: int, evaluation: Evaluation) -> list[str]:
    assert evaluation.compression is not None, "DiffCR is attached"
    skipped, flops = evaluation.compression.realised_mean, evaluation.flops
    share = flops["compressed"]["total"] / flops["dense"]["total"]
    return [
        f"After {steps} training steps {skipped:.1%} of the tokens bypass a layer on average "
        f"(target {_METHOD.target_compression_ratio:.0%}); operations fall to {share:.1%} of the "
        "dense model's.",
        _CAVEAT,
    ]


def _screen(record: Record, report: Report, checkpoint: Path, seconds: float) -> Screen:
    steps = record.configuration["recipe"]["steps"]
    return Screen(
        [
            f"DiffCR trained for {steps} steps on the embedded pipeline and measured beside it, "
            f"{seconds / 60:.1f} minutes in all",
            f"checkpoint: {checkpoint}",
        ],
        [*gains(record), "a short training: quality recovers in longer runs"],
        [
            f"tables, figures, pictures: {report.page}",
            f'diffcr generate --checkpoint {checkpoint} "a prompt"',
            "diffcr calibrate --model YOUR_PIPELINE --prompts FILE    (your model, no training)",
            "diffcr train scenes-diffcr-lt --model YOUR_PIPELINE --data FOLDER    (with training)",
        ],
    )
