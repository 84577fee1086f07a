"""Classes of diffusers that no method can be attached to, and why."""

from __future__ import annotations

_GRID = "a convolution over the whole grid in its feed-forward needs all tokens"

REFUSED_CLASSES: dict[str, str] = {
    "SanaTransformer2DModel": _GRID,
    "SanaVideoTransformer3DModel": _GRID,
    "SanaWMTransformer3DModel": _GRID,
    "LatteTransformer3DModel": "its blocks see frames, then places, as samples of a batch",
    "WanAnimate2Transformer3DModel": "its samples are lists, and its calls keep keys and values",
    "Cosmos3OmniTransformer": "its sequences are packed of several kinds of rows",
    "ErnieImageTransformer2DModel": "its sequences have their rows before their samples",
}
