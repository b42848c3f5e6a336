"""TMKD's data file, its claims on data whose answer is known, its exhibits and exercises, all without training."""

import itertools
import json
import math
import warnings
from functools import partial

import numpy as np
import paper_rows
import pytest
import torch.nn.functional as F
from notebook_names import defined_in

from mtkd import papers
from mtkd.evidence.verdicts import CONTRADICTED, FAILS, HOLDS, NOT_TESTED, OPEN, SUPPORTED
from mtkd.papers import published_value, tmkd
from mtkd.papers.tmkd import label, method_name

TARGET, OTHER = "pydocs/topic", "glue/rte"
STUDENT, BILSTM, TEACHER = "scratch-1x32", "bilstm-1x32e32", "scratch-2x64"
SIZES = {"": None, "base": 400, "large": 1600}
QPS = {"teacher": 100.0, "ensemble": 33.0, "plain": 620.0, "one": 610.0, "many": 600.0, "each": 203.0}
DATA_SETS = ("DeepQA", "MNLI", "SNLI", "QNLI", "RTE")


def row(arm, method="many", pool="", score=0.6, *, kind="student", task=TARGET, student=STUDENT, layers=1, alpha=0.9,
        variant=None, repeat=0, qps=None, parameters=50_000, ranked=None):  # fmt: skip
    """One row as the notebook writes it."""
    speed = {"samples_per_second": qps, "latency_p50_ms": 2.0, "best_batch": 64, "best_latency_ms": 9.0,
             "weights_mib": 0.25}  # fmt: skip
    return paper_rows.row(
        score, arm=arm, task=task, role="target" if task == TARGET else "transfer", kind=kind, method=method, pool=pool,
        pool_size=SIZES.get(pool, 1600), student=student, layers=layers, alpha=alpha, variant=variant, repeat=repeat, n=3,
        model=student, metrics={"accuracy": score} | ({"map": ranked} if ranked else {}), parameters=parameters,
        speed=speed if qps else None, n_test=9999)


record = partial(paper_rows.record, "tmkd")


# Scores under which every claim of the paper holds, in accuracy, by (method, pool).
METHODS = {("one", ""): 0.50, ("average", ""): 0.52, ("each", ""): 0.53, ("many", ""): 0.55, ("one", "large"): 0.57,
           ("one", "base"): 0.54, ("average", "base"): 0.56, ("many", "base"): 0.58, ("many", "large"): 0.605}  # fmt: skip
RECURRENT = {("one", ""): 0.40, ("average", ""): 0.42, ("each", ""): 0.43, ("one", "base"): 0.45, ("average", "base"): 0.46,
             ("many", "base"): 0.48}  # fmt: skip
LAYERS = {1: 0.50, 3: 0.58, 5: 0.60}
ALPHAS = {0.1: 0.52, 0.3: 0.53, 0.5: 0.545, 0.7: 0.55, 0.9: 0.58, 1.0: 0.54}
LARGEST = {("one", ""): 0.50, ("many", ""): 0.55, ("many", "large"): 0.62}
TEACHERS = {"best": 0.60, None: 0.58}


def made(repeats=8, seed=0, tasks=(TARGET, OTHER), ranked=None, **changes):
    """Rows of every section, each score the one above (or changed) plus a little noise that the repeats share."""
    rng = np.random.default_rng(seed)
    rows, shared = [], []

    def add(arm, method, pool, score, **more):
        noisy = float(score + shared[-1] + rng.normal(0, 0.0005))
        rows.append(row(arm, method, pool, noisy, repeat=len(shared) - 1, **more))

    for _ in range(repeats):
        shared.append(rng.normal(0, 0.02))
        for task in tasks:
            for variant, score in (TEACHERS | changes.get("teachers", {})).items():
                add("teachers", "", "", score, kind="teacher", variant=variant, student="", layers=2, task=task)
            add("teachers", "", "", 0.615, kind="ensemble", student="", layers=2, task=task, parameters=900_000)
            for (method, pool), score in (METHODS | changes.get("methods", {})).items():
                add("methods", method, pool, score, task=task, parameters=150_000 if method == "each" else 50_500,
                    ranked=ranked if task == TARGET else None)  # fmt: skip
            for (method, pool), score in (RECURRENT | changes.get("recurrent", {})).items():
                add("methods", method, pool, score, task=task, student=BILSTM)
            add("methods", "plain", "", 0.48, kind="undistilled", task=task)
        for name in ("shuffled_teacher", "uniform_teacher", "plain_ce"):
            add("methods", "many", "large", 0.44, kind="control", variant=name)
        for layers, score in (LAYERS | changes.get("layers", {})).items():
            add("layers", "many", "base", score, layers=layers, student=f"scratch-{layers}x32")
        for alpha, score in (ALPHAS | changes.get("alphas", {})).items():
            add("alpha", "many", "base", score, alpha=alpha)
        for pool, score in (("", 0.55), ("base", 0.58), ("large", 0.605)):
            add("pools", "many", pool, score)
        for (method, pool), score in (LARGEST | changes.get("largest", {})).items():
            add("largest", method, pool, score)
        add("largest", "", "", TEACHERS["best"], kind="teacher", variant="best", student="")
        speeds = {name: qps * (1 + rng.normal(0, 0.01)) for name, qps in (QPS | changes.get("qps", {})).items()}
        for kind in ("teacher", "ensemble"):
            add("speed", "", "", 0.6, kind=kind, student="", qps=speeds[kind], parameters=300_000)
        for name in ("plain", "one", "many", "each"):
            add("speed", name, "", 0.5, kind="undistilled" if name == "plain" else "student", qps=speeds[name],
                parameters=150_000 if name == "each" else 50_500)  # fmt: skip
        for layers in (3, 5):
            add("speed", "many", "", 0.5, qps=600.0 / layers, layers=layers, student=f"scratch-{layers}x32")
        add("speed", "many", "", 0.5, qps=300.0, student=BILSTM)
    return rows


DATA = [{"task": OTHER, "split": split, "samples": n, "words_first": 45.0, "words_second": 9.8, "classes": 2}
        for split, n in (("train", 2490), ("validation", 277), ("test", 300))]  # fmt: skip
DATA += [{"task": "pydocs/topic (pool)", "split": f"pool {name}", "samples": n, "words_first": 20.0, "words_second": None}
         for name, n in (("base", 400), ("large", 1600))]  # fmt: skip


def verdicts(rows, **options):
    return {verdict.claim: verdict for verdict in tmkd.claims([record(rows)], **options)}


# --- the data file -------------------------------------------------------------------------------------------------------


def test_every_printed_number_is_there():
    published = papers.load("tmkd").published
    counts = {f"table{n}": sum(entry["exhibit"] == f"table{n}" for entry in published) for n in range(2, 10)}
    assert list(counts.values()) == [6, 29, 12 * 7, 2 * 5, 2 * 5, 6 * 5, 4, 5 * 3 + 3]
    assert len(published) == sum(counts.values())
    # column sums of the printed tables 4 and 7, added up apart from this data file
    sums = {(name, column): sum(e["value"] for e in published if (e["exhibit"], e["column"]) == (name, column))
            for name in ("table4", "table7") for column in DATA_SETS}  # fmt: skip
    four = (922.08, 830.02, 918.07, 941.97, 735.81)
    seven = (462.53, 398.23, 448.66, 457.99, 380.94)
    assert [sums["table4", c] for c in DATA_SETS] == pytest.approx(four)
    assert [sums["table7", c] for c in DATA_SETS] == pytest.approx(seven)


def test_the_tables_agree_with_each_other_where_they_show_the_same_model():
    for column in DATA_SETS:
        for table, row_, main in (
            ("table5", "KD (1-o-1)", "BERT-3 (1-o-1)"), ("table6", "KD (1avg-o-1)", "BERT-3 (1avg-o-1)"),
            ("table7", "TMKD_base", "TMKD_base"), ("table7", "Bi-LSTM (TMKD_base)", "Bi-LSTM (TMKD_base)"),
        ):  # fmt: skip
            assert published_value("tmkd", table, row_, column) == published_value("tmkd", "table4", main, column)


def test_the_misprints_follow_from_the_numbers():
    def value(table, row_, column):
        return published_value("tmkd", table, row_, column)

    listed = [(m["where"], m["row"], m["column"]) for m in papers.load("tmkd").misprints]
    assert len(listed) == 12
    assert (value("table4", "BERT-3", "QPS"), value("table4", "BERT-3 (1-o-1)", "QPS")) == (207, 217)
    assert value("table9", "QPS", "3") == 217
    # BERT-base-uncased's embeddings, three layers and pooler; BERT-large-cased whole; the Bi-LSTM of section 4.4
    layer = lambda d: 12 * d * d + 13 * d  # noqa: E731 - attention and feed-forward with biases, two normalisations
    assert (30522 + 512 + 2 + 2) * 768 + 3 * layer(768) + 768 * 769 == pytest.approx(45.69e6, abs=5e3)
    assert (28996 + 512 + 2 + 2) * 1024 + 24 * layer(1024) + 1024 * 1025 == pytest.approx(333.58e6, abs=5e3)
    assert 15000 * 300 + sum(8 * 256 * (width + 256 + 2) for width in (300, 512)) == pytest.approx(7.2e6, abs=5e4)
    assert value("table5", "TKD", "SNLI") < value("table5", "KD (1-o-1)", "SNLI")  # printed in bold all the same
    one, three, five = ([value("table9", name, depth) for name in DATA_SETS] for depth in "135")
    assert [round(b - a, 2) for a, b in zip(one, three)] == [3.87, 9.90, 7.46, 11.44, 11.19]  # as the text has them
    assert [round(b - a, 2) for a, b in zip(three, five)] == [1.08, 1.63, 0.53, 2.90, 0.37]  # the text: 2.89
    assert all(value("table9", name, "3") < value("table4", "TMKD_base", name) for name in DATA_SETS)
    assert value("table4", "TMKD_base", "SNLI") < value("table4", "BERT-3 (m-o-m)", "SNLI")
    assert value("table7", "Bi-LSTM (TKD_base (1avg-o-1))", "QNLI") < value("table7", "Bi-LSTM (TKD_base (1-o-1))", "QNLI")
    assert value("table7", "TMKD_base", "RTE") < value("table7", "TKD_base (1avg-o-1)", "RTE")
    for model in ("BERT_base", "BERT_large"):  # the latency is one over the throughput
        assert round(1000 / value("table2", model, "Samples Per second"), 1) == value("table2", model, "Latency")


def test_what_figure_2_shows_is_tmkd_large():
    """The text has TMKD above TKD and MKD on all data sets, which holds for the large pool only."""
    for pool, holds in (("large", True), ("base", False)):
        ours = [published_value("tmkd", "table4", f"TMKD_{pool}", column) for column in DATA_SETS]
        rivals = [max(published_value("tmkd", "table5", "TKD", c), published_value("tmkd", "table6", "MKD", c))
                  for c in DATA_SETS]  # fmt: skip
        assert all(a > b for a, b in zip(ours, rivals)) == holds
    for entry in papers.load("tmkd").exhibits:
        if ".fig" in entry.id:
            assert entry.numbers.startswith("not published as numbers")
            assert entry.says


# --- claims --------------------------------------------------------------------------------------------------------------


def test_every_claim_holds_where_the_data_say_so():
    found = verdicts(made())
    assert {name: v.verdict for name, v in found.items()} == {f"T{i}": SUPPORTED for i in range(1, 10)}
    # two tasks; T2: 2 steps x 2 pools, and for the Bi-LSTM 1 + 2; T4: MKD and two TMKD, the Bi-LSTM's one, and the speed
    members = {"T1": 2, "T2": 2 * (4 + 3), "T3": 4, "T4": 2 * (3 + 1) + 1, "T5": 2, "T6": 2, "T7": 2 + 1, "T8": 2 + 1, "T9": 4}
    assert {name: v.members for name, v in found.items()} == members
    assert {v.as_stated for v in found.values()} == {HOLDS}
    assert found["T1"].effect == pytest.approx(7.0, abs=0.2)
    assert (found["T1"].n, found["T1"].unit, found["T1"].tier) == (8, "points", "demo")
    assert [line["part"] for line in found["T4"].lines] == ["MKD against m-o-m", "TMKD against m-o-m", "speed against m-o-m"]
    assert "more than twice" in found["T4"].weaker
    assert "m-o-m (here 3.0 times, with 0.34 of its parameters)" in found["T4"].parts[-1]["label"]
    assert [part["effect"] for part in found["T5"].parts] == pytest.approx([8.0, 8.0 - 2.0], abs=0.2)
    assert found["T8"].lines[0]["delta"] == 1.0
    assert "standing in" in found["T1"].note
    assert [line["part"] for line in found["T1"].lines] == ["the pool's own task", "transfer to another task"]


@pytest.mark.parametrize(("claim", "changes", "decides", "others"), [
    ("T1", {"methods": {("one", "large"): 0.47}}, "TKD large (1-o-1) against 1-o-1", ()),
    ("T2", {"methods": {("average", ""): 0.57}}, "MKD against 1avg-o-1", ()),
    ("T2", {"recurrent": {("average", "base"): 0.44}}, "Bi-LSTM: TKD base (1avg-o-1) against TKD base (1-o-1)", ()),
    ("T3", {"methods": {("one", "large"): 0.63}}, "TMKD large against TKD large", ()),
    ("T4", {"methods": {("many", ""): 0.525}}, "MKD against m-o-m", ()),
    ("T4", {"recurrent": {("each", ""): 0.50}}, "Bi-LSTM: TMKD base against m-o-m", ()),
    ("T4", {"qps": {"each": 400.0}}, "speed in per cent", ()),
    ("T5", {"layers": {5: 0.68}}, "gain from 1 to 3 layers less that to 5", ()),
    ("T5", {"layers": {3: 0.48, 5: 0.30}}, "gain from 1 to 3 layers", ()),
    ("T6", {"alphas": {0.9: 0.53, 0.1: 0.56}}, "rise from 0.1 to 0.9", ("any",)),
    ("T6", {"alphas": {1.0: 0.60}}, "0.9 against 1", ()),
    ("T7", {"methods": {("many", "base"): 0.63}}, "TMKD large against TMKD base", ()),
    ("T7", {"largest": {("many", "large"): 0.58}}, "against the best teacher", ()),
    ("T8", {"teachers": {"best": 0.65}}, "against the best teacher", ()),
    ("T8", {"qps": {"teacher": 500.0}}, "speed in per cent", ()),
    ("T9", {"methods": {("each", ""): 0.48}}, "m-o-m against 1-o-1", ()),
])  # fmt: skip
def test_each_claim_fails_where_the_data_say_so(claim, changes, decides, others):
    found = verdicts(made(**changes))
    assert found[claim].as_stated == FAILS
    assert decides in min(found[claim].parts, key=lambda part: part["effect"])["label"]
    if not others:
        assert {v.as_stated for name, v in found.items() if name != claim} == {HOLDS}


def test_mkd_is_judged_apart_from_tmkd():
    """Stage 1 must not stand in for many teachers: MKD below m-o-m refutes T4 however good TMKD is."""
    found = verdicts(made(methods={("many", ""): 0.525}))["T4"]
    mkd, tmkd, _ = found.lines
    assert (found.words, found.effect) == ("contradicted, but by below 1 point", mkd["effect"])
    assert tmkd["interval"][0] > 1


def test_the_pairing_over_repeats_is_what_finds_small_effects():
    """Repeats differ by ± 2 points, far more than the 0.3 between two arms; shuffled repeats would find nothing."""
    rows = made(8, methods={("each", ""): 0.503})
    assert verdicts(rows)["T9"].verdict == SUPPORTED
    wrong = [r | {"repeat": (r["repeat"] + 1) % 8} if r["method"] == "each" else r for r in rows]
    assert verdicts(wrong)["T9"].verdict == OPEN


def test_a_student_better_than_its_teacher_is_comparable_too():
    found = verdicts(made(teachers={"best": 0.52}))["T8"]
    assert found.verdict == SUPPORTED
    assert "above -1" in found.test
    worse = made(teachers={"best": 0.625})  # by twice the margin
    assert verdicts(worse)["T8"].verdict == CONTRADICTED
    assert verdicts(worse, margin=0.03)["T8"].verdict == SUPPORTED


def test_tiers_are_kept_apart():
    records = [record(made()), record(made(alphas={1.0: 0.6}), tier="small")]
    found = {(v.claim, v.tier): v.verdict for v in tmkd.claims(records)}
    assert found["T6", "demo"] == SUPPORTED
    assert found["T6", "small"] == CONTRADICTED
    only = tmkd.claims([record([r for r in made() if r["arm"] == "layers"])])
    assert {v.claim for v in only if v.verdict != NOT_TESTED} == {"T5"}  # nothing says what its students had to learn


def test_one_pool_and_one_task_are_enough_for_most_claims():
    rows = [r for r in made(tasks=(TARGET,)) if r["pool"] != "large" or r["arm"] == "largest"]
    found = verdicts(rows)
    assert found["T3"].members == 2  # TMKD base against TKD base and MKD
    assert found["T1"].parts[0]["label"].endswith("TKD base (1-o-1) against 1-o-1")
    assert found["T1"].words == "not tested: no data for transfer to another task"
    # no transfer, no second pool, and TMKD base is two points below the teacher
    assert {name for name, v in found.items() if v.verdict != SUPPORTED} == {"T1", "T7", "T8"}


@pytest.mark.parametrize(("claim", "gone", "named"), [
    ("T1", lambda r: r["task"] == OTHER, "transfer to another task"),
    ("T1", lambda r: r["task"] == TARGET and r["method"] == "one" and not r["pool"], "the pool's own task"),
    ("T2", lambda r: r["method"] == "one", "the average against the best teacher"),
    ("T3", lambda r: r["method"] == "many" and not r["pool"] and r["arm"] == "methods", "TMKD against MKD"),
    ("T3", lambda r: r["method"] == "one" and r["pool"] == "large", "TMKD against TKD"),
    ("T4", lambda r: r["method"] == "many" and not r["pool"] and r["arm"] == "methods", "MKD against m-o-m"),
    ("T4", lambda r: r["method"] == "many" and r["pool"] and r["arm"] == "methods", "TMKD against m-o-m"),
    ("T4", lambda r: r["arm"] == "speed", "speed against m-o-m"),
    ("T6", lambda r: r["alpha"] == 1.0, "a fall at alpha = 1"),
    ("T6", lambda r: r["alpha"] < 0.9 and r["arm"] == "alpha", "a rise with alpha below 1"),
    ("T7", lambda r: r["arm"] == "largest", "the largest pool against the teacher"),
    ("T7", lambda r: r["pool"] == "base", "the large pool against the base one"),
    ("T8", lambda r: r["arm"] == "speed", "speed against the teacher"),
    ("T8", lambda r: r["arm"] == "teachers", "score against the best teacher"),
])  # fmt: skip
def test_a_part_of_a_claim_without_data_keeps_it_from_supported(claim, gone, named):
    found = verdicts([r for r in made() if not gone(r)])
    assert found[claim].words == f"not tested: no data for {named}"
    assert found[claim].as_stated == OPEN
    assert found[claim].passed == found[claim].members > 0
    json.dumps(found[claim].to_dict(), allow_nan=False)
    assert found["T9"].verdict == (SUPPORTED if claim != "T2" else NOT_TESTED)


def test_speeds_alone_test_no_claim():
    speeds = [r for r in made() if r["arm"] in ("speed", "teachers")]
    assert {v.verdict for v in verdicts(speeds).values()} == {NOT_TESTED}


def test_a_note_names_the_tasks_that_were_tested_and_no_other():
    """On the task of the transfer there are no ensembles, and nothing without stage 1."""
    found = verdicts([r for r in made() if r["task"] == TARGET or (r["method"] == "many" and r["pool"])])
    for claim in ("T2", "T4", "T7", "T9"):
        assert (OTHER in found[claim].note) == (claim == "T7")
        assert TARGET in found[claim].note


# --- speeds --------------------------------------------------------------------------------------------------------------


def timing(factor=1.0, run="r2", parameters=None, repeats=8, **wanted):
    """A record that only times: the rows of the arm "speed" whose fields are as wanted, with every speed times `factor`."""
    rows = [r for r in made(repeats) if r["arm"] in ("speed", "teachers") and all(r[k] in v for k, v in wanted.items())]
    slow = [r | {"speed": r["speed"] | {"samples_per_second": factor * r["speed"]["samples_per_second"]}} if r["speed"] else r
            for r in rows]  # fmt: skip
    return record(slow, run=run, parameters=parameters)


@pytest.mark.parametrize("repeats", [8, 10])
@pytest.mark.parametrize("first", [True, False])
def test_a_run_that_only_times_teachers_lends_nothing_to_the_students_of_another(repeats, first):
    """params/tmkd/table2.yaml against table4.yaml: same tier, task and arm, other parameters, as many repeats or more."""
    main = record(made(), parameters={"teachers": ["large"]})
    throw_away = timing(0.01, repeats=repeats, parameters={"teachers": ["base"]}, kind=("teacher",), task=(TARGET,))
    records = [throw_away, main] if first else [main, throw_away]
    with pytest.warns(UserWarning, match="2 sets of parameters"):
        found = {v.claim: v for v in tmkd.claims(records)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same once more
        cells = {name: tmkd.exhibit(name, records).content for name in ("table2", "table4", "table9", "speed")}
        best = tmkd.summary(records)["best teacher"].iloc[0]
    assert found["T8"].verdict == SUPPORTED
    assert "speed" in found["T8"].parts[-1]["label"]
    assert found["T8"].parts[-1]["effect"] == pytest.approx(100 * (6 / 2 - 1), abs=5)
    assert found["T4"].verdict == SUPPORTED
    table4 = cells["table4"].set_index(["source", "model"])["QPS"]
    assert table4["demo tier", "BERT-1 (MKD)"].startswith(("60", "59"))
    assert table4["demo tier", "teacher, the best of 3"].startswith(("10", "99"))
    assert cells["table9"].set_index(["source", "data set"]).loc[("demo tier", "QPS"), "5"].startswith("120")
    assert "BERT-1, a head per teacher" in set(cells["speed"]["network"])
    assert best == tmkd.summary([main])["best teacher"].iloc[0]
    assert set(cells["table2"]["source"]) == {"demo tier", "paper"}


def test_speeds_are_compared_within_a_run_alone():
    """Another run, on a machine twenty times busier, timed the teacher and the students again, and no m-o-m."""
    main = record(made())
    slow = timing(0.05, method=("", "many"))
    for records in ([main, slow], [slow, main]):
        found = {v.claim: v for v in tmkd.claims(records)}
        assert found["T4"].parts[-1]["effect"] == pytest.approx(100 * (3 / 2 - 1), abs=3)  # and not 3 / 20
        assert found["T8"].parts[-1]["effect"] == pytest.approx(100 * (6 / 2 - 1), abs=5)
        assert "here 3.0 times" in found["T4"].parts[-1]["label"]
        table = tmkd.exhibit("table4", records)
        assert table.content.set_index(["source", "model"]).loc[("demo tier", "BERT-1 (MKD)"), "QPS"].startswith(("60", "59"))
        assert "runs may have gone side by side" in table.caption
    apart = [record([r for r in made() if (r["method"], r["arm"]) != ("each", "speed")]), timing(method=("each",))]
    found = {v.claim: v for v in tmkd.claims(apart)}
    assert found["T4"].words == "not tested: no data for speed against m-o-m"
    table = tmkd.exhibit("table4", apart).content.set_index(["source", "model"])
    assert table.loc[("demo tier", "BERT-1 (m-o-m)"), "QPS"].startswith("20")  # lacking in the first run, from the second


def test_the_layers_are_shown_by_the_run_that_timed_them_all():
    """The first run has more networks, the second all depths: Table 9 is the second's alone."""
    depths = [f"scratch-{n}x32" for n in (3, 5)]
    main = record([r for r in made() if r["arm"] != "speed" or r["student"] not in depths])
    second = timing(0.5, method=("many",), student=(STUDENT, *depths))
    cells = tmkd.exhibit("table9", [main, second]).content.set_index(["source", "data set"]).loc[("demo tier", "QPS")]
    assert (cells["1"][:2], cells["3"][:2], cells["5"][:2]) in itertools.product(("30", "29"), ("10", "99"), ("60", "59"))


def test_speeds_of_older_records_name_a_pool():
    old = [r | {"pool": "base"} if r["arm"] == "speed" and r["method"] == "many" else r for r in made()]
    frame = tmkd.frame([record(old)])
    assert set(frame.loc[frame["arm"] == "speed", "pool"]) == {""}
    assert [v.to_dict() for v in tmkd.claims([record(old)])] == [v.to_dict() for v in tmkd.claims([record(made())])]
    assert tmkd.exhibit("table4", [record(old)]).content.equals(tmkd.exhibit("table4", [record(made())]).content)


def test_an_ensemble_of_one_is_not_shown():
    alone = [r | {"n": 1} for r in made()]
    for name, column in (("table2", "model"), ("table4", "model"), ("speed", "network")):
        names = tmkd.exhibit(name, [record(alone)]).content[column]
        assert not names.str.contains("ensemble of 1|^1 of them").any()
        assert len(names)


def test_different_parameters_are_never_pooled():
    """Two learning rates are two experiments; sections and repeats of one experiment may come from several records."""
    low, high = {"student_lr": 1e-3}, {"student_lr": 1e-2}
    few = [record(made(2, methods={("one", ""): 0.9}), parameters=high)]
    many = [record([r for r in made() if (r["arm"] == "methods") == part], parameters=low | {"sections": [str(part)]})
            for part in (True, False)]  # fmt: skip
    with pytest.warns(UserWarning, match=r"2 sets of parameters; the one with the most repeats \(8\)"):
        found = {v.claim: v for v in tmkd.claims(few + many)}
    assert found["T9"].verdict == SUPPORTED
    assert found["T8"].members == 3  # teachers of the same parameters only


# --- exhibits ------------------------------------------------------------------------------------------------------------


def pick(frame, method, pool="", **where):
    """The students of one method and pool ("" = no stage 1), further narrowed by equal columns."""
    where = {"arm": "methods", "kind": "student", "method": method, "pool": pool} | where
    return frame[np.logical_and.reduce([frame[column] == value for column, value in where.items()])]


def everything():
    return [record(made(ranked=0.7), data=DATA)]


def test_table_4_has_ours_above_the_papers():
    table = tmkd.exhibit("table4", everything()).content
    ours = table[table["source"] == "demo tier"]["model"].tolist()
    assert ours == ["BERT-1", "teacher, the best of 3", "ensemble of 3 teachers", "Bi-LSTM (1-o-1)", "Bi-LSTM (1avg-o-1)",
                    "Bi-LSTM (m-o-m)", "BERT-1 (1-o-1)", "BERT-1 (1avg-o-1)", "BERT-1 (m-o-m)", "BERT-1 (MKD)",
                    "Bi-LSTM (TMKD base)", "BERT-1 (TMKD base)", "BERT-1 (TMKD large)"]  # fmt: skip
    table = table.set_index(["source", "model"])
    assert table.loc[("paper", "TMKD_large"), "RTE"] == "67.50"
    assert table.loc[("paper", "BERT-3 (m-o-m)"), "QPS"] == "217/3"
    assert table.loc[("demo tier", "BERT-1 (m-o-m)"), "QPS"].startswith("20")
    assert table.loc[("demo tier", "BERT-1 (TMKD large)"), "Parameters (M)"] == "0.0505"
    assert table.loc[("demo tier", "BERT-1 (1avg-o-1)"), "QPS"].startswith(("60", "61"))  # built like 1-o-1
    scores = [r["score"] for r in made() if (r["arm"], r["method"], r["pool"], r["student"], r["task"]) ==
              ("methods", "many", "large", STUDENT, TARGET) and r["kind"] == "student"]  # fmt: skip
    cell = table.loc[("demo tier", "BERT-1 (TMKD large)"), "pydocs/topic Acc"]
    assert cell == f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores, ddof=1):.1f} n=8"
    assert table.loc[("demo tier", "BERT-1 (TMKD large)"), "pydocs/topic MAP"] == "70.0 ± 0.0"
    assert list(table.columns)[-2:] == ["QPS", "Parameters (M)"]


def test_tables_2_3_8_and_9():
    records = everything()
    table2 = tmkd.exhibit("table2", records).content.set_index(["source", "model"])
    assert table2.loc[("paper", "BERT_large"), "Latency"] == "5.2"
    assert table2.loc[("demo tier", "3 of them"), "Samples Per second"].startswith("3")
    table3 = tmkd.exhibit("table3", records).content.set_index(["source", "data set"])
    assert table3.loc[("demo tier", OTHER), ["train", "validation", "test"]].tolist() == ["2,490", "277", "300"]
    assert table3.loc[("demo tier", "pydocs/topic (pool)"), ["train (base)", "train (large)"]].tolist() == ["400", "1,600"]
    assert table3.loc[("paper", "CommQA-Labeled"), "answer words"] == "45.70"
    assert table3.loc[("paper", "CommQA-Unlabeled"), "train (extreme)"] == "0.1B"
    table8 = tmkd.exhibit("table8", records).content.set_index(["source", "model"])
    column = "pydocs/topic Acc (3 teachers, pool of 1,600)"
    assert table8.loc[("demo tier", "TMKD"), column].endswith("n=8")
    assert set(table8.loc["demo tier"].index) == {"KD", "MKD", "TMKD", "teacher"}
    table9 = tmkd.exhibit("table9", records).content.set_index(["source", "data set"])
    assert list(table9.columns) == ["1", "3", "5"]
    assert table9.loc[("paper", "QPS"), "1"] == "511"
    assert table9.loc[("demo tier", "QPS"), "5"].startswith("120")


def test_tables_5_to_7_hold_the_right_students():
    records = everything()
    tables = {n: tmkd.exhibit(f"table{n}", records).content for n in (5, 6, 7)}
    names = {n: table[table["source"] == "demo tier"]["model"].tolist() for n, table in tables.items()}
    assert names[5] == ["BERT-1 (1-o-1)", "BERT-1 (TKD large (1-o-1))"]
    assert names[6] == ["BERT-1 (1avg-o-1)", "BERT-1 (MKD)"]
    kinds = ("(TKD base (1-o-1))", "(TKD base (1avg-o-1))", "(TMKD base)")
    assert names[7] == [f"{a} {k}" for a in ("Bi-LSTM", "BERT-1") for k in kinds]


def test_with_one_pool_table_5_and_figure_2_show_it():
    """The only pool is called base whatever its size."""
    rows = [r for r in made() if r["pool"] != "large"]
    records = [record(rows), record(made(), tier="small")]
    table = tmkd.exhibit("table5", records)
    names = {tier: table.content.loc[table.content["source"] == f"{tier} tier", "model"].tolist() for tier in ("demo", "small")}
    assert names["demo"] == ["Bi-LSTM (1-o-1)", "Bi-LSTM (TKD base (1-o-1))", "BERT-1 (1-o-1)", "BERT-1 (TKD base (1-o-1))"]
    assert names["small"] == ["BERT-1 (1-o-1)", "BERT-1 (TKD large (1-o-1))"]
    figure = tmkd.exhibit("fig2", records)
    assert not figure.missing
    means = [100 * pick(tmkd.frame([record(rows)]), *what, student=STUDENT, task=TARGET)["score"].mean()
             for what in (("one", "base"), ("many", ""), ("many", "base"))]  # fmt: skip
    assert [patch.get_height() for patch in figure.content.axes[0].patches][:6:2] == pytest.approx(means)


def test_the_sizes_of_runs_are_said():
    assert tmkd.made_with(everything()) == "demo tier: glue/rte with 2,490 training texts; pools of 400 and 1,600 texts"
    other = record([], data=[DATA[0] | {"samples": 600}], tier="small")
    assert tmkd.made_with([record([], data=[DATA[0]], tier="small"), other]) == (
        "small tier: glue/rte with 600 or 2,490 training texts; no pool")
    assert tmkd.made_with([]) == ""


def test_figures_show_the_means_of_the_rows():
    figure = tmkd.exhibit("fig2", everything()).content
    assert [axis.get_title() for axis in figure.axes] == ["demo tier, 8 repeats", "the paper"]
    frame = tmkd.frame(everything())
    means = [100 * pick(frame, *what, task=task)["score"].mean()
             for what in (("one", "large"), ("many", ""), ("many", "large")) for task in (TARGET, OTHER)]  # fmt: skip
    assert [patch.get_height() for patch in figure.axes[0].patches][:6] == pytest.approx(means)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["pydocs/topic\nAcc", "RTE\nAcc"]
    (axis,) = tmkd.exhibit("fig3", everything()).content.axes
    assert axis.lines[0].get_xdata().tolist() == [0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
    pools = tmkd.exhibit("pools", everything()).content.axes[0]
    assert pools.lines[0].get_xdata().tolist() == [0, 400, 1600]


def test_controls_speed_and_summary():
    table = tmkd.exhibit("controls", everything()).content.set_index(["task", "control"])
    assert set(table.loc[TARGET].index) == {"shuffled teachers", "uniform teachers", "plain CE, same compute", "not distilled"}
    assert float(table.loc[(TARGET, "shuffled teachers"), "difference"]) == pytest.approx(16.5, abs=0.2)
    assert set(table["repeats"]) == {8}
    speed = tmkd.exhibit("speed", everything()).content.set_index("network")
    assert speed.loc["BERT-1, one student per teacher", "queries per second"].startswith("20")
    assert speed.loc["BERT-1, a head per teacher", "best batch"] == "64"
    summary = tmkd.summary(everything()).sort_values("task", ascending=False, kind="stable", ignore_index=True)
    assert summary[["task", "student"]].to_numpy().tolist() == [[TARGET, "BERT-1"], [TARGET, "Bi-LSTM"], [OTHER, "BERT-1"],
                                                               [OTHER, "Bi-LSTM"]]  # fmt: skip
    assert summary.loc[1, "MKD"] == "n/a"
    assert summary.loc[0, "repeats"] == 8


def test_names():
    frame = tmkd.frame([record(made(1))])
    assert label(frame[frame["kind"] == "ensemble"].iloc[0]) == "ensemble of 3 teachers"
    assert set(frame["built"]) == {"", "BERT-1", "BERT-3", "BERT-5", "Bi-LSTM"}
    assert method_name("average", "base") == "TKD base (1avg-o-1)"


# --- exercises -----------------------------------------------------------------------------------------------------------


def bug(golden, soft, labels, teachers, alpha):
    gold = F.cross_entropy(golden, labels)
    matched = ((soft - teachers.mean(1, keepdim=True)) ** 2).mean()
    return (1 - alpha) * gold + alpha * matched


def repaired(golden, soft, labels, teachers, alpha):
    gold = F.cross_entropy(golden, labels)
    matched = ((soft - teachers) ** 2).mean()
    return (1 - alpha) * gold + alpha * matched


def test_answers_to_the_exercises():
    cells = defined_in("tmkd")
    exercises = cells.exercises
    by_hand = (1 / (1 + math.e) + math.e**2 / (1 + math.e**2) + 0.5) / 3
    assert cells.vote_of_example() == pytest.approx(by_hand, abs=1e-6)
    assert exercises.check("1", round(by_hand, 3)) == "exercise 1: correct"
    assert exercises.check("1", 0.5) == "exercise 1: not yet"
    assert exercises.check("2", repaired) == "exercise 2: correct"
    assert exercises.check("2", bug) == "exercise 2: not yet"
    assert cells.trainings(1, 3) == 5 + 5 + 3 + 2
    assert exercises.check("3", 5 + 5 * 10) == "exercise 3: correct"
    assert exercises.check("4", lambda d, c, n: n * c * (d + 1)) == "exercise 4: correct"
    assert exercises.check("4", lambda d, c, n: n * c * d) == "exercise 4: not yet"
    assert exercises.check("4", None) == "exercise 4: not answered yet"
    assert cells.more_parameters(768, 2, 3) / 1e6 == pytest.approx(45.70 - 45.69, abs=0.006)  # Table 4
