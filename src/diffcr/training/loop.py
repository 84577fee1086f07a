"""The training loop, on accelerate."""

from __future__ import annotations

import math
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffcr.core.sharded import whole
from diffcr.errors import DiffCRError
from diffcr.training.draws import MicroBatch
from diffcr.training.interruption import StopRequest, noticing_signals
from diffcr.training.losses import RunLoss, StepLosses
from diffcr.training.objectives.objective import Objective
from diffcr.training.optimization import WeightAverage, make_optimizers, set_learning_rates
from diffcr.training.progress import Progress, TrainedState
from diffcr.training.ratio_steering import RatioSteering
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.run import (
    attention_kernel,
    hand_back,
    make_accelerator,
    make_draws,
    make_teacher,
    prepare_models,
)
from diffcr.training.run_directory import RunDirectory, TrainingResult
from diffcr.training.run_writer import RunWriter
from diffcr.training.sharded import ShardedRun
from diffcr.training.task import Task, TextToImage


class Trainer:
    """A run: its parts, and the loop over its steps.

    Args:
        recipe: What to do.
        task: Models and data.
        objective: Of the pipeline's scheduler.
        directory: Where to write.
        resume: Whether to go on from the last checkpoint there.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        task: Task,
        objective: Objective,
        directory: Path,
        resume: bool,
    ) -> None:
        self.recipe, self.task = recipe, task
        self.accelerator = make_accelerator(recipe, directory)
        self.directory = RunDirectory(directory, recipe, task, resume)
        self.stop_request = StopRequest()
        device = self.accelerator.device
        teacher = make_teacher(task, recipe, device)
        self.loss = RunLoss(objective, recipe.distillation_weight, teacher)
        compressor = prepare_models(task, recipe, device)
        self.sharded: ShardedRun | None = None
        if recipe.sharding == "fsdp":
            assert isinstance(task, TextToImage)
            self.sharded = ShardedRun(task, self.accelerator)
        trained = {n: p for n, p in task.trained.named_parameters() if p.requires_grad}
        optimizers = make_optimizers(task.trained, recipe)
        self.average = WeightAverage(trained, recipe.ema_decay)
        self.state = TrainedState(trained, self.average.values, optimizers)
        # A sharded model needs accelerate's precision, and no wrapper that shares gradients.
        self.model = self.accelerator.prepare_model(
            task.model, evaluation_mode=self.sharded is not None
        )
        self.optimizers = [self.accelerator.prepare_optimizer(each) for each in optimizers]
        self.ratios: RatioSteering | None = None
        if compressor is not None:
            self.ratios = RatioSteering(
                compressor, recipe, objective, self.average, self.optimizers
            )
        self.draws = make_draws(recipe, task, self.accelerator.num_processes)
        self.writer = RunWriter(
            task,
            recipe,
            self.directory,
            self.accelerator,
            self.state,
            self.average,
            self.sharded,
        )
        self.progress = (self.writer.load_progress() if resume else None) or self._begin()
        # Every process has read its checkpoint before the first one changes files.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.directory.begin(self.progress.step)

    def _begin(self) -> Progress:
        passed = 0 if self.ratios is None else self.ratios.passed_multiples()
        return Progress(ratio_loss_weight=self.recipe.ratio_loss.weight, by_products=passed)

    def run(self) -> TrainingResult:
        """Do the steps that are left, and hand the trained models back.

        SIGINT and SIGTERM end the run after the step that they come in, which is saved.

        Raises:
            DiffCRError: The loss, a gradient or a weight is no finite number any more.
        """
        self._do_steps()
        self.accelerator.wait_for_everyone()
        result = TrainingResult(
            self.directory.path,
            self.recipe.steps,
            None if self.ratios is None else self.ratios.mean,
            self.progress.seconds,
        )
        self.writer.save_average("final")
        if self.accelerator.is_main_process:
            self.directory.finish(result)
        self.accelerator.end_training()
        # What the caller gets has the averaged weights, and none of accelerate's wrappers.
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.average.take_over()
        hand_back(self.task, self.recipe)
        return result

    def _do_steps(self) -> None:
        if self.recipe.compile and self.accelerator.is_main_process:
            _say("compiling the blocks: the first steps take minutes, the others less than without")
        bar = tqdm(
            total=self.recipe.steps,
            initial=self.progress.step,
            desc=self.recipe.name,
            disable=not self.accelerator.is_main_process,
            mininterval=1,
        )
        with bar, noticing_signals() as self.stop_request:
            for step in range(self.progress.step, self.recipe.steps):
                values = self._step(step)
                stops = values.pop("stop") > 0
                self._after_step(step + 1, values, stops)
                shown = ("loss", "ratio")
                bar.set_postfix({k: f"{values[k]:.3g}" for k in shown if k in values})
                bar.update()
                if stops:
                    break
        if self.progress.step < self.recipe.steps:
            if self.accelerator.is_main_process:
                step = self.progress.step
                _say(f"stopped and saved after step {step}: run it again to go on")
            self.stop_request.leave()

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
                    gradient_norm = self._shape_gradients(step)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        if self.ratios is not None:
            self.ratios.end_step()
        self.average.update()
        agreed = self._agree(step + 1, losses, gradient_norm)
        values = {"loss": agreed["loss"], "region": float(draw.region), "stop": agreed["stop"]}
        if self.loss.teacher is not None:
            values["distillation"] = agreed["distillation"]
        if self.ratios is not None:
            values["ratio"] = self.ratios.mean
        self.progress = replace(
            self.progress,
            step=step + 1,
            average_updates=self.average.updates,
            seconds=self.progress.seconds + time.perf_counter() - started,
        )
        return values

    def _agree(
        self, step: int, losses: list[StepLosses], gradient_norm: Tensor
    ) -> dict[str, float]:
        """What all processes go by, in one exchange: means of the losses over micro-batches and
        processes, the norm of the gradient, and above 0 whether one of them is to stop. The device
        is waited for here alone, for the ratios too."""
        total = torch.stack([micro.total.detach() for micro in losses]).mean()
        parts = {
            "loss": torch.stack([micro.diffusion for micro in losses]).mean(),
            "distillation": torch.stack([micro.distillation for micro in losses]).mean(),
            "total": total,
            "gradient_norm": gradient_norm.to(total),
            "stop": total.new_tensor(float(self.stop_request.signal > 0)),
        }
        reduced = self.accelerator.reduce(torch.stack(list(parts.values())), reduction="mean")
        unread = [] if self.ratios is None else [self.ratios.unread()]
        values = torch.cat([reduced, *unread]).tolist()
        agreed = dict(zip(parts, values[: len(parts)], strict=True))
        self._require_finite(step, agreed)
        if self.ratios is not None:
            self.ratios.read(values[len(parts) :])
        return agreed

    def _require_finite(self, step: int, agreed: dict[str, float]) -> None:
        total, gradient = agreed["total"], agreed["gradient_norm"]
        # A loss scaler meets such gradients with a smaller scale.
        scaled = self.accelerator.scaler is not None
        if math.isfinite(total) and (scaled or math.isfinite(gradient)):
            return
        raise DiffCRError(
            f"training diverged at step {step}: the loss is {total:g}, the gradient's norm "
            f"{gradient:g}. Lower optimizer.learning_rate ({self.recipe.optimizer.learning_rate:g})"
            " or the losses' weights and give another directory; the last checkpoint is kept"
        )

    def _backward(self, draw: MicroBatch) -> StepLosses:
        steered = nullcontext() if self.ratios is None else self.ratios.micro_batch(draw)
        # Hosts that drop at random, such as DiT its classes, do so again after a resume.
        torch.manual_seed(draw.branch_seed)
        own = draw.of_process(self.accelerator.process_index, self.accelerator.num_processes)
        # Around backward too, which runs checkpointed blocks again.
        kernel = attention_kernel(self.accelerator.device, self.recipe.mixed_precision)
        with kernel, steered:
            batch = self.task.batch(own, self.loss.objective)
            losses = self.loss.losses(self.model, batch)
            total = losses.total
            if self.ratios is not None:
                total = total + self.ratios.loss(self.progress.ratio_loss_weight)
            self.accelerator.backward(total)
        return losses

    def _shape_gradients(self, step: int) -> Tensor:
        """Clip and steer; the norm that the gradient of all parameters had."""
        largest = self.recipe.optimizer.gradient_clip or math.inf
        parameters = list(self.state.parameters.values())
        if self.sharded is None:
            norm: Tensor = self.accelerator.clip_grad_norm_(parameters, largest)
        else:
            norm = whole(torch.nn.utils.clip_grad_norm_(parameters, largest))
        if self.ratios is not None:
            self.ratios.shape_gradients(step)
        return norm

    def _after_step(self, step: int, values: dict[str, float], stops: bool) -> None:
        before = self.progress.by_products
        if self.ratios is not None:
            self.progress = replace(
                self.progress,
                ratio_loss_weight=self.ratios.next_weight(
                    self.progress.ratio_loss_weight, values["ratio"], step
                ),
                by_products=max(before, self.ratios.passed_multiples()),
            )
        last = step == self.recipe.steps
        saves = last or stops or step % self.recipe.checkpoint_every == 0
        passes = self.progress.by_products > before
        if saves or passes:
            self.state.require_finite()
        if last or step % self.recipe.log_every == 0:
            self._log(step, values)
        if passes:
            percent = round(100 * self.progress.by_products * self.recipe.by_product_step)
            self.writer.save_average(f"by-products/ratio-{percent:02d}")
        if saves:
            self.writer.save_progress(self.progress)

    def _log(self, step: int, values: dict[str, float]) -> None:
        line: dict[str, Any] = {"step": step, **values, "seconds": self.progress.seconds}
        if self.ratios is not None:
            line["ratio_loss_weight"] = self.progress.ratio_loss_weight
            line["table"] = self.ratios.table()
        if not self.accelerator.is_main_process:
            return
        self.directory.log(line)
        if self.recipe.tracker != "none":
            numbers = {k: v for k, v in line.items() if isinstance(v, float)}
            self.accelerator.log(numbers, step=step)


def _say(text: str) -> None:
    """A line for people, above the progress bar."""
    tqdm.write(text, file=sys.stderr)
