"""What a run keeps on disk: its progress, to go on from, and weights, to be loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffcr.training.optimization import WeightAverage
from diffcr.training.progress import (
    Progress,
    TrainedState,
    load_progress,
    read_state,
    save_progress,
)
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.run import save_result
from diffcr.training.run_directory import RunDirectory
from diffcr.training.sharded import ShardedRun, read_sharded_state
from diffcr.training.task import Task


class RunWriter:
    """Writes into a run's directory, and reads what is there; all processes call it.

    Args:
        task: Of the run.
        recipe: Of the run.
        directory: Of the run.
        accelerator: accelerate's.
        state: The tensors that progress is kept of.
        average: Of the trained weights, which are what is saved.
        sharded: The run's model where it is split over processes, else None.
    """

    def __init__(
        self,
        task: Task,
        recipe: TrainingRecipe,
        directory: RunDirectory,
        accelerator: Any,
        state: TrainedState,
        average: WeightAverage,
        sharded: ShardedRun | None,
    ) -> None:
        self.task, self.recipe, self.directory = task, recipe, directory
        self.accelerator, self.state, self.average = accelerator, state, average
        self.sharded = sharded

    def load_progress(self) -> Progress | None:
        """Fill the tensors from the last checkpoint; None where there is none."""
        read = read_state if self.sharded is None else read_sharded_state
        found = load_progress(self.directory.checkpoints, self.state, self.recipe.steps, read)
        if found is None:
            return None
        self.average.updates = found.average_updates
        if self.accelerator.scaler is not None and found.scaler:
            self.accelerator.scaler.load_state_dict(found.scaler)
        return found

    def save_progress(self, progress: Progress) -> None:
        """Write a checkpoint to go on from."""
        scaler = self.accelerator.scaler
        progress = replace(progress, scaler=scaler and scaler.state_dict())
        if self.sharded is not None:
            self.sharded.save_progress(self.directory.checkpoints, self.state, progress)
        elif self.accelerator.is_main_process:
            save_progress(self.directory.checkpoints, self.state, progress)

    def save_average(self, name: str) -> None:
        """Write the averaged weights as `name` in the run's directory."""

        def save(task: Task) -> None:
            save_result(task, self.recipe, self.directory.path / name)

        if self.sharded is not None:
            with self.average.in_place():
                self.sharded.save_result(save)
        elif self.accelerator.is_main_process:
            with self.average.in_place():
                save(self.task)
