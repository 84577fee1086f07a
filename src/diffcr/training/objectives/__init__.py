"""What models are trained for, by their schedulers."""

from __future__ import annotations

from typing import Any

from diffcr.errors import DiffCRError
from diffcr.training.objectives.discrete import NoisePrediction, VelocityPrediction
from diffcr.training.objectives.edm import PreconditionedVelocity
from diffcr.training.objectives.flow import Density, FlowMatching, NoiseShift
from diffcr.training.objectives.objective import Objective
from diffcr.training.objectives.schedule import NoiseSchedule


def objective_of(
    scheduler: Any, largest_loss_weight: float = 1.0, density: Density = "uniform"
) -> Objective:
    """What the model of a diffusers scheduler predicts.

    Args:
        scheduler: Of the pipeline.
        largest_loss_weight: Of noise prediction, see `TrainingRecipe`; 1 for others.
        density: Of a flow's noise levels, see `TrainingRecipe`; "uniform" for others.

    Raises:
        DiffCRError: There is no objective for the scheduler, or it does not have what is asked for.
    """
    name, config = type(scheduler).__name__, scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    is_flow = prediction == "flow_prediction" or name.startswith("FlowMatch")
    predicts_noise = prediction == "epsilon" and hasattr(scheduler, "alphas_cumprod")
    if largest_loss_weight > 1 and (is_flow or not predicts_noise):
        raise DiffCRError(
            f"largest_loss_weight is {largest_loss_weight}, and the model of {name} predicts no "
            "noise: give 1"
        )
    if is_flow:
        return FlowMatching(NoiseShift.of(scheduler), density)
    if density != "uniform":
        raise DiffCRError(
            f"timestep_density is {density!r}, and {name} samples no flow: give 'uniform'"
        )
    if name.startswith("EDM"):
        return PreconditionedVelocity.of(scheduler)
    if predicts_noise:
        return NoisePrediction(NoiseSchedule.of(scheduler), largest_loss_weight)
    if prediction == "v_prediction" and hasattr(scheduler, "alphas_cumprod"):
        return VelocityPrediction(NoiseSchedule.of(scheduler))
    raise DiffCRError(
        f"{name} with prediction_type {prediction!r} cannot be trained: use one that predicts "
        "noise ('epsilon') or 'v_prediction' over discrete timesteps, one of EDM, or a flow"
    )
