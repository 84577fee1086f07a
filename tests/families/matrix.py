"""What works on which class, for docs/models.md, which `python -m tests.families.matrix` writes.

Every entry is a test of test_families.py, which runs it or expects the refusal that is named.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from diffcr.hosts import families
from diffcr.hosts.refused import REFUSED_CLASSES
from diffcr.methods.coverage import CONFIGURATIONS, method_refusals
from tests.families.features import FEATURES
from tests.families.refused import refusal
from tests.tiny_hosts import TINY_HOSTS

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- matrix -->", "<!-- end of matrix -->"


def rendered() -> str:
    """Tables of features and methods, and the reasons of what is refused."""
    reasons: list[str] = []
    features = [_row("", FEATURES), _row("", ["---"] * len(FEATURES), "---")]
    methods = [_row("", CONFIGURATIONS), _row("", ["---"] * len(CONFIGURATIONS), "---")]
    for name, family in families().items():
        hosts = [
            h.name for h in TINY_HOSTS.values() if h.transformer_class == family.transformer_class
        ]
        if not hosts:
            continue
        variants = ", ".join(filter(None, (host.partition("-")[2] for host in hosts)))
        title = f"{name} ({variants})" if variants else name
        cells = []
        for feature in FEATURES:
            refused = {r.message: h for h in hosts if (r := refusal(feature, h)) is not None}
            some = len(refused) and sum(refusal(feature, h) is not None for h in hosts) < len(hosts)
            marks = "".join(_mark(message, reasons) for message in refused)
            cells.append(_worded(feature, bool(some)) + marks if refused else "yes")
        features.append(_row(title, cells))
        refusals = method_refusals(family)
        cells = [
            "no" + _mark(refusals[method], reasons) if method in refusals else "yes"
            for method in CONFIGURATIONS
        ]
        methods.append(_row(name, cells))
    notes = [f"{place}. {reason}" for place, reason in enumerate(reasons, 1)]
    classes = [_row("no method works on", ["because"]), _row("", ["---"], "---")]
    classes += [_row(name, [reason]) for name, reason in REFUSED_CLASSES.items()]
    return "\n".join(chain(features, ("",), methods, ("",), notes, ("",), classes))


def _row(title: str, cells: object, edge: str = "") -> str:
    return f"| {edge or title} | " + " | ".join(cells) + " |"  # type: ignore[call-overload]


def _worded(feature: str, some: bool) -> str:
    """Of what is refused to some of a class's hosts, or to all: the others train in an own loop."""
    if feature == "training":
        return "some, else own loop" if some else "own loop"
    return "some" if some else "no"


def _mark(reason: str, reasons: list[str]) -> str:
    if reason not in reasons:
        reasons.append(reason)
    return f" [{reasons.index(reason) + 1}]"


def page_with_matrix() -> str:
    """The page with the matrix as it is."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n\n{rendered()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with_matrix())
