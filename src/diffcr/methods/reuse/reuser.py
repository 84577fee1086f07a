"""The module that follows trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from diffcr.core.select import scattered_positions
from diffcr.hosts.host import Host
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.reuse.config import LARGEST_RATIO, ReuseConfig
from diffcr.methods.reuse.trajectory import KeptTokens, Trajectory
from diffcr.methods.sampling_runs import CallInRun
from diffcr.validation import between


@dataclass
class ReusePass:
    """One call of the transformer.

    Attributes:
        trajectory: That it belongs to; None where every token is computed and nothing remembered.
        count: Tokens that may be computed: N at a dense step, 0 at one that is skipped.
        scattered: `core.select.scattered_positions` of the call's tokens.
        kept: Those that are computed; None for all or none, and before the first block.
        entered: What entered the first block, [B, N, D].
        skips: Whether no block runs.
        carries_gradients: Whether gradients of later calls reach this one's updates.
    """

    trajectory: Trajectory | None
    count: int
    scattered: Tensor
    carries_gradients: bool = False
    kept: KeptTokens | None = None
    entered: Tensor | None = None
    skips: bool = False


class ReusingCall(CallInRun[Trajectory]):
    """As `CallInRun`.

    Attributes:
        carries_gradients: As of `ReusePass`.
    """

    run_type = Trajectory
    carries_gradients: bool = False


class TokenReuser(Attached[ReuseConfig, ReusePass]):
    """Token reuse on a transformer; it holds no weights.

    A thread's trajectories are its own: a call belongs to the one of its prompt's embeddings, so
    that halves of guidance that are called apart keep theirs, and a pipeline's next call, which
    makes others, begins anew.
    """

    keeps_steps = True

    current: ReusingCall

    def __init__(self, config: ReuseConfig, host: Host) -> None:
        super().__init__(config, host)
        self.current = ReusingCall()
        self.layers = host.layers

    @property
    def timestep_regions(self) -> int:
        """Steps that reuse, and those that compute every token."""
        return len(self.region_names)

    @property
    def region_names(self) -> tuple[str, ...]:
        """What the regions are called."""
        return ("steps that reuse", "dense steps")

    def visited_regions(self, noise_levels: Sequence[float]) -> list[int | None]:
        """As `Attached.visited_regions`: a step that begins a trajectory computes every token."""
        run = Trajectory()
        visited: list[int | None] = []
        for place, level in enumerate(noise_levels):
            begins = place == 0 or not run.goes_on(level)
            run = Trajectory() if begins else run
            run.noise_level = level
            visited.append(int(begins or not self._reuses(run, level)))
        return visited

    def _reuses(self, trajectory: Trajectory, level: float) -> bool:
        """Whether a step at a noise level computes less than everything."""
        if level > self.config.dense_above:
            return False
        if self.config.granularity == "tokens":
            return True
        return trajectory.skips_step(self.config.compression_ratio)

    @property
    def reads_timesteps(self) -> bool:
        """Whether a call has to look at its timesteps: a trajectory is one of falling levels."""
        return self.current.region is None

    def forget_run(self) -> None:
        """As `Attached.forget_run`."""
        self.current.forget()

    @contextmanager
    def carrying_gradients(self) -> Iterator[None]:
        """Within the context, steps that the calling thread skips hand gradients on to the step
        whose updates they reuse, with granularity "steps". Then a step's graph is freed by the
        backward of the last step that reuses it alone.
        """
        previous, self.current.carries_gradients = self.current.carries_gradients, True
        try:
            yield
        finally:
            self.current.carries_gradients = previous
            # Graphs do not outlive it.
            self.forget_run()

    def set_compression_ratio(self, compression_ratio: float) -> None:
        """Skip another share of tokens, in [0, 0.95], from the next call on.

        Raises:
            DiffCRError: The value is outside its range.
        """
        self.config = replace(self.config, compression_ratio=compression_ratio)

    def set_budget(self, budget: float) -> None:
        """Spend that share of the dense model's tokens on a sampling run, from the next call on.

        Counted for a sampler whose noise levels are evenly spaced, dense steps included: 0.7 skips
        30 % of the tokens of a run. `calibrate` finds settings for one budget; the others keep its
        dense steps and drift.

        Args:
            budget: From what the largest ratio leaves, `1 - 0.95 * dense_above`, to 1, the dense
                model.

        Raises:
            DiffCRError: The value is outside its range.
        """
        least = 1 - LARGEST_RATIO * self.config.dense_above
        between(round(least, 3), 1).check("budget", budget)
        self.set_compression_ratio(min((1 - budget) / self.config.dense_above, LARGEST_RATIO))

    def build_context(self, call: TransformerCall) -> ReusePass:
        """The trajectory that a call goes on with, and how many tokens it computes."""
        tokens = call.tokens
        scattered = scattered_positions(tokens, call.device)
        levels = {*(call.noise_levels or ())}
        if self.current.region is not None:
            levels = {float(self.current.region)}
        if self.training or len(levels) != 1 or self.config.compression_ratio == 0:
            # What follows is not the run that was left.
            self.current.end(call.conditioning)
            return ReusePass(None, tokens, scattered)
        (level,) = levels
        trajectory = self.current.run(call.conditioning, level)
        if self.current.region is not None:
            reuses = self.current.region == 0
        else:
            reuses = trajectory.updates is not None and self._reuses(trajectory, level)
        count = self._count(tokens) if reuses else tokens
        return ReusePass(trajectory, count, scattered, self.current.carries_gradients)

    def _count(self, tokens: int) -> int:
        """Of N tokens those that a step computes which reuses the others."""
        if self.config.granularity == "steps":
            return 0
        return tokens - int(tokens * self.config.compression_ratio + 1e-9)

    def summary_lines(self) -> list[str]:
        """What is skipped, and what the calling thread's trajectories hold."""
        held = self.current.known()
        config = self.config
        return [
            f"{config.compression_ratio:.1%} of the {config.granularity} reuse updates at noise "
            f"levels of {config.dense_above:g} and below",
            f"kept of past steps: {sum(run.memory for run in held) / 2**20:.1f} MiB",
        ]
