"""distill: a LoRA that makes up for what reuse costs, learned from the dense model itself."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.binding.lora import add_lora, has_lora, require_lora_gradients
from diffcr.binding.model import disabled, get_reuser
from diffcr.distillation.settings import DistillationSettings
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import Generation
from diffcr.evaluation.modes import evaluating
from diffcr.evaluation.sampling_runs import SamplingRuns
from diffcr.files import read_json, write_json
from diffcr.hosts import find_transformer, find_transformers
from diffcr.hosts.sampling import OutputSize, without_progress
from diffcr.ownership import own_directory
from diffcr.training.interruption import noticing_signals
from diffcr.training.progress import Progress, TrainedState, load_progress, save_progress
from diffcr.training.run import attention_kernel

_IDENTITY = "run.json"
# What a resumed run may change.
_FREE = {"checkpoint_every", "offload_activations"}
_LARGEST_NORM = 1.0
_SHOWN = 20


@dataclass(frozen=True)
class Distillation:
    """What a distillation did.

    Attributes:
        steps: Optimiser steps, over all resumptions.
        first_error: Mean `relative_error` of the first 20 steps of this call; None where there was
            none left to do.
        last_error: Of its last 20.
        seconds: Spent in steps, over all resumptions.
    """

    steps: int
    first_error: float | None
    last_error: float | None
    seconds: float


def distill(
    pipe: Any,
    prompts: Sequence[str],
    directory: str | Path,
    settings: DistillationSettings | None = None,
    size: OutputSize | None = None,
    progress: bool = True,
) -> Distillation:
    """Train a LoRA under token reuse, so that sampling runs end where the dense model's do.

    Prompts alone are needed. A step samples a batch twice from the same noise, with the dense model
    and as the pipeline is attached, and follows the gradient of the distance between the final
    latents through the whole second run. Its memory is that of one training forward for each step
    that computes. What was done is kept in `directory`; the same call goes on from there after a
    kill, to the same weights.

    Args:
        pipe: A text-to-image or text-to-video pipeline with `ReuseConfig` of granularity "steps"
            attached, as `diffcr.calibrate` leaves it.
        prompts: Like those that the pipeline is for; hundreds are better than tens.
        directory: Of checkpoints to go on from.
        settings: How long, at which budgets; `DistillationSettings()` by default.
        size: Of the pictures or videos, the pipeline's own by default.
        progress: Whether to show a progress bar.

    Raises:
        DiffCRError: Something else is attached, the directory holds another run, a setting is
            outside its range, or the error is not finite.
    """
    path = Path(directory)
    given = DistillationSettings() if settings is None else settings
    distiller = _Distiller(pipe, prompts, given, size or OutputSize())
    with own_directory(path, ("checkpoints",)), distiller.prepared():
        return distiller.run(path, progress)


def relative_error(latents: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of final latents [B, ...] from those of the dense model, as a share of
    their squares, mean over the batch."""
    distance, size = ((x.flatten(1).square().sum(1)) for x in (latents - wanted, wanted))
    return (distance / size).mean()


class _Distiller:
    def __init__(
        self, pipe: Any, prompts: Sequence[str], settings: DistillationSettings, size: OutputSize
    ) -> None:
        if len(find_transformers(pipe)) > 1:
            raise DiffCRError("the pipeline has several transformers: distilling takes one")
        self.pipe, self.prompts, self.settings, self.size = pipe, list(prompts), settings, size
        self.transformer: Any = find_transformer(pipe)
        self.reuser = get_reuser(pipe)
        if self.reuser.config.granularity != "steps" or self.reuser.beneath is not None:
            raise DiffCRError(
                "distilling takes reuse of whole steps with nothing beneath it: attach "
                "diffcr.ReuseConfig(...) with granularity 'steps' to the bare model"
            )
        self._runs(self.prompts[:1], 0)
        attached = self.reuser.config
        for budget in settings.budgets:
            self.reuser.set_budget(budget)
        self.reuser.config = attached

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Within the context the LoRA alone is trained; the attached ratio is the same again
        after."""
        attached = self.reuser.config
        if not has_lora(self.transformer):
            torch.manual_seed(self.settings.seed)
            add_lora(self.transformer, self.settings.lora_rank)
        self.transformer.requires_grad_(False)
        require_lora_gradients(self.transformer)
        for parameter in self._trained().values():
            # Small steps of AdamW are none in bfloat16.
            parameter.data = parameter.data.float()
        try:
            with evaluating(self.transformer), without_progress(self.pipe):
                yield
        finally:
            self.reuser.config = attached

    def run(self, directory: Path, progress: bool) -> Distillation:
        """All steps that are left."""
        trained = self._trained()
        optimizer = torch.optim.AdamW(trained.values(), weight_decay=0.0)
        state = TrainedState(trained, {}, [optimizer])
        self._claim(directory)
        checkpoints, steps = directory / "checkpoints", self.settings.steps
        found = load_progress(checkpoints, state, steps) or Progress()
        errors: list[float] = []
        seconds, started = found.seconds, time.perf_counter()
        bar = tqdm(total=steps, initial=found.step, desc="distilling", disable=not progress)
        with noticing_signals() as stop, bar:
            for step in range(found.step, steps):
                errors.append(self._step(step, optimizer))
                bar.set_postfix(error=f"{sum(errors[-_SHOWN:]) / len(errors[-_SHOWN:]):.4g}")
                bar.update()
                seconds = found.seconds + time.perf_counter() - started
                last = step + 1 == steps or stop.signal
                if last or (step + 1) % self.settings.checkpoint_every == 0:
                    save_progress(checkpoints, state, Progress(step=step + 1, seconds=seconds))
                if stop.signal:
                    stop.leave()
        first, last_ones = errors[:_SHOWN], errors[-_SHOWN:]
        return Distillation(
            steps,
            sum(first) / len(first) if first else None,
            sum(last_ones) / len(last_ones) if last_ones else None,
            seconds,
        )

    def _trained(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.transformer.named_parameters() if p.requires_grad}

    def _claim(self, directory: Path) -> None:
        """Say whose checkpoints a directory holds, or that they are another run's."""
        texts = "\n".join(self.prompts).encode()
        asked = {k: v for k, v in asdict(self.settings).items() if k not in _FREE}
        identity = {
            "settings": asked,
            "method": self.reuser.config.to_json_dict(),
            "prompts": hashlib.sha256(texts).hexdigest(),
            "size": vars(self.size),
        }
        identity = json.loads(json.dumps(identity))
        file = directory / _IDENTITY
        if not file.exists():
            write_json(file, identity)
        known = read_json(file)
        for name, value in identity.items():
            if known.get(name) != value:
                raise DiffCRError(
                    f"{directory} holds a distillation with other {name}: give another directory, "
                    "or the same again"
                )

    def _step(self, step: int, optimizer: torch.optim.Optimizer) -> float:
        settings = self.settings
        draw = random.Random(f"{settings.seed} {step}")
        if settings.budgets:
            self.reuser.set_budget(draw.choice(settings.budgets))
        prompts = draw.choices(self.prompts, k=settings.batch_size)
        error = self._differentiate(prompts, draw.randrange(2**31))
        if not math.isfinite(error):
            raise DiffCRError(
                f"the error is {error} at step {step + 1}: lower learning_rate, or give a wider "
                "dtype"
            )
        nn.utils.clip_grad_norm_(self._trained().values(), _LARGEST_NORM)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * self._share_of_rate(step)
        optimizer.step()
        optimizer.zero_grad()
        return error

    def _differentiate(self, prompts: list[str], seed: int) -> float:
        """Add the gradients of a batch; returns its error."""
        runs, reuser = self._runs(prompts, seed), self.reuser
        with torch.no_grad(), disabled(self.transformer), self._autocast():
            wanted = runs.batch(self.pipe, 0).float()
        # A context of its own: autocast keeps the weights' casts, here with gradients.
        with torch.enable_grad(), reuser.carrying_gradients(), self._autocast(), self._offload():
            given = runs.latents_with_gradients().float()
        error = relative_error(given, wanted)
        with torch.enable_grad():
            error.backward()
        return float(error.detach())

    def _runs(self, prompts: list[str], seed: int) -> SamplingRuns:
        settings = self.settings
        generation = Generation(
            seed,
            settings.num_inference_steps,
            settings.guidance_scale,
            batch_size=settings.batch_size,
        )
        return SamplingRuns(self.pipe, prompts, generation, self.size)

    def _offload(self) -> AbstractContextManager[Any]:
        if not self.settings.offload_activations:
            return nullcontext()
        return save_on_cpu(pin_memory=self.transformer.device.type == "cuda")

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        precision, device = self.settings.mixed_precision, self.transformer.device
        with (
            attention_kernel(device, precision),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            yield

    def _share_of_rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.settings.warmup_steps))
        return warm * 0.5 * (1 + math.cos(math.pi * step / self.settings.steps))
