"""How large the inputs of a forward are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffcr.errors import DiffCRError


@dataclass(frozen=True)
class InputSize:
    """Of the inputs of one sample's forward.

    Attributes:
        text_tokens: Tokens of a prompt, padding included; at least 0.
        rows: Of the latents; `sample_size` of the model's configuration by default.
        columns: Of the latents, likewise.
        frames: Of the latents.
        masked_tokens: Of a model whose tokens are a part of the grid's, at least 1; all by default.
    """

    text_tokens: int
    rows: int | None = None
    columns: int | None = None
    frames: int = 1
    masked_tokens: int | None = None

    def latents(self, config: Any) -> tuple[int, int]:
        """Rows and columns of the latents of a model with this configuration.

        Raises:
            DiffCRError: Neither they nor the configuration say a size.
        """
        side = config.get("sample_size")
        if side is None and not (self.rows and self.columns):
            raise DiffCRError("the model has no size of its own: give rows and columns of latents")
        return self.rows or side, self.columns or side
