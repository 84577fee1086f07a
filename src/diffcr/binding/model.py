"""What reads an attached model: its method, the dense model beside it, its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from diffcr.binding import acting
from diffcr.errors import DiffCRError
from diffcr.hosts import find_transformer, find_transformers
from diffcr.methods.base import Attached
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.reuse.reuser import TokenReuser

_NOTHING_KEPT = (
    "{} keeps nothing from step to step: attach diffcr.ReuseConfig(...), or call diffcr.calibrate"
)


def get_attached(pipe_or_transformer: Any) -> Attached[Any, Any]:
    """The method that is attached to a model.

    Raises:
        DiffCRError: There is none.
    """
    attached = getattr(find_transformer(pipe_or_transformer), "diffcr", None)
    if not isinstance(attached, Attached):
        raise DiffCRError("DiffCR is not attached to this model: call diffcr.attach first")
    return attached


def attached_parts(pipe_or_transformer: Any) -> dict[str, nn.Module]:
    """The transformers of a pipeline that a method is attached to by their names in it, or the
    transformer itself.

    Raises:
        DiffCRError: There is none.
    """
    parts = find_transformers(pipe_or_transformer)
    attached = {name: part for name, part in parts.items() if is_attached(part)}
    if not attached:
        get_attached(next(iter(parts.values())))
    return attached


def get_compressor(pipe_or_transformer: Any) -> Compressor:
    """The routers and ratios of an attached model.

    Raises:
        DiffCRError: DiffCR is not attached, or a method without routers is.
    """
    attached = get_attached(pipe_or_transformer)
    if not isinstance(attached, Compressor):
        raise DiffCRError(
            f"{attached.config.method} is attached, which has neither routers nor ratios"
        )
    return attached


def changes_dense(transformer: nn.Module) -> bool:
    """Whether the model that was attached to is not in the attached one any more."""
    attached = get_attached(transformer)
    replaced = any(method.replaces_weights for method in attached.stack())
    return not replaced and attached.base.have_changed(transformer)


def is_attached(transformer: nn.Module) -> bool:
    """Whether a method is attached to the transformer."""
    return isinstance(getattr(transformer, "diffcr", None), Attached)


def is_routed(transformer: nn.Module) -> bool:
    """Whether the transformer has routers and ratios."""
    return isinstance(getattr(transformer, "diffcr", None), Compressor)


@contextmanager
def disabled(pipe_or_transformer: Any) -> Iterator[None]:
    """Within the context the model is the dense one that a method was attached to, bit for bit, and
    so are all of a pipeline's: all tokens, no gate, DiffCR's LoRA off, other adapters as they are;
    with structured pruning the model before `attach`.

    Raises:
        DiffCRError: The host's own weights were fine-tuned, or a checkpoint brought its own: those
            of the dense model are not here any more. Or an adapter is fused into them.
    """
    with ExitStack() as parts:
        for transformer in attached_parts(pipe_or_transformer).values():
            acting.require_unfused(transformer)
            if changes_dense(transformer):
                raise DiffCRError(
                    "the model's own weights were fine-tuned since it was attached, so the dense "
                    "model is not in it: call the base pipeline, loaded beside it, or this one "
                    "before diffcr.load"
                )
            parts.enter_context(computing_all_tokens(transformer))
        yield


@contextmanager
def computing_all_tokens(pipe_or_transformer: Any) -> Iterator[None]:
    """Within the context all tokens are computed, without gate and DiffCR's LoRA, by the host
    weights as they are: where those were fine-tuned, this is not the dense model."""
    transformer = find_transformer(pipe_or_transformer)
    attached = get_attached(transformer)
    enabled = [method for method in attached.stack() if method.enabled]
    for method in enabled:
        method.enabled = False
    try:
        with acting.lora_off(transformer):
            yield
    finally:
        for method in enabled:
            method.enabled = True
            # What follows is not the run that was left.
            method.forget_run()


@contextmanager
def trajectory(pipe_or_transformer: Any) -> Iterator[None]:
    """Within the context the calling thread's sampling begins anew; nothing of it stays after.

    A pipeline needs none: its next call makes other embeddings of its prompt, and those tell
    sampling runs apart. A sampling loop of one's own does that passes the same embeddings again.

    Raises:
        DiffCRError: What is attached keeps nothing from step to step.
    """
    attached = get_attached(pipe_or_transformer)
    if not attached.depends_on_steps:
        raise DiffCRError(_NOTHING_KEPT.format(attached.config.method))
    keeping = [method for method in attached.stack() if method.keeps_steps]
    for method in keeping:
        method.forget_run()
    try:
        yield
    finally:
        for method in keeping:
            method.forget_run()


def get_reuser(pipe_or_transformer: Any) -> TokenReuser:
    """The token reuse of a model.

    Raises:
        DiffCRError: Nothing is attached, or another method.
    """
    attached = get_attached(pipe_or_transformer)
    if not isinstance(attached, TokenReuser):
        kept = "{} has no budget" if attached.depends_on_steps else _NOTHING_KEPT
        raise DiffCRError(kept.format(attached.config.method))
    return attached


def parameter_groups(
    transformer: nn.Module,
    lr: float,
    router_lr: float | None = None,
    ratio_lr: float | None = None,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Groups for an own optimizer: no weight decay on what DiffCR adds, which it would pull.

    Args:
        transformer: An attached pipeline or transformer.
        lr: Learning rate of the trainable host and adapter weights, and of a linear bypass.
        router_lr: Of the routers, `lr` by default.
        ratio_lr: Of the ratios, `router_lr` by default.
        weight_decay: Of the host and adapter weights.

    Raises:
        DiffCRError: Routers and ratios are frozen: injecting a LoRA through peft itself freezes
            everything else. Ratios frozen alone stay as they are set.
    """
    host = find_transformer(transformer)
    compressor = get_compressor(host)
    if not any(parameter.requires_grad for parameter in compressor.parameters()):
        raise DiffCRError(
            "routers and ratios are frozen (peft freezes what is not its own): "
            "call compressor.requires_grad_(True) first"
        )
    router_lr = lr if router_lr is None else router_lr
    ratio_lr = router_lr if ratio_lr is None else ratio_lr
    weights = [
        p for n, p in host.named_parameters() if p.requires_grad and not n.startswith("diffcr.")
    ]
    routers = [p for p in compressor.routers.values() if p.requires_grad]
    bypass = []
    if compressor.linear_bypass is not None:
        bypass = [p for p in compressor.linear_bypass.parameters() if p.requires_grad]
    ratios = [compressor.ratios] if compressor.ratios.requires_grad else []
    groups = [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": bypass, "lr": lr, "weight_decay": 0.0},
        {"params": routers, "lr": router_lr, "weight_decay": 0.0},
        {"params": ratios, "lr": ratio_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def summary(pipe_or_transformer: Any) -> str:
    """What is attached, as text: configuration, ratios per layer and region, parameters; of each
    transformer of a pipeline that has several."""
    parts = attached_parts(pipe_or_transformer)
    if len(parts) == 1:
        return _summary(*parts.values())
    return "\n".join(f"{name}: {_summary(part)}" for name, part in parts.items())


def _summary(transformer: nn.Module) -> str:
    attached = get_attached(transformer)
    total = sum(p.numel() for p in transformer.parameters())
    added = sum(p.numel() for p in attached.parameters())
    lines = [
        f"{type(transformer).__name__} with {attached.config}",
        f"parameters: {added:,} of {total:,} were added",
        *(line for method in attached.stack() for line in method.summary_lines()),
    ]
    return "\n".join(lines)
