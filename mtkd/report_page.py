"""The report as a replication study: one HTML page without outside references, readable on a phone, in print and in a dark
theme, and the same as Markdown that can be cited. The texts are `report.html.j2` and `report.md.j2`, every number is computed.
"""

import math
import re
from collections import Counter
from importlib import resources
from pathlib import Path

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape

from mtkd import __version__, papers
from mtkd.evidence import forest, verdicts
from mtkd.evidence.verdicts import Verdict
from mtkd.papers import Exhibit
from mtkd.report import (
    all_verdicts,
    beside,
    claims_json,
    markdown_table,
    number,
    outcome,
    p_value,
    provenance_table,
    stated,
    statement,
)  # fmt: skip

WORDS = {verdicts.SUPPORTED: "#12703c", verdicts.CONTRADICTED: "#a8201a", verdicts.NO_EFFECT: "#0b5cad",
         verdicts.OPEN: "#8a5c00", verdicts.NOT_TESTABLE: "#56606a", verdicts.NOT_TESTED: "#56606a"}  # in the order of counts
DECIDED = (verdicts.SUPPORTED, verdicts.CONTRADICTED, verdicts.NO_EFFECT)
SECTIONS = {"easy": "What was easy", "hard": "What was hard", "open": "What the authors left open"}


def write_report(records: list[dict], folder: str | Path) -> Path:
    """Write index.html (one self-contained page), README.md, claims.json and figures/*.png; the path of the page."""
    folder = Path(folder)
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    found = all_verdicts(records)
    exhibits = {f"{name}.floor": floor_exhibit(name, records) for name in papers.PAPERS}
    shown = [entry.id for entry in papers.all_exhibits()]
    shown += [identifier for name in papers.PAPERS for identifier in papers.extras(name)]
    exhibits |= {identifier: papers.exhibit(identifier, records) for identifier in shown}
    for identifier, exhibit in exhibits.items():
        if not exhibit.missing and not exhibit.is_table:
            (figures / f"{identifier}.png").write_bytes(exhibit.png())
    content = study(records, found, exhibits)
    if content["tiers"]:
        drawn = forest.figure([(f"{tier['name']} tier", tier["strips"]) for tier in content["tiers"]], WORDS)
        drawn.savefig(figures / "claims.png", dpi=110)
    (folder / "claims.json").write_text(claims_json(found), encoding="utf-8")
    (folder / "README.md").write_text(render("report.md.j2", content), encoding="utf-8")
    page = folder / "index.html"
    page.write_text(render("report.html.j2", content), encoding="utf-8")
    return page


def render(template: str, content: dict) -> str:
    """One of the two texts, filled in."""
    environment = Environment(autoescape=template.endswith("html.j2"), trim_blocks=True, lstrip_blocks=True)
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    helpers = [statement, outcome, stated, beside, number, p_value, prose, pos, finite, forest.of_claim]
    source = resources.files("mtkd").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(content, table=html_table, markdown=markdown_table, reach=f"{forest.REACH:g}",
                                                  **{helper.__name__: helper for helper in helpers})


# --- what both texts say --------------------------------------------------------------------------------------------------


def study(records: list[dict], found: list[Verdict], exhibits: dict[str, Exhibit]) -> dict:
    """Everything that the templates show. exhibits: by id, in order; a paper's are those whose id begins with its name."""
    working, planned = [], []
    for name in papers.PAPERS:
        data, ours = papers.load(name), [shown for key, shown in exhibits.items() if key.startswith(f"{name}.")]
        if not ours:
            planned.append(data)
            continue
        mine = {claim.id: [v for v in found if v.claim == claim.id] for claim in data.claims}
        claims = [{"id": claim.id, "statement": claim.statement, "verdicts": mine[claim.id],
                   "printed": next((v.printed for v in mine[claim.id]), ())} for claim in data.claims]
        table = [{"claim": v.claim, "the paper says": statement(v.claim), "tier": v.tier, "on average": v.words,
                  "here": outcome(v), "the paper prints": printed(v), "as stated": stated(v)}
                 for each in mine.values() for v in each]
        texts = papers.raw(name).get("study", {})
        own = [record for record in records if record["paper"] == name]
        working.append({"data": data, "exhibits": ours, "claims": claims, "table": pd.DataFrame(table),
                        "results": [counted(mine), *papers.floor_sentences(own)],
                        "study": [(title, texts[key]) for key, title in SECTIONS.items() if key in texts]})
    tiers = [{"name": name, "about": about(name, records), "counts": counts([v for v in found if v.tier == name]),
              "strips": forest.of_claims(v for v in found if v.tier == name)}
             for name in dict.fromkeys(v.tier for v in found if v.tier)]
    return {"version": __version__, "records": records, "working": working, "planned": planned, "tiers": tiers,
            "summary": summary(found), "method": method(records, found), "provenance": provenance(records),
            "runs": provenance_table(records) if records else "", "level": f"{found[0].level:.0%}" if found else ""}


def counts(found: list[Verdict]) -> list[tuple[str, int]]:
    """(word, number of claims), in the order of `WORDS`."""
    every = Counter(v.verdict for v in found)
    return [(word, every[word]) for word in WORDS if every[word]]


def counted(mine: dict[str, list[Verdict]]) -> str:
    """How a paper's claims came out, tier by tier, in a sentence."""
    every = [v for found in mine.values() for v in found]
    words = [f"in the {tier} tier " + ", ".join(f"{n} {word}" for word, n in counts([v for v in every if v.tier == tier]))
             for tier in dict.fromkeys(v.tier for v in every if v.tier)]
    return f"Of its {len(mine)} claims: {'; '.join(words)}." if words else f"None of its {len(mine)} claims has a run yet."


def printed(v: Verdict) -> str:
    """The paper's own numbers for a claim: the mean difference over the settings of its tables, and their span."""
    values = [setting["difference"] for setting in v.printed]
    if not values:
        return "no numbers"
    mean, low, high = (number(value, sign=True) for value in (sum(values) / len(values), min(values), max(values)))
    return f"{mean}, from {low} to {high} over {len(values)} settings"


def summary(found: list[Verdict]) -> str:
    """What came out of all claims, in three sentences."""
    names = dict.fromkeys(v.claim for v in found)
    decided = {v.claim for v in found if v.verdict in DECIDED}
    of = {word: {v.claim for v in found if v.verdict == word} for word in WORDS}
    each = [f"{len(claims)} {word}" for word, claims in of.items() if claims]
    fails, holds = ({v.claim for v in found if v.as_stated == word} for word in (verdicts.FAILS, verdicts.HOLDS))
    tables = {v.claim: any(setting["fails"] for setting in v.printed) for v in found if v.printed}
    return (f"Of {len(names)} claims, {len(decided)} are decided on average over their settings in at least one tier. "
            f"Counting a claim in every tier that it was tested in: {', '.join(each)}. "
            f"Read as they stand, for every setting, {len(holds)} hold and {len(fails)} fail in some tier; "
            f"{sum(tables.values())} of the {len(tables)} whose numbers are printed fail in the paper's own tables.")


def about(tier: str, records: list[dict]) -> str:
    """What a tier is, in a few numbers: runs, models, hours and the machines."""
    own = [record for record in records if record["tier"] == tier]
    hours = sum((record.get("timing") or {}).get("wall_s") or 0 for record in own) / 3600
    machines = [(record.get("provenance") or {}).get("hardware") or {} for record in own]
    names = dict.fromkeys(machine.get("gpu") or machine.get("cpu") or "unknown" for machine in machines)
    return f"{len(own)} runs, {sum(len(record['rows']) for record in own):,} models, {hours:.1f} hours on {', '.join(names)}"


def method(records: list[dict], found: list[Verdict]) -> list[str]:
    """How runs were made and claims were tested, in short paragraphs."""
    tasks: dict[str, set[str]] = {}
    for record in records:
        tasks.setdefault(record["tier"], set()).update(row["task"] for row in record["rows"] if row.get("task"))
    lines = [f"The {tier} tier: {about(tier, records)}; data: {', '.join(sorted(names))}." for tier, names in tasks.items()]
    needed = [v for v in found if v.needed]
    return [
        *lines,
        "A replicate draws a new training set and new seeds; the test set stays. Both sides of a comparison share data and "
        "seeds, so all tests are paired. Epochs are chosen on validation data.",
        "On average: per replicate, the mean over the settings that the paper's sentence names, then one paired test over "
        f"replicates, of which there must be {verdicts.MIN_REPLICATES}. From {verdicts.TWO_WAY_FROM} replicates, a bootstrap "
        "over replicates and test items stands beside Student's interval, and the wider one counts. The p values of a tier "
        f"are corrected by Holm's method over the {papers.FAMILY} claims. Where the teachers are not clearly above the "
        "student that was not distilled, nothing can be shown and the claim is not testable there.",
        "As stated: the sentence as the paper has it, for every setting. It holds if each setting passes by itself.",
        *([f"{len(needed)} verdicts would need more replicates, as each says."] if needed else []),
    ]


def floor_exhibit(paper: str, records: list[dict]) -> Exhibit:
    """A paper's floor table, with what came out in three sentences per task as its caption."""
    own = [record for record in records if record["paper"] == paper]
    table = papers.floor_table(own)
    caption = " ".join(papers.floor_sentences(own)) or f"No run with a floor yet: `mtkd run params/{paper}/demo.yaml`."
    return Exhibit(f"{paper}.floor", "a floor under every result", caption, table.drop(columns="paper") if len(table) else None)


# --- small parts of the page ----------------------------------------------------------------------------------------------


def pos(strip: forest.Strip, value: float) -> float:
    """Where a value stands on a strip that is 100 wide."""
    return round(100 * strip.at(value), 2)


def finite(strip: forest.Strip) -> bool:
    """Whether a strip has an interval."""
    return math.isfinite(strip.low + strip.high)


def html_table(table: pd.DataFrame) -> Markup:
    """A DataFrame as an HTML table, with every cell escaped."""
    return Markup(table.to_html(index=False, border=0, classes="numbers", na_rep="", escape=True))


def prose(text: str) -> Markup:
    """Plain text with `code` in backticks, as HTML."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def provenance(records: list[dict]) -> pd.DataFrame:
    """One row per record: how it was made, on what, from which seeds, and what it cost."""
    rows = []
    for record in records:
        origin, timing = record.get("provenance") or {}, record.get("timing") or {}
        machine, versions = origin.get("hardware") or {}, origin.get("versions") or {}
        energy = timing.get("energy_kwh")
        rows.append(
            {"paper": record["paper"], "tier": record["tier"], "run": record["run"], "models": len(record["rows"])}
            | {"command": origin.get("command") or "unknown"}
            | {"commit": (origin.get("commit") or "unknown")[:12] + (" + changes" if origin.get("dirty") else "")}
            | {"hardware": f"{machine.get('cpu') or 'unknown'}, {machine.get('cores', '?')} cores"}
            | {"GPU": machine.get("gpu") or "none", "memory, GiB": number(machine.get("memory_gib"), 1)}
            | {"seeds": ", ".join(map(str, origin.get("seeds") or [])), "wall time, s": number(timing.get("wall_s"), 0)}
            | {"energy, kWh": "not measured" if energy is None else f"{energy:.2g}"}
            | {"peak memory, MiB": number(timing.get("peak_memory_mib"), 0), "created": origin.get("created") or ""}
            | {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
        )
    return pd.DataFrame(rows)
