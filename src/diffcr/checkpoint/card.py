"""The model card that is written beside a checkpoint."""

from __future__ import annotations

from typing import Any

_TEMPLATE = """---
library_name: diffcr
tags:
- diffcr
- token-compression
base_model: {base_model}
---

# DiffCR checkpoint

{subject}

- Base model: {base_model}
- Method: `{config}`

```python
import diffcr

{usage}
```
{ratios}"""
_TEXT_TO_IMAGE = """diffcr.load(pipe, "THIS_DIRECTORY_OR_HUB_ID")
image = pipe("a prompt").images[0]"""
_INPAINTING = """diffcr.load({}, "THIS_DIRECTORY_OR_HUB_ID")
image = pipe("a prompt", image=photo, mask_image=mask).images[0]"""
_USAGE_BY_FAMILY = {
    "lazy-decoder": _INPAINTING.format("pipe"),
    "lazy-encoder": _INPAINTING.format("pipe.encoder"),
}
_TOKENS = "Token compression for `{}`: layers compute only some of the tokens."
_PRUNING = "Structured pruning of `{}`: blocks without some of their heads and channels."
_RATIOS = """
Mean compression ratio: {realised:.1%} at inference ({learned:.1%} learned).
Compression per layer (rows) and timestep region (columns, clean to noisy), per cent:

{table}
"""


def model_card(description: dict[str, Any]) -> str:
    """Markdown with the Hub's metadata header.

    Args:
        description: Contents of `diffcr_config.json`.
    """
    subject = _PRUNING if description["config"]["method"] == "pruning" else _TOKENS
    return _TEMPLATE.format(
        subject=subject.format(description["transformer_class"]),
        base_model=description["base_model"]["id"] or "unknown",
        config=description["config"],
        usage=_USAGE_BY_FAMILY.get(description["family"], _TEXT_TO_IMAGE),
        ratios=_ratios(description) if "compression_ratios" in description else "",
    )


def _ratios(description: dict[str, Any]) -> str:
    ratios = description["compression_ratios"]
    header = "| layer | " + " | ".join(f"region {r}" for r in range(len(ratios[0]))) + " |"
    rule = "|" + "---|" * (len(ratios[0]) + 1)
    rows = [
        f"| {layer} | " + " | ".join(f"{100 * c:.0f}" for c in row) + " |"
        for layer, row in enumerate(ratios)
    ]
    table = "\n".join([header, rule, *rows])
    return _RATIOS.format(table=table, **description["mean_compression_ratio"])
