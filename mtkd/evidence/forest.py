"""Effects with their intervals as one picture: strips for a page, lines for a terminal, a figure for Markdown.

All are in units of the smallest effect of interest, so that points, ratios and doublings share an axis: between -1 and 1 lies
what does not matter.

    strips = of_claims(verdicts)        # one line per claim: what decided it
    strips = of_claim(verdict)          # one claim: its averages, its settings, the paper's own table
    print("\\n".join(lines(strips)))    # in a terminal
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from mtkd.evidence.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REACH = 5.0  # where an axis ends, in smallest effects of interest; what lies beyond is drawn at the edge
NOWHERE = (math.nan, math.nan)  # the interval of one replicate


@dataclass(frozen=True)
class Strip:
    """One line of the picture. effect, low and high are in `unit`, delta is the smallest effect of interest in it; kind: mean
    (decides), beside (takes no part), setting, printed (the paper's own numbers); yours: the effect in one run of the reader's.
    verdict: the word of the verdict that the line stands for, or ""."""

    label: str
    effect: float
    low: float
    high: float
    delta: float
    unit: str
    kind: str = "mean"
    verdict: str = ""
    yours: float | None = None

    def at(self, value: float) -> float:
        """Where a value stands between the ends of the axis, 0 to 1.

        >>> Strip("", 1, 0, 2, delta=2.0, unit="points").at(2.0)
        0.6
        """
        return (min(max(value / self.delta / REACH, -1), 1) + 1) / 2

    @property
    def words(self) -> str:
        """Effect and interval: "+0.27 [+0.05, +0.48]"."""
        words = f"{_signed(self.effect)}"
        return words + (f" [{_signed(self.low)}, {_signed(self.high)}]" if math.isfinite(self.low + self.high) else "")


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"


def of_claims(verdicts: Iterable[Verdict], yours: Iterable[Verdict] = ()) -> list[Strip]:
    """One strip per claim that has an effect. yours: verdicts of the reader's own run, whose effects are marked."""
    mine = {(v.claim, v.tier): v.effect for v in yours}
    return [Strip(v.claim, v.effect, *(v.interval or NOWHERE), v.delta, v.unit, verdict=v.verdict,
                  yours=mine.get((v.claim, v.tier))) for v in verdicts if v.effect is not None and v.delta]


def of_claim(verdict: Verdict) -> list[Strip]:
    """What decides one claim: the averages, what stands beside them, every setting, and the span of the paper's own numbers
    (from the lowest to the highest of its settings, at their mean)."""
    found = []
    for kind, entries in (("mean", verdict.lines), ("beside", verdict.beside), ("setting", verdict.parts)):
        if kind == "setting" and len(verdict.parts) < 2:
            continue
        for entry in entries:
            delta = entry.get("delta") or verdict.delta
            if entry["n"] and delta and math.isfinite(entry["effect"]) and not entry.get("left_out"):
                label = entry["label"]
                if kind == "mean":
                    label = entry["part"] or (f"on average, {entry['test']}" if len(entries) > 1 else "on average")
                interval = entry["interval"] or NOWHERE
                found.append(Strip(label, entry["effect"], *interval, delta, entry["unit"], kind))
    if verdict.printed and verdict.delta:
        values = [setting["difference"] for setting in verdict.printed]
        label = f"the paper's own tables, {len(values)} settings"
        found.append(Strip(label, fmean(values), min(values), max(values), verdict.delta, verdict.unit, "printed"))
    return found


def lines(strips: Sequence[Strip], width: int = 100) -> list[str]:
    """The picture in text, one line a strip and one for the axis: ├──●──┤ for interval and mean, × for yours, ░ for what
    does not matter.

    >>> print(lines([Strip("S1", 0.5, 0.2, 0.8, 1.0, "points", verdict="no relevant effect")], 72)[0])
    S1            ░░├●┤            +0.50 [+0.20, +0.80]  no relevant effect
    """
    if not strips:
        return []
    name, number = max(len(s.label) for s in strips), max(len(s.words) for s in strips)
    room = max(21, min(61, width - name - number - 24) // 2 * 2 - 1)
    drawn = []
    for s in strips:
        def at(value: float, s: Strip = s) -> int:
            return round(s.at(value) * (room - 1))

        cells = ["░" if at(-s.delta) <= i <= at(s.delta) else " " for i in range(room)]
        if math.isfinite(s.low + s.high):
            cells[at(s.low):at(s.high) + 1] = "─" * (at(s.high) + 1 - at(s.low))
            cells[at(s.low)] = "├" if s.low >= -REACH * s.delta else "◂"
            cells[at(s.high)] = "┤" if s.high <= REACH * s.delta else "▸"
        cells[at(s.effect)] = "●"
        mark = ""
        if s.yours is not None:
            cells[at(s.yours)] = "×"
            mark = f"; yours {_signed(s.yours)}"
        drawn.append(f"{s.label:<{name}}  {''.join(cells)}  {s.words:<{number}}  {s.verdict}{mark}".rstrip())
    axis = [" "] * room
    for value in (-REACH, -1, 0, 1, REACH):
        axis[round((value / REACH + 1) / 2 * (room - 1))] = f"{value:g}"[-1]
    return [*drawn, f"{'':<{name}}  {''.join(axis)}  in smallest effects that matter, from -{REACH:g} to {REACH:g}"]


def figure(groups: Sequence[tuple[str, Sequence[Strip]]], colours: dict[str, str]) -> Figure:
    """All claims in one figure, a panel of names on the left; groups: (name, strips), such as tiers, each with its own marker.
    colours: word of a verdict to colour."""
    from matplotlib.figure import Figure  # nothing else here needs matplotlib

    names = list(dict.fromkeys(strip.label for _, strips in groups for strip in strips))
    drawn = Figure(figsize=(8, 0.9 + 0.24 * len(names)), layout="constrained")
    axes = drawn.subplots()
    axes.axvspan(-1, 1, color="0.92", zorder=0)
    axes.axvline(0, color="0.5", lw=0.8, zorder=1)
    for number, (group, strips) in enumerate(groups):
        for strip in strips:
            y = names.index(strip.label) + 0.28 * (number - (len(groups) - 1) / 2)
            low, mid, high = (min(max(v / strip.delta, -REACH), REACH) for v in (strip.low, strip.effect, strip.high))
            colour = colours.get(strip.verdict, "0.4")
            axes.plot([low, high], [y, y], color=colour, lw=1.4, zorder=2)
            axes.plot(mid, y, "os"[number % 2], color=colour, mfc=colour if not number else "white", ms=4.5, zorder=3)
        axes.plot([], [], "os"[number % 2], color="0.3", mfc="0.3" if not number else "white", ms=4.5, label=group)
    for word, colour in colours.items():
        if any(strip.verdict == word for _, strips in groups for strip in strips):
            axes.plot([], [], color=colour, lw=3, label=word)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(-REACH - 0.2, REACH + 0.2),
             xlabel="mean effect, in smallest effects of interest (1 point of accuracy in most claims)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=4, frameon=False, fontsize=8)
    axes.grid(axis="x", color="0.9", lw=0.6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return drawn
