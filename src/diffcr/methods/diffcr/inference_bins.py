"""The bins of a table of ratios at inference, read once per change."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffcr.methods.diffcr.ratios import snap_bins


@dataclass
class InferenceBins:
    """What was read of the ratios, and the bins that follow.

    Attributes:
        max_bin: Largest bin.
        state: Which parameter was read (a deep copy counts its changes anew), and how often it had
            been changed; writes to `.data`, as averages of weights make them, do not count.
        values: The ratios, flat.
        bins: [L][R].
    """

    max_bin: int
    state: tuple[int, int] | None = None
    values: list[float] | None = None
    bins: list[list[int]] | None = None

    def of(self, ratios: Tensor, may_wait: bool) -> list[list[int]]:
        """Bins of the ratios [L, R], [L][R].

        Args:
            ratios: On any device.
            may_wait: Whether an accelerator may be waited for where no change is known of.
        """
        free = may_wait or ratios.device.type == "cpu" or ratios.is_inference()
        if free or self.bins is None or self.state != _state(ratios):
            self.take(ratios, ratios.detach().flatten().tolist())
        assert self.bins is not None
        return self.bins

    def take(self, ratios: Tensor, values: list[float]) -> None:
        """Take notice of the ratios' values, flat, where the caller has read them."""
        if self.values != values:
            regions = ratios.shape[1]
            rows = [values[start : start + regions] for start in range(0, len(values), regions)]
            self.values, self.bins = values, snap_bins(rows, self.max_bin)
        self.state = _state(ratios)


def _state(ratios: Tensor) -> tuple[int, int]:
    return id(ratios), 0 if ratios.is_inference() else ratios._version
