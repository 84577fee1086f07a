"""How far a run is, on disk: checkpoints to resume from, of safetensors and JSON alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from warnings import warn

import torch
from torch import Tensor, nn

from diffcr.core.finite import require_finite
from diffcr.errors import DiffCRError, DiffCRWarning, in_one_line
from diffcr.files import (
    read_json,
    read_tensors,
    replacing_directory,
    save_tensors,
    write_json,
)
from diffcr.validation import AT_LEAST_0, NotNegative, check_fields

STATE_FILE = "progress.json"
_TENSORS_FILE = "state.safetensors"
_KEPT = 2
_STEP = re.compile(r"step-\d{7,}")


@dataclass(frozen=True)
class Progress:
    """Where a run is, apart from tensors.

    Attributes:
        step: Optimiser steps done.
        ratio_loss_weight: lambda of the next step.
        by_products: Multiples of `by_product_step` that the mean ratio has passed.
        average_updates: Updates of the weights' average.
        seconds: Spent in steps, over all resumptions.
        scaler: State of the loss scaler in float16, None otherwise.
    """

    step: Annotated[int, AT_LEAST_0] = 0
    ratio_loss_weight: NotNegative = 0.0
    by_products: Annotated[int, AT_LEAST_0] = 0
    average_updates: Annotated[int, AT_LEAST_0] = 0
    seconds: NotNegative = 0.0
    scaler: dict[str, Any] | None = None


@dataclass(frozen=True)
class TrainedState:
    """The tensors of a run: views of what is being trained.

    Attributes:
        parameters: Trained parameters by name.
        averages: Their moving averages by the same names; empty without averaging.
        optimizers: Each parameter is in one of them, which keeps its state.
    """

    parameters: dict[str, nn.Parameter]
    averages: dict[str, Tensor]
    optimizers: Sequence[torch.optim.Optimizer]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under unique names, where they are."""
        tensors = {f"parameter/{name}": p.detach() for name, p in self.parameters.items()}
        tensors |= {f"average/{name}": value for name, value in self.averages.items()}
        owners = self._owners()
        for name, parameter in self.parameters.items():
            for key, value in owners[parameter].state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)
        return tensors

    def require_finite(self) -> None:
        """Raises DiffCRError where a parameter or an average holds NaN or infinity."""
        require_finite("the trained weights", self.parameters)
        require_finite("the averaged weights", self.averages)

    @torch.no_grad()
    def fill(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`.

        Raises:
            KeyError: A tensor of a parameter is missing.
        """
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
        for name, value in self.averages.items():
            value.copy_(tensors[f"average/{name}"])
        owners = self._owners()
        for path, tensor in tensors.items():
            kind, _, rest = path.partition("/")
            if kind == "optimizer":
                key, _, name = rest.partition("/")
                # torch keeps AdamW's step counter on the CPU, everything else beside the weight.
                parameter = self.parameters[name]
                device = "cpu" if key == "step" else parameter.device
                owners[parameter].state[parameter][key] = tensor.to(device)

    def _owners(self) -> dict[nn.Parameter, torch.optim.Optimizer]:
        return {
            parameter: optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }


def save_progress(directory: Path, state: TrainedState, progress: Progress) -> None:
    """Write `directory/step-N` and delete all but the last two."""
    with replacing_directory(directory / f"step-{progress.step:07d}") as written:
        save_tensors(written / _TENSORS_FILE, state.tensors())
        write_json(written / STATE_FILE, asdict(progress))
    forget_old_progress(directory)


def forget_old_progress(directory: Path) -> None:
    """Delete all but the last two checkpoints."""
    for old in saved_steps(directory)[:-_KEPT]:
        shutil.rmtree(old)


def read_state(directory: Path, state: TrainedState) -> None:
    """Fill a run's tensors with those of a checkpoint."""
    state.fill(read_tensors(directory / _TENSORS_FILE))


def load_progress(
    directory: Path,
    state: TrainedState,
    steps: int,
    read: Callable[[Path, TrainedState], None] = read_state,
) -> Progress | None:
    """Fill `state` from the last readable checkpoint; None where there is none.

    A damaged one is passed over with a warning.

    Args:
        directory: Of the checkpoints.
        state: Of the run.
        steps: That the run is to have at its end.
        read: From a checkpoint's directory into the state.

    Raises:
        DiffCRError: There are checkpoints, and none can be read or it is of more than `steps`.
    """
    found = saved_steps(directory)
    for path in reversed(found):
        try:
            progress = Progress(**read_json(path / STATE_FILE))
            check_fields(progress)
            read(path, state)
            state.require_finite()
        except (DiffCRError, KeyError, TypeError, RuntimeError) as error:
            message = in_one_line(f"checkpoint {path} is passed over: {error}")
            warn(message, DiffCRWarning, stacklevel=2)
            continue
        if progress.step > steps:
            raise DiffCRError(
                f"{directory.parent} holds a run of {progress.step} steps, more than steps "
                f"({steps}): give another directory"
            )
        return progress
    if found:
        raise DiffCRError(
            f"no checkpoint in {directory} can be read: delete it to start from the beginning"
        )
    return None


def saved_steps(directory: Path) -> list[Path]:
    """What `save_progress` wrote there, the oldest first; other names are the user's."""
    steps = (path for path in directory.glob("step-*") if _STEP.fullmatch(path.name))
    return sorted(steps, key=lambda path: int(path.name.removeprefix("step-")))
