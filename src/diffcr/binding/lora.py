"""Low-rank adapters through peft's own injection: PixArt and DiT have no adapter mixin."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal
from warnings import catch_warnings, filterwarnings

from torch import Tensor, nn

from diffcr.binding import acting
from diffcr.binding.acting import ADAPTER
from diffcr.errors import DiffCRError
from diffcr.files import read_json, read_tensors, save_tensors
from diffcr.hosts import family_of, find_transformers
from diffcr.hosts.weights import is_quantised
from diffcr.validation import Share, between, check_fields

_CONFIG_FILE = "adapter_config.json"
_NESTED_REPEAT = re.compile(r"[+*}][^()]*\)[+*{]")
_WEIGHTS_FILE = "adapter_model.safetensors"
_SAYS_NOTHING = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
}


@dataclass(frozen=True)
class Adapter:
    """A LoRA outside of a model: its `peft.LoraConfig` and its weights under peft's names."""

    config: Any
    weights: dict[str, Tensor]


def add_lora(
    pipe_or_transformer: Any,
    rank: int = 32,
    alpha: float | None = None,
    targets: tuple[str, ...] | None = None,
) -> None:
    """Add a LoRA to the linear layers of the transformer's blocks and freeze everything else but
    routers and ratios. Other adapters stay on, frozen, too.

    Args:
        pipe_or_transformer: The transformer, attached or not, or its pipeline; all of a pipeline's.
        rank: Of the update, at least 1 (the paper's is 32).
        alpha: Scale numerator, `rank` by default.
        targets: Names of linear layers; the family's by default.

    Raises:
        DiffCRError: There is one already, the rank is not positive, or other adapters are switched
            off or fused.
    """
    from peft import LoraConfig

    if rank < 1:
        raise DiffCRError(f"LoRA rank is {rank}: give 1 or more")
    for transformer in find_transformers(pipe_or_transformer).values():
        config = LoraConfig(
            r=rank,
            lora_alpha=rank if alpha is None else alpha,
            target_modules=_within_blocks(transformer) if targets is None else list(targets),
        )
        inject_lora(transformer, config)


def _within_blocks(transformer: nn.Module) -> str:
    """A pattern of the family's targets: layers outside of routed blocks may have their names."""
    family = family_of(transformer)
    everywhere, of_group = [], []
    for target in family.lora_targets:
        group, _, path = target.partition(".")
        if group in family.block_groups:
            of_group.append(rf"{group}\.\d+\.{re.escape(path)}")
        else:
            everywhere.append(re.escape(target))
    groups = "|".join(map(re.escape, family.block_groups))
    return "|".join([rf"({groups})\.\d+\.(.+\.)?({'|'.join(everywhere)})", *of_group])


def inject_lora(transformer: nn.Module, config: Any) -> None:
    """Add the adapter that a `peft.LoraConfig` describes, beside others that the model has.

    Raises:
        DiffCRError: There is one already, or the others are switched off or fused.
    """
    from peft import inject_adapter_in_model

    if has_lora(transformer):
        raise DiffCRError("the model has a DiffCR LoRA already: remove it first")
    with acting.beside_others(transformer), catch_warnings():
        # Several adapters are meant.
        filterwarnings("ignore", message="Already found a `peft_config` attribute")
        inject_adapter_in_model(config, transformer, adapter_name=ADAPTER)
        for name, parameter in transformer.named_parameters():
            # Peft takes over the dtype of the layer's weight: in float8 nothing is computed.
            if acting.is_added(name) and is_quantised(parameter):
                parameter.data = parameter.data.float()


def require_lora_gradients(transformer: nn.Module) -> None:
    """Let gradients reach DiffCR's adapter."""
    for name, parameter in transformer.named_parameters():
        if acting.is_added(name):
            parameter.requires_grad_(True)


def has_lora(transformer: nn.Module) -> bool:
    """Whether the transformer holds DiffCR's adapter."""
    return ADAPTER in getattr(transformer, "peft_config", {})


def foreign_adapters(transformer: nn.Module) -> list[str]:
    """Names of the adapters that are not DiffCR's."""
    return [name for name in getattr(transformer, "peft_config", {}) if name != ADAPTER]


def remove_lora(transformer: nn.Module) -> None:
    """Take DiffCR's adapter out, if it is there. Layers without another adapter are the host's own
    again, other adapters act as before, and what required gradients before it does so again.

    Raises:
        DiffCRError: It is fused into the model's own weights.
    """
    if has_lora(transformer):
        acting.require_unfused(transformer)
    # Not told by `peft_config`, which is there last: an adapter may have been added in part.
    for name, layer in list(acting.lora_layers(transformer)):
        if ADAPTER in layer.r:
            # peft would let another one act where none is left that did.
            layer._active_adapter = [other for other in layer.active_adapters if other != ADAPTER]
            layer.delete_adapter(ADAPTER)
        if not layer.r:
            parent, _, attribute = name.rpartition(".")
            setattr(transformer.get_submodule(parent), attribute, layer.base_layer)
    configs: dict[str, Any] = getattr(transformer, "peft_config", {})
    configs.pop(ADAPTER, None)
    if not configs and "peft_config" in vars(transformer):
        del transformer.peft_config
    acting.forget_added(transformer)


def lora_config(transformer: nn.Module) -> Any:
    """The `peft.LoraConfig` of DiffCR's adapter."""
    configs: Any = transformer.peft_config
    return configs[ADAPTER]


def lora_state_dict(transformer: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under peft's names."""
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    return {name: tensor.contiguous() for name, tensor in state.items()}


def replace_lora(transformer: nn.Module, adapter: Adapter | None) -> None:
    """Put an adapter, or none, in the place of the one that is there; all or nothing.

    Raises:
        DiffCRError: The adapter does not fit, and the one that was there is there again.
    """
    previous = None
    if has_lora(transformer):
        previous = Adapter(lora_config(transformer), lora_state_dict(transformer))
        remove_lora(transformer)
    if adapter is None:
        return
    try:
        load_lora(transformer, adapter)
    except DiffCRError:
        if previous is not None:
            load_lora(transformer, previous)
        raise


def load_lora(transformer: nn.Module, adapter: Adapter) -> None:
    """Add an adapter and its weights.

    Raises:
        DiffCRError: The weights do not belong to the configuration or the model, or as
            `inject_lora`.
    """
    from peft import set_peft_model_state_dict

    trained = [(parameter, parameter.requires_grad) for parameter in transformer.parameters()]
    try:
        inject_lora(transformer, adapter.config)
        expected = {name: tensor.shape for name, tensor in lora_state_dict(transformer).items()}
        if expected != {name: tensor.shape for name, tensor in adapter.weights.items()}:
            raise ValueError("the weights are of other layers, or of another rank")
    except DiffCRError:
        raise
    # What a wrong value raises depends on where peft uses it.
    except Exception as error:
        remove_lora(transformer)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        raise DiffCRError(
            "the LoRA's weights, its adapter_config.json and this model do not fit each other: "
            f"{error}"
        ) from error
    set_peft_model_state_dict(transformer, adapter.weights, adapter_name=ADAPTER)


def save_lora(transformer: nn.Module, directory: Path) -> None:
    """Write the adapter in peft's format: adapter_config.json, adapter_model.safetensors."""
    directory.mkdir(parents=True, exist_ok=True)
    save_tensors(directory / _WEIGHTS_FILE, lora_state_dict(transformer))
    lora_config(transformer).save_pretrained(str(directory))


def read_lora(directory: Path) -> Adapter:
    """Read what `save_lora` wrote.

    Raises:
        DiffCRError: A file is missing or damaged, or describes more than low-rank updates of linear
            layers.
    """
    file = directory / _CONFIG_FILE
    values = read_json(file)
    weights = read_tensors(directory / _WEIGHTS_FILE)
    try:
        return Adapter(_plain_config(values), weights)
    except DiffCRError as error:
        raise DiffCRError(f"{file}: {error}") from error


@dataclass(frozen=True)
class _LoraSettings:
    """What of a `peft.LoraConfig` says which layers are updated how; read from files."""

    target_modules: list[str] | str
    r: Annotated[int, between(1, 4096)] = 8
    lora_alpha: float = 8
    lora_dropout: Share = 0.0
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: Literal[True, False, "gaussian"] = True

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.target_modules, str) and _NESTED_REPEAT.search(self.target_modules):
            raise DiffCRError(
                "target_modules is a pattern that repeats what repeats, which may match for ever: "
                "name the layers"
            )


def _plain_config(values: dict[str, Any]) -> Any:
    """The `peft.LoraConfig` of a file's values, where they ask for nothing but low-rank updates:
    peft would change the base model's own weights or modules for some."""
    from peft import LoraConfig

    own = {setting.name for setting in fields(_LoraSettings)}
    plain = LoraConfig().to_dict()
    for name, value in values.items():
        if name not in own | _SAYS_NOTHING and value not in (plain.get(name), None, False, [], {}):
            raise DiffCRError(f"{name} is {value!r}, which is no plain LoRA: convert it to one")
    try:
        settings = _LoraSettings(**{name: values[name] for name in own & values.keys()})
    except TypeError as error:
        raise DiffCRError("target_modules is missing: copy the file again") from error
    return LoraConfig(**vars(settings))
