"""MT-BERT's data file, its claims on data whose answer is known, its exhibits and exercises, all without training."""

from functools import partial

import numpy as np
import paper_rows
import pytest
import torch
import torch.nn.functional as F
from notebook_names import defined_in

from mtkd import papers
from mtkd.evidence.verdicts import CONTRADICTED, FAILS, HOLDS, NOT_TESTABLE, NOT_TESTED, OPEN, SUPPORTED
from mtkd.papers import mt_bert, published_value
from mtkd.papers.mt_bert_scores import short_name

TEACHERS = ("scratch-2x64", "roberta-scratch-2x64", "mpnet-scratch-2x64")
A, B, C = TEACHERS
SETS = [(A,), (B,), (C,), (A, B), (A, C), (B, C), TEACHERS]


def row(arm, method="mt_bert", score=0.6, *, kind="student", variant=None, repeat=0, layers=1, teachers=TEACHERS,
        task="pydocs/topic", metric="accuracy", macro=True):  # fmt: skip
    """One row as the notebook writes it."""
    metrics = {metric: score} | ({"macro_f1": score - 0.1} if macro else {})
    return paper_rows.row(score, metric, arm=arm, task=task, kind=kind, method=method, variant=variant, repeat=repeat,
                          layers=layers, teachers=list(teachers), model=f"bottom-{layers} of {C}", metrics=metrics,
                          parameters=230_000)


record = partial(paper_rows.record, "mt_bert")


# Scores under which every claim of the paper holds, in accuracy.
BASELINE = {"distilbert": 0.50, "pkd": 0.52, "tinybert": 0.54}
COMBINATIONS = dict(zip(SETS, (0.50, 0.51, 0.52, 0.54, 0.55, 0.56, 0.60)))
ABLATIONS = {"full": 0.60, "no_cofinetuning": 0.56, "no_weighting": 0.58, "no_hidden": 0.57, "no_distillation": 0.54,
             "no_task": 0.50}  # fmt: skip
ENSEMBLES = {"mt_bert": 0.60, "you_2017": 0.57, "liu_2020": 0.58}
POOLERS = {"attentive": 0.60, "mean": 0.59, "cls": 0.57}
TEACHER = dict(zip(TEACHERS, (0.58, 0.59, 0.605)))


def made(repeats=8, seed=0, **changes):
    """Rows of every section, each score the one above (or changed) plus a little noise that the repeats share."""
    rng = np.random.default_rng(seed)
    rows = []

    def add(arm, method, score, **more):
        rows.append(row(arm, method, float(score + shared[-1] + rng.normal(0, 0.0005)), repeat=len(shared) - 1, **more))

    shared = []
    for _ in range(repeats):
        shared.append(rng.normal(0, 0.02))
        add("main", "mt_bert", 0.60)
        for name, score in (BASELINE | changes.get("baseline", {})).items():
            for variant in ("own", "same"):
                add("main", name, score, variant=variant, teachers=(A,) if variant == "own" else (C,))
        add("main", "plain", 0.48, kind="undistilled", teachers=())
        for name in ("shuffled_teacher", "uniform_teacher", "plain_ce"):
            add("main", "mt_bert", 0.45, kind="control", variant=name)
        for names, score in (COMBINATIONS | changes.get("combinations", {})).items():
            add("combinations", "mt_bert", score, teachers=names)
        for name, score in (ABLATIONS | changes.get("ablations", {})).items():
            add("ablations", "mt_bert", score, variant=name)
        for name, score in (ENSEMBLES | changes.get("ensembles", {})).items():
            add("ensembles", name, score)
        for name, score in (POOLERS | changes.get("poolers", {})).items():
            add("poolers", "mt_bert", score, variant=name)
        for name, score in (TEACHER | changes.get("teachers", {})).items():
            for method in ("cofinetuned", "independent"):
                add("teachers", method, score, kind="teacher", teachers=(name,), layers=2)
        add("teachers", "cofinetuned", 0.62, kind="ensemble", layers=None)
    return rows


IDS = [entry.id for entry in papers.load("mt_bert").exhibits]
DATA = [{"task": "glue/rte", "split": split, "samples": n, "tokens_mean": 50.0, "classes": 2, "metric": "accuracy"}
        for split, n in (("train", 2490), ("validation", 277), ("test", None))]  # fmt: skip


def verdicts(rows, **options):
    return {verdict.claim: verdict for verdict in mt_bert.claims([record(rows)], **options)}


# --- the data file -------------------------------------------------------------------------------------------------------


def test_every_printed_number_is_there():
    published = papers.load("mt_bert").published
    counts = {name: sum(entry["exhibit"] == name for entry in published) for name in ("table1", "table2", "table3")}
    assert counts == {"table1": 3 * 4, "table2": 11 * 5, "table3": 7 * 4}
    assert len(published) == sum(counts.values())  # no number of a figure: none is printed
    # column sums added by hand from the printed tables
    sums = {column: sum(entry["value"] for entry in published if (entry["exhibit"], entry["column"]) == ("table2", column))
            for column in ("SST-2 Acc", "RTE Acc", "MIND Acc", "MIND Macro-F", "#Param")}  # fmt: skip
    assert sums == pytest.approx({"SST-2 Acc": 1022.2, "RTE Acc": 755.0, "MIND Acc": 806.0, "MIND Macro-F": 560.1,
                                  "#Param": 766.1})  # fmt: skip
    assert sum(entry["value"] for entry in published if entry["exhibit"] == "table3") == pytest.approx(2026.3)


def test_the_tables_agree_with_each_other_and_with_the_text():
    for column in ("SST-2 Acc", "RTE Acc", "MIND Acc", "MIND Macro-F"):
        full = published_value("mt_bert", "table2", "MT-BERT 6", column)
        assert full == published_value("mt_bert", "table3", "All", column)
        for depth in (6, 4):
            ours = published_value("mt_bert", "table2", f"MT-BERT {depth}", column)
            rivals = [published_value("mt_bert", "table2", f"{name} {depth}", column)
                      for name in ("DistilBERT", "BERT-PKD", "TinyBERT")]  # fmt: skip
            assert ours > max(rivals)
    below = published_value("mt_bert", "table2", "UniLM 12", "RTE Acc") - published_value("mt_bert", "table2", "MT-BERT 6",
                                                                                         "RTE Acc")  # fmt: skip
    assert below == pytest.approx(5.6)  # "comparable or even better", see the notes
    assert any("5.6 points below" in note for note in papers.load("mt_bert").notes)


def test_misprints_quoted_numbers_and_what_figures_say():
    data = papers.load("mt_bert")
    assert [(m["where"], m["row"]) for m in data.misprints] == [
        ("Eq. 1", "multi-teacher hidden loss"), ("Table 1", "RTE"), ("Table 2", "RoBERTa 12")]
    quoted = [entry for entry in data.published if "quoted" in entry.get("note", "")]
    assert {entry["column"] for entry in quoted} == {"SST-2 Acc", "RTE Acc"}
    assert len(quoted) == 18
    baselines = {"BERT", "RoBERTa", "UniLM", "DistilBERT", "BERT-PKD", "TinyBERT"}  # 3.2 counts the teachers among them
    assert {entry["row"].split()[0] for entry in quoted} == baselines
    assert all("footnote 7" in entry["note"] for entry in quoted if entry["row"].endswith(" 12"))
    for entry in data.exhibits:
        if ".fig" in entry.id:
            assert entry.numbers == "not published as numbers"
            assert entry.says
    # 12 layers of RoBERTa-base, its embeddings and pooler: 125 million, not the 109 of BERT
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert round((12 * layer + (50265 + 514 + 1 + 2) * 768 + 768 * 769) / 1e6) == 125


# --- claims --------------------------------------------------------------------------------------------------------------


def test_every_claim_holds_where_the_data_say_so():
    found = verdicts(made())
    assert {name: v.verdict for name, v in found.items()} == {f"M{i}": SUPPORTED for i in range(1, 9)}
    # three baselines (with the same teacher they stand beside); all three against three pairs, three pairs against two members
    # each; 3 losses and 2 orders; two methods; three teachers, each co-finetuned and alone; two poolers
    members = {"M1": 3, "M2": 3 + 6, "M3": 1, "M4": 1, "M5": 5, "M6": 2, "M7": 2 * 3, "M8": 2}
    assert {name: v.members for name, v in found.items()} == members
    assert found["M3"].effect == pytest.approx(4.0, abs=0.2)
    assert (found["M3"].n, found["M3"].unit, found["M3"].tier) == (8, "points", "demo")
    assert {v.as_stated for v in found.values()} == {HOLDS}
    assert found["M7"].delta == 1.0
    assert "standing in" in found["M1"].note
    assert "8 repeats" in found["M1"].note
    (fair,) = found["M1"].beside
    assert (fair["label"], fair["members"], fair["n"]) == ("with the same teacher and initialisation", 3, 8)
    assert fair["effect"] == pytest.approx(8.0, abs=0.2)


@pytest.mark.parametrize(("claim", "changes", "decides"), [
    ("M1", {"baseline": {"tinybert": 0.63}}, "TinyBERT"),
    ("M2", {"combinations": {TEACHERS: 0.53}}, "All against"),
    ("M2", {"combinations": {(B,): 0.58}}, "against RoBERTa 2x64"),
    ("M3", {"ablations": {"no_cofinetuning": 0.63}}, "without co-finetuning"),
    ("M4", {"ablations": {"no_weighting": 0.63}}, "without weighting"),
    ("M5", {"ablations": {"no_task": 0.59}}, "task matters more"),
    ("M5", {"ablations": {"no_hidden": 0.51}}, "distillation matters more"),
    ("M5", {"ablations": {"no_hidden": 0.63}}, "without hidden"),
    ("M6", {"ensembles": {"liu_2020": 0.64}}, "Liu"),
    ("M7", {"teachers": {B: 0.65}}, "RoBERTa"),
    ("M8", {"poolers": {"mean": 0.64}}, "mean"),
])
def test_each_claim_fails_where_the_data_say_so(claim, changes, decides):
    found = verdicts(made(**changes))
    worst = min(found[claim].parts, key=lambda part: part["effect"])
    assert decides in worst["label"]
    assert found[claim].as_stated == FAILS
    if found[claim].members == 1:
        assert found[claim].verdict == CONTRADICTED
    assert {v.as_stated for name, v in found.items() if name != claim} == {HOLDS}


def test_where_the_student_has_nothing_to_learn_nothing_is_testable():
    found = verdicts(made(teachers=dict.fromkeys(TEACHERS, 0.49)))
    assert {v.verdict for v in found.values()} == {NOT_TESTABLE}
    assert all("+1.0 points from the undistilled student, of 2 needed" in v.left_out[0] for v in found.values())
    floor = [row("main", "majority", 0.48, kind="floor", repeat=r) for r in range(8)]
    found = verdicts(made() + floor)
    assert {v.verdict for v in found.values()} == {NOT_TESTABLE}
    assert "not above the majority class" in found["M1"].left_out[0]


def test_the_pairing_over_repeats_is_what_finds_small_effects():
    """Repeats differ by ± 2 points, far more than the 0.3 between two arms; shuffled repeats would find nothing."""
    rows = made(8, ablations={"no_weighting": 0.597})
    assert verdicts(rows)["M4"].words == "supported, but below 1 point"
    wrong = [r | {"repeat": (r["repeat"] + 1) % 8} if r["variant"] == "no_weighting" else r for r in rows]
    assert verdicts(wrong)["M4"].verdict == OPEN


def test_students_far_better_than_their_teachers_support_comparable_or_better():
    found = verdicts(made(teachers=dict.fromkeys(TEACHERS, 0.40)))["M7"]
    assert (found.verdict, found.delta) == (NOT_TESTABLE, 1.0)  # they would be below the undistilled student
    found = verdicts(made(teachers=dict.fromkeys(TEACHERS, 0.51)))["M7"]
    assert (found.verdict, found.delta) == (SUPPORTED, 1.0)
    assert found.effect == pytest.approx(9.0, abs=0.2)
    assert "above -1" in found.test
    assert verdicts(made(teachers={C: 0.61}))["M7"].as_stated == OPEN  # worse by just the margin
    assert verdicts(made(teachers={C: 0.61}), margin=0.02)["M7"].as_stated == HOLDS


def test_m7_is_about_teachers_fine_tuned_alone_as_the_paper_has_them_and_about_its_own():
    """The paper's first group of baselines are models fine-tuned alone (3.2); one of those that is better refutes M7 too."""
    rows = [r | {"score": r["score"] + 0.05} if r["arm"] == "teachers" and r["method"] == "independent" and
            r["teachers"] == [B] else r for r in made()]  # fmt: skip
    found = verdicts(rows)["M7"]
    worst = min(found.parts, key=lambda part: part["effect"])
    assert (found.as_stated, worst["label"]) == (FAILS, "pydocs/topic: MT-BERT 1 against RoBERTa 2x64, alone")
    assert "fine-tuned alone (the paper's first baselines) and together" in found.note
    assert sorted(part["label"].rsplit(", ", 1)[1] for part in found.parts) == ["alone"] * 3 + ["co-finetuned"] * 3


def test_tiers_are_kept_apart():
    records = [record(made()), record(made(ablations={"no_weighting": 0.63}), tier="small")]
    found = {(v.claim, v.tier): v.verdict for v in mt_bert.claims(records)}
    assert found["M4", "demo"] == SUPPORTED
    assert found["M4", "small"] == CONTRADICTED
    only = mt_bert.claims([record([r for r in made() if r["arm"] == "ablations"])])
    assert {v.claim for v in only if v.verdict != NOT_TESTED} == {"M3", "M4", "M5"}


def test_different_parameters_are_never_pooled():
    """Two learning rates are two experiments; sections and repeats of one experiment may come from several records."""
    low, high = {"student_lr": 1e-3}, {"student_lr": 1e-2}
    few = [record(made(2, ablations={"full": 0.9}), parameters=high)]
    many = [record([r for r in made() if (r["arm"] == "main") == part], parameters=low | {"sections": [str(part)]})
            for part in (True, False)]  # fmt: skip
    with pytest.warns(UserWarning, match=r"2 sets of parameters; the one with the most repeats \(8\)"):
        found = {v.claim: v for v in mt_bert.claims(few + many)}
    assert found["M3"].effect == pytest.approx(4.0, abs=0.2)
    assert (found["M3"].n, found["M7"].members) == (8, 6)  # teachers of the same parameters only


def test_m7_compares_with_teachers_of_the_same_parameters():
    """Two grid files may train teachers with other settings; the student is compared with its own."""
    rows = made()
    main = record([r for r in rows if r["arm"] in ("main", "teachers")], parameters={"depths": [1]})
    other = [r | {"score": 0.9} for r in rows if r["arm"] in ("combinations", "teachers")]
    other = record([*other, *([other[-1] | {"repeat": 9}])], parameters={"depths": [2]})  # one more repeat: it is shown
    with pytest.warns(UserWarning, match="teachers"):
        found = {v.claim: v for v in mt_bert.claims([main, other])}
    assert found["M7"].verdict == SUPPORTED


# --- exhibits ------------------------------------------------------------------------------------------------------------


def everything():
    paper_rows = [r | {"task": "glue/rte", "metrics": {"accuracy": r["score"], "macro_f1": r["score"]}} for r in made(3, 1)]
    return [record(made() + paper_rows, data=DATA)]


def test_tables_put_the_papers_numbers_below_ours():
    table1 = mt_bert.exhibit("table1", everything()).content.set_index("task")
    assert table1.loc["glue/rte", "samples"] == "2490 / 277 / -"
    assert table1.loc["glue/rte", "paper's samples"] == "2500 / 276 / 3000"
    assert set(table1["paper's data"]) == {"RTE", "SST-2", "MIND"}
    table2 = mt_bert.exhibit("table2", everything()).content.set_index(["source", "model"])
    assert table2.loc[("paper", "MT-BERT 6"), "RTE Acc"] == "75.7"
    assert table2.loc[("paper", "TinyBERT 4"), "#Param"] == "14.5M"
    assert table2.loc[("demo tier", "DistilBERT 1, its own teacher"), "#Param"] == "0.23M"
    ours = [r["score"] for r in made() if r["arm"] == "main" and r["method"] == "mt_bert" and r["kind"] == "student"]
    cell = table2.loc[("demo tier", "MT-BERT 1"), "pydocs/topic Acc"]
    assert cell == f"{100 * np.mean(ours):.1f} ± {100 * np.std(ours, ddof=1):.1f} n=8"
    assert table2.loc[("demo tier", "MT-BERT 1"), "pydocs/topic Macro-F"].startswith(f"{100 * np.mean(ours) - 10:.1f} ±")
    assert table2.loc[("demo tier", "RoBERTa 2x64, alone"), "RTE Acc"].endswith("n=3")
    assert "RTE Macro-F" not in table2  # the paper reports accuracy there
    assert [name for source, name in table2.index if source != "paper"][-1] == "MT-BERT 1"


def test_table_3_names_and_orders_combinations_as_the_paper_does():
    table3 = mt_bert.exhibit("table3", everything()).content
    names = table3[table3["source"] == "demo tier"]["teachers"].tolist()
    short = dict(zip(TEACHERS, ("BERT 2x64", "RoBERTa 2x64", "MPNet 2x64")))
    assert names == [" + ".join(short[name] for name in names) for names in SETS[:-1]] + ["All"]
    assert table3[table3["source"] == "paper"]["teachers"].tolist()[-1] == "All"


def test_bars_show_the_means_of_the_rows():
    figure = mt_bert.exhibit("fig4", everything()).content
    titles = [axis.get_title().splitlines()[0] for axis in figure.axes if axis.get_visible()]
    assert titles == ["glue/rte, Acc", "pydocs/topic, Acc", "pydocs/topic, Macro-F"]
    axis = figure.axes[1]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    drawn = dict(zip(labels, (patch.get_width() for patch in axis.patches)))
    frame = mt_bert.rows_frame([record(made())])
    means = 100 * frame[frame["arm"] == "ablations"].groupby("variant")["score"].mean()
    assert drawn == pytest.approx({"MT-BERT": means["full"], "without co-finetuning": means["no_cofinetuning"],
                                   "without weighting": means["no_weighting"]})  # fmt: skip


def test_controls_and_poolers():
    table = mt_bert.exhibit("controls", [record(made())]).content.set_index("control")
    assert set(table.index) == {"shuffled teachers", "uniform teachers", "plain CE, same steps", "not distilled"}
    assert float(table.loc["plain CE, same steps", "difference"]) == pytest.approx(15.0, abs=0.2)
    assert float(table.loc["not distilled", "difference"]) == pytest.approx(12.0, abs=0.2)
    assert set(table["repeats"]) == {8}
    poolers = mt_bert.exhibit("poolers", [record(made())]).content
    assert poolers["pooling"].tolist() == ["attentive", "mean", "[CLS]"]


def compared(*records):
    """Names of the models that the shuffled and the uniform teachers are compared with, and both differences."""
    table = mt_bert.exhibit("controls", list(records)).content.set_index("control")
    found = table.loc[["shuffled teachers", "uniform teachers"]]
    assert set(table.drop(index=found.index)["compared with"]) == {"MT-BERT"}  # plain CE and the undistilled student
    return set(found["compared with"]), found["difference"].astype(float).tolist()


def test_controls_without_the_hidden_loss_are_compared_with_mt_bert_without_it():
    """MT-BERT has 60, without hidden loss 57, every control 45."""
    names, by = compared(record(made()))
    assert names == {"MT-BERT without hidden loss"}
    assert by == pytest.approx([12.0, 12.0], abs=0.2)
    names, by = compared(record([r for r in made() if r["arm"] == "main"]))
    assert names == {"MT-BERT with (without: not run) hidden loss"}
    assert by == pytest.approx([15.0, 15.0], abs=0.2)


def test_the_ablation_beside_the_controls_is_of_the_same_experiment_and_repeats():
    main = record([r | {"folder": f"model/{r['repeat']}"} for r in made() if r["arm"] == "main"], parameters={"depths": [1, 2]})
    others = [r | {"folder": f"model/{r['repeat']}"} for r in made() if r["arm"] == "ablations"]
    other = record(others, parameters={"depths": [1]})
    assert compared(main, other)[0] == {"MT-BERT without hidden loss"}  # its whole MT-BERT is the very same model
    other = record([r | {"folder": "model/x"} for r in others], parameters={"lr": 1.0})
    assert compared(main, other)[0] == {"MT-BERT with (without: not run) hidden loss"}
    few = record([r for r in others if r["repeat"] < 3], parameters={"depths": [1, 2]})
    table = mt_bert.exhibit("controls", [main, few]).content.set_index("control")
    assert (table.loc["shuffled teachers", "repeats"], table.loc["plain CE, same steps", "repeats"]) == (3, 8)


def test_summary_names_the_best_baseline():
    table = mt_bert.summary([record(made())])
    assert len(table) == 1
    assert "(TinyBERT)" in table.loc[0, "best baseline, own teacher"]
    assert (table.loc[0, "layers"], table.loc[0, "repeats"]) == (1, 8)
    teachers = [r["score"] for r in made() if r["kind"] == "teacher" and r["method"] == "cofinetuned"]
    assert table.loc[0, "teachers"].startswith(f"{100 * np.mean(teachers):.1f}")


def test_names():
    printed = [mt_bert.PAPER.printed_task(t) for t in ("glue/sst2", "glue/rte", "mind/topic", "pydocs/topic")]
    assert printed == ["SST-2", "RTE", "MIND", None]
    assert short_name("FacebookAI/roberta-base") == "RoBERTa"
    sets = (("google-bert/bert-base-uncased", "microsoft/mpnet-base"), ("a",), ("a", "b", "c"))
    rows = mt_bert.rows_frame([record([row("combinations", teachers=names) for names in sets])])
    assert [mt_bert.label(one) for _, one in rows.iterrows()] == ["BERT + MPNet (for UniLM)", "a", "All"]


# --- exercises -----------------------------------------------------------------------------------------------------------


def bug(student, teachers, labels, t):
    total = 0
    for i in range(teachers.shape[1]):
        weight = 1 / (1 + F.cross_entropy(teachers[:, i], labels))
        soft = F.cross_entropy(student / t, (teachers[:, i] / t).softmax(-1), reduction="none")
        total = total + weight * soft
    return total.mean()


def repaired(student, teachers, labels, t):
    total = 0
    for i in range(teachers.shape[1]):
        weight = 1 / (1 + F.cross_entropy(teachers[:, i], labels, reduction="none"))
        soft = F.cross_entropy(student / t, (teachers[:, i] / t).softmax(-1), reduction="none")
        total = total + weight * soft
    return total.mean()


def overlap(mine, theirs):
    rows = [[float(a < end and start < b) for a, b in theirs] for start, end in mine]
    return torch.tensor(rows) / torch.tensor(rows).sum(-1, keepdim=True)


def test_answers_to_the_exercises():
    cells = defined_in("mt_bert")
    exercises = cells.exercises
    assert exercises.check("1", 0.591) == "exercise 1: correct"
    assert exercises.check("1", 0.5) == "exercise 1: not yet"
    assert exercises.check("2", repaired) == "exercise 2: correct"
    assert exercises.check("2", bug) == "exercise 2: not yet"
    assert cells.encoders(3) == 12
    assert exercises.check("3", 5 * 2**4) == "exercise 3: correct"
    assert cells.averages_what_overlaps(overlap)
    assert exercises.check("4", lambda mine, theirs: torch.ones(len(mine), len(theirs))) == "exercise 4: not yet"
    assert exercises.check("4", None) == "exercise 4: not answered yet"
