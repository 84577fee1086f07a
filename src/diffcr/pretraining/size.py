"""How large a pipeline of scenes is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PipelineSize:
    """Of a pipeline that is pretrained on scenes.

    Attributes:
        resolution: Height and width of its pictures in pixels, a multiple of 8.
        layers: Of its transformer.
        width: Of its transformer, a multiple of 32.
        recipe: Name of the transformer's recipe; the resolution of its data is this size's.
    """

    resolution: int
    layers: int
    width: int
    recipe: str

    @property
    def latent_side(self) -> int:
        """Height and width of the latents."""
        return self.resolution // 4


EMBEDDED = PipelineSize(96, 8, 128, "pretrain-scenes")
# 576 tokens of 8 x 8 pixels, of which a scene's objects cover many: what the embedded pipeline's
# 144 tokens are too few for.
TESTBED = PipelineSize(192, 12, 256, "pretrain-testbed")
SIZES = {"embedded": EMBEDDED, "testbed": TESTBED}
