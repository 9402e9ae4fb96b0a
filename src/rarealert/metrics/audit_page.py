"""The shortcut audit as a plot and a page, readable in print and without colour vision."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarealert.metrics.audit import POOLED, Audit
from rarealert.metrics.plots import title_of
from rarealert.metrics.predictions import CONTROL_PREFIX
from rarealert.metrics.shortcuts import CONTROLS, WORDS
from rarealert.templates import environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"


def shortcuts_figure(audit: Audit) -> "Figure":
    """AUROC with interval of every control, one mark a scope, with chance and the limit."""
    from matplotlib.figure import Figure

    scopes = list(audit.aurocs)
    step = 0.7 / max(len(scopes), 1)
    figure = Figure(figsize=(6.4, 1.2 + 0.42 * len(CONTROLS)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    for number, scope in enumerate(scopes):
        colour = _COLOURS[number % len(_COLOURS)]
        marker = _MARKERS[number % len(_MARKERS)]
        for place, name in enumerate(CONTROLS):
            found = audit.aurocs[scope].get(name)
            if found is None:
                continue
            at = place + (number - (len(scopes) - 1) / 2) * step
            axes.plot([found.ci_low, found.ci_high], [at, at], color=colour, linewidth=1.8)
            axes.plot(found.value, at, marker=marker, color=colour, markersize=5)
        axes.plot([], [], marker=marker, color=colour, label=scope)
    axes.axvline(0.5, color="#999999", linewidth=1)
    axes.axvline(audit.limit, color="#333333", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(CONTROLS)), [title_of(f"{CONTROL_PREFIX}{name}")
                                           for name in CONTROLS])  # fmt: skip
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set(xlabel="AUROC on unseen diseases (0.5 is chance; dotted: the limit)", xlim=(0.3, 1.01))
    if scopes:
        axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


def render_audit_page(audit: Audit, model: Mapping[str, Any] | None) -> str:
    """The page; ``model`` is the result of ``within_strata`` where predictions exist."""
    made = environment(Path(__file__).parent / "templates")
    made.filters["title_of"] = title_of
    page = made.get_template("audit.html.j2").render(
        audit=audit,
        controls=CONTROLS,
        prefix=CONTROL_PREFIX,
        words=WORDS,
        pooled=POOLED,
        model=model,
        plot="data:image/png;base64," + base64.b64encode(png(shortcuts_figure(audit))).decode(),
    )
    return page.rstrip() + "\n"


def png(figure: "Figure") -> bytes:
    """The figure as PNG without the library's version, so that the same figures are one file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
