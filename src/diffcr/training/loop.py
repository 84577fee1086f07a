"""The training loop, on accelerate."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffcr.training.draws import MicroBatch
from diffcr.training.objective import NoiseSchedule, Objective, StepLosses
from diffcr.training.optimization import WeightAverage, make_optimizers, set_learning_rates
from diffcr.training.progress import Progress, TrainedState, load_progress, save_progress
from diffcr.training.ratio_steering import RatioSteering
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.run import (
    attention_kernel,
    hand_back,
    make_accelerator,
    make_draws,
    make_teacher,
    prepare_models,
    save_result,
)
from diffcr.training.run_directory import RunDirectory, TrainingResult
from diffcr.training.task import Task


class Trainer:
    """A run: its parts, and the loop over its steps.

    Args:
        recipe: What to do.
        task: Models and data.
        schedule: Of the pipeline's scheduler.
        directory: Where to write.
        resume: Whether to go on from the last checkpoint there.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        task: Task,
        schedule: NoiseSchedule,
        directory: Path,
        resume: bool,
    ) -> None:
        self.recipe, self.task = recipe, task
        self.accelerator = make_accelerator(recipe, directory)
        self.directory = RunDirectory(directory, recipe, task, resume)
        device = self.accelerator.device
        self.objective = Objective(
            schedule,
            recipe.largest_loss_weight,
            recipe.distillation_weight,
            make_teacher(task, recipe, device),
        )
        compressor = prepare_models(task, recipe, device)
        trained = {n: p for n, p in task.trained.named_parameters() if p.requires_grad}
        optimizers = make_optimizers(task.trained, recipe)
        self.average = WeightAverage(trained, recipe.ema_decay)
        self.state = TrainedState(trained, self.average.values, optimizers)
        self.model, *self.optimizers = self.accelerator.prepare(task.model, *optimizers)
        self.ratios: RatioSteering | None = None
        if compressor is not None:
            self.ratios = RatioSteering(compressor, recipe, schedule, self.average, self.optimizers)
        self.draws = make_draws(recipe, task, self.accelerator.num_processes)
        self.progress = self._resume()
        # Every process has read its checkpoint before the first one changes files.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.directory.begin(self.progress.step)

    def _resume(self) -> Progress:
        found = load_progress(self.directory.checkpoints, self.state, self.recipe.steps)
        if found is None:
            passed = 0 if self.ratios is None else self.ratios.passed_multiples()
            return Progress(ratio_loss_weight=self.recipe.ratio_loss.weight, by_products=passed)
        self.average.updates = found.average_updates
        if self.accelerator.scaler is not None and found.scaler:
            self.accelerator.scaler.load_state_dict(found.scaler)
        return found

    def run(self) -> TrainingResult:
        """Do the steps that are left, and hand the trained models back."""
        with tqdm(
            total=self.recipe.steps,
            initial=self.progress.step,
            desc=self.recipe.name,
            disable=not self.accelerator.is_main_process,
            mininterval=1,
        ) as bar:
            for step in range(self.progress.step, self.recipe.steps):
                values = self._step(step)
                self._after_step(step + 1, values)
                shown = ("loss", "ratio")
                bar.set_postfix({k: f"{values[k]:.3g}" for k in shown if k in values})
                bar.update()
        self.accelerator.wait_for_everyone()
        result = TrainingResult(
            self.directory.path,
            self.recipe.steps,
            None if self.ratios is None else self.ratios.mean,
            self.progress.seconds,
        )
        if self.accelerator.is_main_process:
            self._save_average("final")
            self.directory.finish(result)
        self.accelerator.end_training()
        # What the caller gets has the averaged weights, and none of accelerate's wrappers.
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.average.take_over()
        hand_back(self.task, self.recipe)
        return result

    def _step(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        if self.ratios is not None:
            self.ratios.begin_step(step)
        set_learning_rates(self.optimizers, self.recipe.optimizer, step, self.recipe.steps)
        losses = []
        for micro in range(self.recipe.gradient_accumulation):
            draw = self.draws.micro_batch(step, micro)
            with self.accelerator.accumulate(self.model):
                losses.append(self._backward(draw))
                if self.accelerator.sync_gradients:
                    self._shape_gradients(step)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        if self.ratios is not None:
            self.ratios.end_step()
        self.average.update()
        values = {
            "loss": self._mean([micro.diffusion for micro in losses]),
            "region": float(draw.region),
        }
        if self.objective.teacher is not None:
            values["distillation"] = self._mean([micro.distillation for micro in losses])
        if self.ratios is not None:
            values["ratio"] = self.ratios.mean
        self.progress = replace(
            self.progress,
            step=step + 1,
            average_updates=self.average.updates,
            seconds=self.progress.seconds + time.perf_counter() - started,
        )
        return values

    def _mean(self, losses: list[Tensor]) -> float:
        """Over micro-batches and processes."""
        return float(self.accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))

    def _backward(self, draw: MicroBatch) -> StepLosses:
        if self.ratios is not None:
            self.ratios.begin_micro_batch(draw)
        own = draw.of_process(self.accelerator.process_index, self.accelerator.num_processes)
        # Around backward too, which runs checkpointed blocks again.
        with attention_kernel(self.accelerator.device, self.recipe.mixed_precision):
            batch = self.task.batch(own, self.objective.schedule)
            losses = self.objective.losses(self.model, batch)
            total = losses.total
            if self.ratios is not None:
                total = total + self.ratios.loss(self.progress.ratio_loss_weight)
            self.accelerator.backward(total)
        return losses

    def _shape_gradients(self, step: int) -> None:
        if self.recipe.optimizer.gradient_clip > 0:
            self.accelerator.clip_grad_norm_(
                list(self.state.parameters.values()), self.recipe.optimizer.gradient_clip
            )
        if self.ratios is not None:
            self.ratios.shape_gradients(step)

    def _after_step(self, step: int, values: dict[str, float]) -> None:
        before = self.progress.by_products
        if self.ratios is not None:
            self.progress = replace(
                self.progress,
                ratio_loss_weight=self.ratios.next_weight(
                    self.progress.ratio_loss_weight, values["ratio"], step
                ),
                by_products=max(before, self.ratios.passed_multiples()),
            )
        if not self.accelerator.is_main_process:
            return
        last = step == self.recipe.steps
        if last or step % self.recipe.log_every == 0:
            self._log(step, values)
        if self.progress.by_products > before:
            percent = round(100 * self.progress.by_products * self.recipe.by_product_step)
            self._save_average(f"by-products/ratio-{percent:02d}")
        if last or step % self.recipe.checkpoint_every == 0:
            scaler = self.accelerator.scaler
            progress = replace(self.progress, scaler=scaler and scaler.state_dict())
            save_progress(self.directory.checkpoints, self.state, progress)

    def _log(self, step: int, values: dict[str, float]) -> None:
        line: dict[str, Any] = {"step": step, **values, "seconds": self.progress.seconds}
        if self.ratios is not None:
            line["ratio_loss_weight"] = self.progress.ratio_loss_weight
            line["table"] = self.ratios.table()
        self.directory.log(line)
        if self.recipe.tracker != "none":
            numbers = {k: v for k, v in line.items() if isinstance(v, float)}
            self.accelerator.log(numbers, step=step)

    def _save_average(self, name: str) -> None:
        with self.average.in_place():
            save_result(self.task, self.recipe, self.directory.path / name)
