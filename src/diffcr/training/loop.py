"""The training loop, on accelerate."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from diffcr.binding.compilation import compile, uncompile_blocks
from diffcr.errors import DiffCRError
from diffcr.files import write_json
from diffcr.hardware import hardware, library_versions
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.training.average import WeightAverage
from diffcr.training.checkpoint import Progress, TrainedState, load_checkpoint, save_checkpoint
from diffcr.training.data.encoding import EncodedDataset
from diffcr.training.data.masked import MaskedDataset
from diffcr.training.draws import MicroBatch
from diffcr.training.history import History
from diffcr.training.identity import RunIdentity
from diffcr.training.objective import NoiseSchedule
from diffcr.training.optimizers import learning_rate_factor, make_optimizers
from diffcr.training.ratio_schedule import RatioSteering, ratio_gradient_scales
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.run import (
    attention_kernel,
    check_start,
    checkpoint_gradients,
    make_accelerator,
    make_draws,
    make_teacher,
    prepare_model,
    save_result,
)
from diffcr.training.step_losses import StepLosses, forward_losses
from diffcr.training.task import Task, make_task


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave.

    Attributes:
        directory: Of the run; `final/` in it holds the trained weights.
        steps: Done.
        mean_compression_ratio: Learned, None without routers.
        seconds: Spent in steps, over all resumptions.
    """

    directory: Path
    steps: int
    mean_compression_ratio: float | None
    seconds: float


def train(
    recipe: TrainingRecipe,
    pipe: Any,
    dataset: EncodedDataset | MaskedDataset,
    output_directory: str | Path,
    resume: bool = True,
) -> TrainingResult:
    """Train a pipeline's transformer, or what the recipe says of a `LazyInpaintPipeline`, in place.

    Args:
        recipe: What to do.
        pipe: A diffusers pipeline; its scheduler gives the noise schedule.
        dataset: Encoded with the same pipeline, with masks for inpainting.
        output_directory: For `checkpoints/`, `by-products/`, `final/`, `history.jsonl` and
            `training_record.json`.
        resume: Go on from the last checkpoint there; without, a directory with one is an error.

    Raises:
        DiffCRError: The recipe does not fit the model, the processes or the directory.
    """
    check_start(recipe)
    task = make_task(recipe, pipe, dataset)
    schedule = NoiseSchedule.of(pipe.scheduler)
    return _Trainer(recipe, task, schedule, Path(output_directory), resume).run()


class _Trainer:
    def __init__(
        self,
        recipe: TrainingRecipe,
        task: Task,
        schedule: NoiseSchedule,
        directory: Path,
        resume: bool,
    ) -> None:
        self.recipe, self.task, self.directory = recipe, task, directory
        self.accelerator = make_accelerator(recipe, directory)
        self.schedule = schedule
        identity = RunIdentity.of(recipe, task)
        identity.check(directory)
        self.teacher = make_teacher(task, recipe, self.accelerator.device)
        task.model.requires_grad_(False)
        self.compressor: Compressor | None = prepare_model(task.trained, recipe)
        if recipe.gradient_checkpointing:
            checkpoint_gradients(task.model)
        if self.compressor is not None and recipe.ratio_loss.noise_emphasis > 0:
            self.compressor.gradient_scales = ratio_gradient_scales(self.schedule, recipe)
        task.model.to(self.accelerator.device).eval()
        task.trained.train()
        optimizers = make_optimizers(task.trained, recipe)
        trained = {n: p for n, p in task.trained.named_parameters() if p.requires_grad}
        self.average = WeightAverage(trained, recipe.ema_decay)
        self.state = TrainedState(trained, self.average.values, optimizers)
        if recipe.compile and not recipe.is_dense:
            compile(task.trained)
        self.model, *self.optimizers = self.accelerator.prepare(task.model, *optimizers)
        self.ratios: RatioSteering | None = None
        if self.compressor is not None:
            self.ratios = RatioSteering(self.compressor, recipe, self.average, self.optimizers)
        self.draws = make_draws(recipe, task, self.accelerator.num_processes)
        self.progress = self._resume(resume)
        # Every process has read its checkpoint before the first one changes files.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            identity.write(directory)
            self.history = History(directory / "history.jsonl", self.progress.step)

    def _resume(self, resume: bool) -> Progress:
        checkpoints = self.directory / "checkpoints"
        if not resume and checkpoints.exists():
            raise DiffCRError(
                f"{self.directory} holds another run: resume it or give another directory"
            )
        found = load_checkpoint(checkpoints, self.state)
        if found is None:
            passed = 0 if self.ratios is None else self.ratios.passed_multiples()
            return Progress(ratio_loss_weight=self.recipe.ratio_loss.weight, by_products=passed)
        if found.step > self.recipe.steps:
            raise DiffCRError(
                f"{self.directory} holds a run of {found.step} steps, more than steps "
                f"({self.recipe.steps}): give another directory"
            )
        self.average.updates = found.average_updates
        if self.accelerator.scaler is not None and found.scaler:
            self.accelerator.scaler.load_state_dict(found.scaler)
        return found

    def run(self) -> TrainingResult:
        bar = tqdm(
            total=self.recipe.steps,
            initial=self.progress.step,
            desc=self.recipe.name,
            disable=not self.accelerator.is_main_process,
            mininterval=1,
        )
        for step in range(self.progress.step, self.recipe.steps):
            values = self._step(step)
            self._after_step(step + 1, values)
            bar.set_postfix({k: f"{v:.3g}" for k, v in values.items() if k in ("loss", "ratio")})
            bar.update()
        bar.close()
        self.accelerator.wait_for_everyone()
        result = TrainingResult(
            self.directory, self.recipe.steps, self._mean_ratio(), self.progress.seconds
        )
        if self.accelerator.is_main_process:
            self._finish(result)
        self.accelerator.end_training()
        self._hand_back()
        return result

    def _step(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        if self.ratios is not None:
            self.ratios.begin_step(step)
        factor = learning_rate_factor(self.recipe.optimizer, step, self.recipe.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        losses = []
        for micro in range(self.recipe.gradient_accumulation):
            draw = self.draws.micro_batch(step, micro)
            with self.accelerator.accumulate(self.model):
                losses.append(self._backward(draw))
                if self.accelerator.sync_gradients:
                    self._clip()
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        if self.compressor is not None:
            self.compressor.project_ratios()
        self.average.update()
        values = {"loss": self._mean([micro.diffusion for micro in losses])}
        values["region"] = float(draw.region)
        if self.teacher is not None:
            values["distillation"] = self._mean([micro.distillation for micro in losses])
        if (mean := self._mean_ratio()) is not None:
            values["ratio"] = mean
        self.progress = replace(
            self.progress,
            step=step + 1,
            average_updates=self.average.updates,
            seconds=self.progress.seconds + time.perf_counter() - started,
        )
        return values

    def _mean(self, losses: list[torch.Tensor]) -> float:
        """Over micro-batches and processes."""
        return float(self.accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))

    def _backward(self, draw: MicroBatch) -> StepLosses:
        if self.compressor is not None:
            self.compressor.seed_branches(draw.branch_seed)
        part = draw.part(self.accelerator.process_index, self.accelerator.num_processes)
        device = self.accelerator.device
        # Around backward too, which runs checkpointed blocks again.
        with attention_kernel(device, self.recipe.mixed_precision):
            losses = forward_losses(
                self.model,
                self.task,
                self.schedule,
                part,
                self.recipe,
                device,
                self.teacher,
            )
            total = losses.total
            if self.ratios is not None:
                total = total + self.ratios.loss(self.progress.ratio_loss_weight)
            self.accelerator.backward(total)
        return losses

    def _clip(self) -> None:
        if self.recipe.optimizer.gradient_clip > 0:
            self.accelerator.clip_grad_norm_(
                list(self.state.parameters.values()), self.recipe.optimizer.gradient_clip
            )
        if self.ratios is not None:
            self.ratios.shape_gradients(self.progress.step)

    def _after_step(self, step: int, values: dict[str, float]) -> None:
        passed = self.progress.by_products
        if self.ratios is not None:
            weight = self.progress.ratio_loss_weight
            weight = self.ratios.next_weight(weight, values["ratio"], step)
            passed = max(passed, self.ratios.passed_multiples())
            self.progress = replace(self.progress, ratio_loss_weight=weight)
        if not self.accelerator.is_main_process:
            self.progress = replace(self.progress, by_products=passed)
            return
        if step % self.recipe.log_every == 0 or step == self.recipe.steps:
            self._log(step, values)
        if passed > self.progress.by_products:
            percent = round(100 * passed * self.recipe.by_product_step)
            self._save_average(self.directory / "by-products" / f"ratio-{percent:02d}")
        self.progress = replace(self.progress, by_products=passed)
        if step % self.recipe.checkpoint_every == 0 or step == self.recipe.steps:
            scaler = self.accelerator.scaler
            self.progress = replace(
                self.progress, scaler=scaler.state_dict() if scaler is not None else None
            )
            save_checkpoint(self.directory / "checkpoints", self.state, self.progress)

    def _log(self, step: int, values: dict[str, float]) -> None:
        line: dict[str, Any] = {"step": step, **values, "seconds": self.progress.seconds}
        if self.ratios is not None:
            line["ratio_loss_weight"] = self.progress.ratio_loss_weight
            line["table"] = self.ratios.table()
        self.history.append(line)
        if self.recipe.tracker != "none":
            numbers = {k: v for k, v in line.items() if isinstance(v, float)}
            self.accelerator.log(numbers, step=step)

    def _save_average(self, directory: Path) -> None:
        with self.average.in_place():
            save_result(self.task, self.recipe, directory)

    def _finish(self, result: TrainingResult) -> None:
        self._save_average(self.directory / "final")
        last = self.history.path.read_text(encoding="utf-8").splitlines()[-1:]
        write_json(
            self.directory / "training_record.json",
            {
                "recipe": self.recipe.to_json_dict(),
                "steps": result.steps,
                "seconds": result.seconds,
                "mean_compression_ratio": result.mean_compression_ratio,
                "last_history_line": last[0] if last else None,
                "items": self.task.items,
                "versions": library_versions(),
                "hardware": hardware(),
            },
        )

    def _hand_back(self) -> None:
        """Leave the averaged weights in the caller's model, without accelerate's wrappers."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        # `in_place` restores what it replaced; here the averages are to stay.
        with torch.no_grad():
            for name, value in self.average.values.items():
                self.state.parameters[name].copy_(value)
        if self.compressor is not None:
            self.compressor.end_training()
        if self.recipe.compile and not self.recipe.is_dense:
            uncompile_blocks(self.task.trained)
        self.task.model.eval()

    def _mean_ratio(self) -> float | None:
        return None if self.compressor is None else self.compressor.mean_compression_ratio
