"""Classes of diffusers that no method can be attached to, and why."""

from __future__ import annotations

from collections.abc import Mapping

_GRID = "its feed-forward is a convolution over the whole grid and needs all tokens"
_PACKED = "its sequences are packed of several kinds of rows, which tensors of indices tell apart"
_KEEPS_KEYS = "its calls keep keys and values of rows for later calls"
_PART = "it is a part of a U-Net, which does not call it with what it denoises"

REFUSED_CLASSES: Mapping[str, str] = {
    "SanaTransformer2DModel": _GRID,
    "SanaVideoTransformer3DModel": _GRID,
    "SanaWMTransformer3DModel": _GRID,
    "SanaWMLTX2RefinerTransformer3DModel": _KEEPS_KEYS,
    "WanAnimate2Transformer3DModel": f"its samples are lists, and {_KEEPS_KEYS}",
    "AnyFlowFARTransformer3DModel": _KEEPS_KEYS,
    "Cosmos3OmniTransformer": _PACKED,
    "MiniMaxH3Transformer3DModel": _PACKED,
    "LatteTransformer3DModel": "its blocks see frames, then places, as samples of a batch",
    "ErnieImageTransformer2DModel": "its sequences have their rows before their samples",
    "HunyuanDiT2DModel": "its later blocks begin with what earlier ones computed of every token",
    "NucleusMoEImageTransformer2DModel": (
        "how many tokens its experts choose follows from how many there are"
    ),
    "Transformer2DModel": _PART,
    "DualTransformer2DModel": _PART,
    "TransformerTemporalModel": _PART,
    "DreamLiteTransformer2DModel": _PART,
}
