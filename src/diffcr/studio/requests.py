"""What a visitor asks for, checked, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from diffcr.errors import DiffCRError

LONGEST_PROMPT = 1000
MOST_STEPS = 100
LARGEST_SEED = 2**31 - 1
LARGEST_GUIDANCE = 20.0


@dataclass(frozen=True)
class PictureRequest:
    """A picture that is asked for.

    Attributes:
        prompt: 1 to `LONGEST_PROMPT` characters.
        seed: Of the noise, 0 to `LARGEST_SEED`.
        steps: Denoising steps, 1 to `MOST_STEPS`.
        guidance_scale: Of classifier-free guidance, 0 to `LARGEST_GUIDANCE`; at most 1 is none.

    Raises:
        DiffCRError: One of them is outside its range.
    """

    prompt: str
    seed: int = 0
    steps: int = 20
    guidance_scale: float = 4.5

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise DiffCRError("the prompt is empty: write some words")
        if len(self.prompt) > LONGEST_PROMPT:
            raise DiffCRError(
                f"the prompt has {len(self.prompt)} characters: write {LONGEST_PROMPT} at most"
            )
        ranges = {
            "seed": (self.seed, 0, LARGEST_SEED),
            "number of steps": (self.steps, 1, MOST_STEPS),
            "guidance scale": (self.guidance_scale, 0, LARGEST_GUIDANCE),
        }
        for name, (value, least, most) in ranges.items():
            if not least <= value <= most:
                raise DiffCRError(f"the {name} is {value}: give {least} to {most}")


@dataclass(frozen=True)
class TimedPicture:
    """A picture that a model painted.

    Attributes:
        image: RGB.
        seconds: That the whole pipeline took.
    """

    image: Image.Image
    seconds: float


@dataclass(frozen=True)
class RepaintedPicture(TimedPicture):
    """A picture that was repainted.

    Attributes:
        area: Share of the picture's pixels under the mask, in (0, 1].
    """

    area: float
