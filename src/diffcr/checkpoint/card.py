"""The model card that is written beside a checkpoint, with the Hub's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from yaml import YAMLError

from diffcr.errors import DiffCRError
from diffcr.files import read_text
from diffcr.hosts import PARTS
from diffcr.hosts.loading import is_hub_id

CARD_FILE = "README.md"
PICTURE_FILE = "ratios.png"
# What a card calls the checkpoint until it is pushed.
PLACE = "THIS_DIRECTORY_OR_HUB_ID"

_TEXT = """# {title}

{subject}

| | |
|---|---|
| Base model | {base} |
| Method | `{method}` |
| Budget | {budget} |
| Weights of its own | {weights} |
| Configuration | `{config}` |

## Use

```bash
pip install diffcr
```

```python
import diffcr

{usage}
```

It belongs to this base model alone: on another one `diffcr.load` refuses it.
{ratios}
## Licence

What was derived from a model is under that model's terms. `diffcr push --license` names the
licence in this card's metadata.

## Reference

[DiffCR: Layer- and Timestep-Adaptive Differentiable Token Compression Ratios for Efficient
Diffusion Transformers](https://arxiv.org/abs/2412.16822), You et al., CVPR 2025.
"""
_OF_PARTS = """# Checkpoints of a pipeline's transformers

{parts}

```python
import diffcr

diffcr.load(pipe, "{place}")
image = pipe("a prompt").images[0]
```
"""
_TEXT_TO_IMAGE = f"""diffcr.load(pipe, "{PLACE}")
image = pipe("a prompt").images[0]"""
_INPAINTING = f"""diffcr.load({{}}, "{PLACE}")
image = pipe("a prompt", image=photo, mask_image=mask).images[0]"""
_USAGE_BY_FAMILY = {
    "lazy-decoder": _INPAINTING.format("pipe"),
    "lazy-encoder": _INPAINTING.format("pipe.encoder"),
}
_OPENING = """from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{}")
"""
_TOKENS = "Token compression for `{}`: layers compute only some of the tokens."
_PRUNING = "Structured pruning of `{}`: blocks without some of their heads and channels."
_RATIOS = f"""
## Compression per layer and timestep

![Share of tokens that bypass each layer in each timestep region]({PICTURE_FILE})

Mean compression ratio: {{realised:.1%}} at inference ({{learned:.1%}} learned).
Per layer (rows) and timestep region (columns, clean to noisy), per cent:

{{table}}
"""


def model_card(description: dict[str, Any]) -> str:
    """Markdown with the Hub's metadata header.

    Args:
        description: Contents of `diffcr_config.json`.
    """
    config, base = description["config"], description["base_model"]["id"]
    on_hub = _names_hub_model(base)
    subject = _PRUNING if config["method"] == "pruning" else _TOKENS
    inpaints = description["family"] in _USAGE_BY_FAMILY
    usage = _USAGE_BY_FAMILY.get(description["family"], _TEXT_TO_IMAGE)
    text = _TEXT.format(
        title=f"{config['method']} on {base or description['transformer_class']}",
        subject=subject.format(description["transformer_class"]),
        base=f"[{base}](https://huggingface.co/{base})" if on_hub else base or "unknown",
        method=config["method"],
        budget=_budget(description),
        weights=_weights(description["files"]),
        config=config,
        usage=usage if inpaints or not on_hub else _OPENING.format(base) + usage,
        ratios=_ratios(description) if "compression_ratios" in description else "",
    )
    return _with_metadata(text, [base] if on_hub else [], description["files"], config["method"])


def card_of_parts(cards: Mapping[str, dict[str, Any]]) -> str:
    """The card of a directory with a checkpoint for each of several transformers.

    Args:
        cards: Contents of their `diffcr_config.json` by the transformers' names.
    """
    bases = sorted({card["base_model"]["id"] for card in cards.values()})
    parts = [f"- [{name}]({name}/{CARD_FILE}): {_budget(card)}" for name, card in cards.items()]
    files = [file for card in cards.values() for file in card["files"]]
    (method, *_) = (card["config"]["method"] for card in cards.values())
    text = _OF_PARTS.format(parts="\n".join(parts), place=PLACE)
    return _with_metadata(text, [b for b in bases if _names_hub_model(b)], files, method)


def for_hub(card: Path, repository: str, license_id: str | None) -> str:
    """A card's text that names the repository where it said a place to be filled in.

    Args:
        card: Markdown file with metadata, as it was saved or edited.
        repository: As "user/name".
        license_id: The Hub's name of a licence, such as "apache-2.0"; None leaves what the card
            says.

    Raises:
        DiffCRError: The metadata cannot be read.
    """
    try:
        named = ModelCard(read_text(card).replace(PLACE, repository))
    except (ValueError, YAMLError) as error:
        raise DiffCRError(f"{card} has no metadata of a model card: {error}") from error
    if license_id is not None:
        named.data["license"] = license_id
    return str(named)


def _with_metadata(text: str, bases: list[str], files: list[str], method: str) -> str:
    own = any(file.endswith("transformer.safetensors") for file in files)
    data = ModelCardData(
        library_name="diffcr",
        base_model=bases or None,
        tags=["diffcr", "token-compression", method],
        base_model_relation=("finetune" if own else "adapter") if bases else None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def _names_hub_model(base: str) -> bool:
    """Whether a base model's name may be a Hub id: of a local pipeline it is two directories."""
    return bool(base) and is_hub_id(base) and base.rpartition("/")[2] not in PARTS


def _budget(description: dict[str, Any]) -> str:
    if "mean_compression_ratio" in description:
        kept = 1 - description["mean_compression_ratio"]["realised"]
        return f"{kept:.0%} of the tokens are computed in a layer on average"
    ratio = description["config"].get("compression_ratio")
    return "as its configuration says" if ratio is None else f"compression ratio {ratio:g}"


def _weights(files: list[str]) -> str:
    if "transformer.safetensors" in files:
        return "the transformer's, as training changed them"
    return "a LoRA" if any(file.startswith("adapter/") for file in files) else "none"


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
