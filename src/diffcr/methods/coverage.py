"""Which methods a model family can be run with, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping

from diffcr.hosts.family import Family
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.registry import method_of
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.methods.tome.config import ToMeConfig

# What of a method's settings decides about a family.
CONFIGURATIONS: Mapping[str, MethodConfig] = {
    "diffcr": DiffCRConfig(),
    "mod": MoDConfig(),
    "gate sigmoid-mlp": DiffCRConfig(gate="sigmoid-mlp"),
    "reuse:steps": ReuseConfig(granularity="steps"),
    "reuse:tokens": ReuseConfig(granularity="tokens"),
    "tome:block": ToMeConfig(placement="block"),
    "tome:attention": ToMeConfig(placement="attention"),
    "at-edm": ATEDMConfig(),
    "pruning": StructuredPruningConfig(),
}


def method_refusals(family: Family) -> dict[str, str]:
    """Names of `CONFIGURATIONS` that a family cannot be run with, and the reasons."""
    reasons = {
        name: [method_of(config).refuses(config, layout) for layout in family.block_groups.values()]
        for name, config in CONFIGURATIONS.items()
    }
    refused = {name: [reason for reason in found if reason] for name, found in reasons.items()}
    return {name: found[0] for name, found in refused.items() if found}
