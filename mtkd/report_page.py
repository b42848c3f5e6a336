"""The report's HTML page: one file without outside references, readable on a phone, in print and in a dark theme."""

import re

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape

from mtkd import __version__, papers
from mtkd.evidence.verdicts import Verdict
from mtkd.papers import Exhibit
from mtkd.report import beside, number, outcome, p_value, stated, statement

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mtkd report</title>
<style>
:root { --ink: #1d2329; --soft: #5b6570; --line: #d8dde2; --page: #ffffff; --box: #f5f7f9; --link: #0b5cad;
  --good: #12703c; --bad: #a8201a; --open: #7a5200; --none: #56606a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #a3adb7; --line: #39424b; --page: #14181c;
  --box: #1d2329; --link: #7db8f5; --good: #6fce98; --bad: #f2938d; --open: #e4bb6a; --none: #a3adb7; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.35rem; margin: 2.6rem 0 .4rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; } p { margin: .4rem 0; } a { color: var(--link); }
.soft, figcaption { color: var(--soft); font-size: .9rem; } code { font-size: .88em; overflow-wrap: anywhere; }
nav { margin: .8rem 0; } nav a { margin-right: 1rem; white-space: nowrap; }
.scroll { overflow-x: auto; margin: .5rem 0; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
.numbers td, .numbers th { white-space: nowrap; } tr:last-child > td { border-bottom: 0; }
thead th { background: var(--box); font-weight: 600; }
.badge { display: inline-block; padding: .05rem .55rem; border: 1.5px solid currentColor; border-radius: 1rem;
  font-weight: 600; font-size: .82rem; white-space: nowrap; }
.supported { color: var(--good); } .contradicted { color: var(--bad); } .no-relevant-effect { color: var(--link); }
.open { color: var(--open); } .not-tested, .not-testable { color: var(--none); border-style: dashed; }
.claim { border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem; margin: .7rem 0; }
.claim header { display: flex; flex-wrap: wrap; gap: .6rem; align-items: baseline; }
.claim header b { flex: 1 1 18rem; }
figure { margin: .5rem 0 1.5rem; } figure img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
.missing { border: 1px dashed var(--line); border-radius: 6px; padding: .6rem .9rem; color: var(--soft); }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--link); font-size: .9rem; }
</style>
</head>
<body>
<h1>Multi-teacher distillation: what came out</h1>
<p class="soft">mtkd {{ version }}; {{ records|length }} record{{ "" if records|length == 1 else "s" }} read.
The page holds its figures and needs no network.</p>
<nav>{% for paper in working %}<a href="#{{ paper.data.paper }}">{{ paper.data.paper }}</a>{% endfor %}
<a href="#records">how it was run</a></nav>

{% for paper in working %}
<h2 id="{{ paper.data.paper }}">{{ paper.data.title }}</h2>
<p class="soft">{{ paper.data.authors }}</p>
<h3>Claims</h3>
{% for v in paper.verdicts %}
<div class="claim">
<header><span><b>{{ v.claim }}</b>{% if v.tier %} <span class="soft">{{ v.tier }} tier</span>{% endif %}</span>
<b>{{ statement(v.claim) }}</b>
<span class="badge {{ v.verdict|replace(' ', '-') }}">{{ v.words }}</span></header>
<p>On average: {{ prose(outcome(v)) }}</p>
{% if stated(v) %}<p>{{ stated(v)|capitalize_first }}</p>{% endif %}
{% for line in beside(v, 2) %}<p class="soft">{{ line|capitalize_first }}</p>
{% endfor %}
{% if v.parts %}
<p class="soft">{% if v.test %}Test: {{ v.test }}; smallest effect of interest {{ number(v.delta) }} {{ v.unit }}. {% endif %}
Stood on: {{ prose(v.note) }}.</p>
<details><summary>each of the {{ v.parts|length }} settings</summary><div class="scroll"><table class="numbers">
<thead><tr><th>setting</th><th>n</th><th>effect</th><th>interval</th><th>p</th><th>tested</th></tr></thead><tbody>
{% for part in v.parts %}<tr><td>{{ part.label }}</td><td>{{ part.n }}</td><td>{{ number(part.effect, sign=True) }}</td>
<td>[{{ number(part.interval[0], sign=True) }}, {{ number(part.interval[1], sign=True) }}]</td>
<td>{{ p_value(part.p) }}</td><td>{{ part.test }}{{ ", left out" if part.left_out }}</td></tr>
{% endfor %}</tbody></table></div></details>
{% endif %}
{% if v.printed %}<details><summary>the {{ v.printed|length }} settings of the paper's own tables</summary>
<div class="scroll"><table class="numbers"><thead><tr><th>setting</th><th>printed difference</th><th></th></tr></thead><tbody>
{% for setting in v.printed %}<tr><td>{{ setting.label }}</td><td>{{ number(setting.difference, sign=True) }}</td>
<td>{{ "fails the sentence" if setting.fails }}</td></tr>
{% endfor %}</tbody></table></div></details>{% endif %}
</div>
{% endfor %}
<h3>Tables and figures</h3>
{% for exhibit in paper.exhibits %}
<figure id="{{ exhibit.id }}">
<h3>{{ exhibit.id }}: {{ exhibit.title }}</h3>
{% if exhibit.missing %}<div class="missing">{{ prose(exhibit.caption) }}</div>
{% else %}
{% if exhibit.is_table %}<div class="scroll">{{ table(exhibit.content) }}</div>
{% else %}<img src="{{ exhibit.data_uri() }}" alt="{{ exhibit.id }}: {{ exhibit.title }}">{% endif %}
<figcaption>{{ prose(exhibit.caption) }}</figcaption>
{% endif %}
</figure>
{% endfor %}
{% if paper.data.misprints %}<details><summary>misprints found in the paper</summary><ul>
{% for m in paper.data.misprints %}<li>{{ m.where }}, {{ m.row }}{{ ", " ~ m.column if m.column }}: prints
{{ m.printed }}, where {{ m.why }} gives {{ m.expected }}</li>{% endfor %}</ul></details>{% endif %}
{% endfor %}

<h2>Planned</h2>
{% for data in planned %}<p>{{ data.title }} (<code>{{ data.paper }}</code>): planned,
{{ data.claims|length }} claims and {{ data.exhibits|length }} exhibits.</p>{% endfor %}

<h2 id="records">How it was run</h2>
{% if records %}<div class="scroll">{{ table(provenance) }}</div>{% else %}
<p class="missing">There are no records yet.</p>{% endif %}
</body>
</html>
"""


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


def render(records: list[dict], verdicts: list[Verdict], exhibits: dict[str, Exhibit]) -> str:
    """The page as text. exhibits: everything to be shown, by id, in order; a paper's are those that begin with it."""
    working, planned = [], []
    for name in papers.PAPERS:
        data = papers.load(name)
        ours = [exhibit for identifier, exhibit in exhibits.items() if identifier.startswith(f"{name}.")]
        claims = {claim.id for claim in data.claims}
        if ours:
            mine = [verdict for verdict in verdicts if verdict.claim in claims]
            working.append({"data": data, "exhibits": ours, "verdicts": mine})
        else:
            planned.append(data)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    helpers = {"statement": statement, "outcome": outcome, "stated": stated, "beside": beside, "number": number}
    helpers |= {"p_value": p_value, "table": html_table, "prose": prose}
    content = {"working": working, "planned": planned, "records": records, "provenance": provenance(records)}
    return environment.from_string(TEMPLATE).render(version=__version__, **content, **helpers)
