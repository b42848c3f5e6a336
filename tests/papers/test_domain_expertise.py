"""The thesis's numbers checked against each other; medians and claims on fabricated rows whose answer is known; exhibits."""

from functools import partial

import numpy as np
import paper_rows
import pytest
from notebook_names import defined_in

from mtkd import papers
from mtkd.evidence.verdicts import CONTRADICTED, FAILS, NOT_TESTED, SUPPORTED
from mtkd.papers import domain_expertise, domain_expertise_tables, published_value
from mtkd.papers.domain_expertise import published_differences
from mtkd.papers.domain_expertise_tables import METHODS, PER_CLASS, PRINTED, ROLES, STUDENTS, for_data_set, roles

PAPER = "domain_expertise"
CELLS = defined_in(PAPER)
TEACHERS = ["scratch-2x64", "roberta-scratch-2x64", "electra-scratch-2x64"]


def row(kind="student", method=None, recalls=None, score=0.5, *, arm="classes", task="pydocs/topic", variant="", repeat=0,
        temperature=1.0, position=None, model="scratch-1x32", start=None, layers=1, metric="accuracy"):  # fmt: skip
    """One row as the notebook writes it."""
    start = start or ("plain" if kind in ("student", "undistilled", "control") else None)
    return paper_rows.row(score, metric, arm=arm, task=task, kind=kind, method=method, variant=variant, repeat=repeat,
                          temperature=temperature, start=start, position=position, teachers=TEACHERS, model=model,
                          recalls=recalls or {}, validation=score + 0.01, parameters=250_000, layers=layers)


record = partial(paper_rows.record, "domain_expertise")


# --- the thesis against itself -----------------------------------------------------------------------------------------


def test_every_table_is_complete():
    counts = {}
    for entry in papers.load(PAPER).published:
        counts[entry["exhibit"]] = counts.get(entry["exhibit"], 0) + 1
    assert counts == {"table4_1": 12, "table4_2": 8, "table5_1": 24, "table5_2": 36, "table5_3": 9, "table5_4": 25,
                      "table5_5": 6, "table5_6": 24, "table5_7": 9, "table5_8": 15, "table5_9": 6, "table5_10": 5,
                      "table5_11": 4}  # fmt: skip


def test_sums_added_by_hand():
    sums = {}
    for entry in papers.load(PAPER).published:
        sums[entry["exhibit"]] = sums.get(entry["exhibit"], 0) + entry["value"]
    assert sums["table5_1"] == pytest.approx(560.7 + 530.7 + 451.4 + 380.4)
    assert sums["table5_2"] == pytest.approx(575.0 + 581.4 + 438.3 + 575.8 + 524.9 + 360.5)
    assert sums["table5_4"] == pytest.approx(475.1 + 461.8 + 446.2 + 453.3 + 471.6)
    assert sums["table5_6"] == pytest.approx(535.3 + 469.9 + 225.9 + 399.2)
    assert sums["table5_8"] == pytest.approx(256.0 + 333.5 + 324.02)


def test_every_printed_median_follows_from_the_per_class_table():
    checked = 0
    for name in PER_CLASS:
        table = published_differences(name)
        for (role, method), rows in table.groupby(["role", "method"]):
            (medians,) = domain_expertise.shows("medians", name)
            printed = published_value(PAPER, medians, PRINTED[STUDENTS[method]], PRINTED[role])
            assert rows["difference"].median() == pytest.approx(printed, abs=0.006), (name, role, method)
            checked += 1
    assert checked == 30


def test_where_the_theses_numbers_contradict_its_claims():
    """D1 does not hold in Table 5.9 nor, as a tie, in Table 5.7; D3 does not hold against DeBERTa on EMOTION."""
    not_better, no_more_spread = [], []
    for name in PER_CLASS:
        table = published_differences(name)
        for role in dict.fromkeys(table["role"]):
            of = {m: table[(table["role"] == role) & (table["method"] == m)]["difference"] for m in STUDENTS}
            not_better += [(name, role, m) for m in ("average", "random")
                           if not round(of["expertise"].median() - of[m].median(), 6) > 0]
            no_more_spread += [(name, role)] if of["average"].std() <= of["expertise"].std() else []
    assert not_better == [("Twitter-Emotion", "BERT", "average"), ("Twitter-Sentiment", "BERT", "average"),
                          ("Twitter-Sentiment", "RoBERTa", "average")]
    assert no_more_spread == [("EMOTION", "DeBERTa")]


def test_mind_student_passes_every_teacher_in_every_class():
    table = published_differences("MIND")
    assert (table[table["method"] == "expertise"]["difference"] > 0).all()
    assert set(table["role"]) == {"BERT", "RoBERTa"}


def test_labels_of_table_5_6_are_exchanged():
    """Only one class fits the numbers of each printed row, once each class is used once."""
    fits = {}
    for printed in ("Sadness", "Joy", "Anger", "Optimism"):
        values = [published_value(PAPER, "table5_6", printed, PRINTED[key]) for key in (*ROLES, *STUDENTS.values())]
        fits[printed] = {name for name, n in CELLS.COUNTS.items() if all(CELLS.printable(v, n) for v in values)}
    assert fits == {"Sadness": {"anger"}, "Joy": {"joy", "anger"}, "Anger": {"optimism"}, "Optimism": {"sadness"}}
    assert papers.raw(PAPER)["exhibits"]["table5_6"]["relabelled"] == {
        "Sadness": "anger", "Joy": "joy", "Anger": "optimism", "Optimism": "sadness"}
    listed = {m["where"]: m for m in papers.load(PAPER).misprints}
    assert listed["Table 5.6"]["expected"] == "anger, joy, optimism, sadness"


def test_known_misprints_are_listed():
    listed = [(m["where"], m["printed"], m["expected"]) for m in papers.load(PAPER).misprints]
    assert ("Table 5.4", "EMOTION", "MIND") in listed
    assert ("section 1.4", 0.79, published_value(PAPER, "table5_10", "biomednlp-pubmedbert-base-uncased", "F1")) in listed
    assert ("section 5.6", "Table 5.6", "Table 5.10") in listed
    assert ("section 4.2.2", "five different", 6) in listed
    assert ("chapter 6", 0.64, published_value(PAPER, "table5_3", "Our Approach", "BERT-base-uncased-12")) in listed
    assert ("section 5.6", "330M", "303M") in listed
    assert ("Table 2.1", "52.2M", f"{published_value(PAPER, 'table4_2', 'DistilBERT', 'parameters')}M") in listed


def test_parameters_of_the_published_models_added_by_hand():
    """Which of two printed numbers is the slip: layers of width d, feed-forward 4 d, with biases and two norms each."""
    def layer(d):
        return 4 * (d * d + d) + 2 * 4 * d * d + 4 * d + d + 4 * d

    relative = 512 * 1024 + 2 * 1024  # DeBERTa-v3-large: 2 x 256 relative positions and their norm
    assert 24 * layer(1024) + relative == 302_835_712
    assert 128_100 * 1024 + 2 * 1024 == 131_176_448  # its embeddings
    assert 6 * layer(768) + (30_522 + 512 + 2) * 768 == 66_362_880  # DistilBERT


def test_the_most_accurate_teacher_of_emotion_is_not_the_go_to_teacher():
    best = {name: max(ROLES, key=lambda role: published_value(PAPER, "table5_1", name, PRINTED[role])) for name in PER_CLASS}
    assert best == {"EMOTION": "DeBERTa", "MIND": "BERT", "Twitter-Emotion": "BERT", "Twitter-Sentiment": "BERT"}
    assert any("DeBERTa (94.4 against 94.3)" in note for note in papers.load(PAPER).notes)


# --- medians by hand -----------------------------------------------------------------------------------------------------

# teacher A 0.80 0.60 0.50, teacher B 0.70 0.70 0.10, student 0.90 0.58 0.40
#   minus A: +10 -2 -10, median -2, sd sqrt(((10.667)^2 + (1.333)^2 + (9.333)^2) / 2) = 10.0664
#   minus B: +20 -12 +30, median +20
HAND = [row("teacher", position=0, model="A", recalls={"x": 0.8, "y": 0.6, "z": 0.5}),
        row("teacher", position=1, model="B", recalls={"x": 0.7, "y": 0.7, "z": 0.1}),
        row(method="expertise", recalls={"x": 0.9, "y": 0.58, "z": 0.4})]  # fmt: skip


def test_medians_by_hand():
    found = 100 * domain_expertise.frame([record(HAND)]).set_index(["arm", "teacher"])["score"]
    assert found["medians", "A"] == pytest.approx(-2.0)
    assert found["medians", "B"] == pytest.approx(20.0)
    assert found["spreads", "A"] == pytest.approx(10.0664, abs=1e-3)


def test_differences_are_within_a_repeat_and_skip_classes_without_samples():
    rows = [*HAND, row("teacher", position=0, model="A", repeat=1, recalls={"x": 0.1, "y": 0.1, "z": None}),
            row(method="expertise", repeat=1, recalls={"x": 0.3, "y": 0.2, "z": None})]
    found = domain_expertise.frame([record(rows)])
    second = found[(found["arm"] == "differences") & (found["repeat"] == 1)]
    assert list(zip(second["class"], second["teacher"])) == [("x", "A"), ("y", "A")]
    assert list(100 * second["score"]) == pytest.approx([20.0, 10.0])


def test_roles_go_by_family_then_by_position():
    assert roles(["microsoft/deberta-base", "google-bert/bert-base-uncased", "FacebookAI/roberta-base"]) == {
        "BERT": "google-bert/bert-base-uncased", "RoBERTa": "FacebookAI/roberta-base", "DeBERTa": "microsoft/deberta-base"}
    assert roles(["minilm", "bottom-4 of minilm", "roberta-scratch-2x128"]) == {
        "BERT": "minilm", "RoBERTa": "roberta-scratch-2x128", "DeBERTa": "bottom-4 of minilm"}
    assert roles(["google-bert/bert-base-uncased", "FacebookAI/roberta-base"]).keys() == {"BERT", "RoBERTa"}
    assert list(roles(["a", "b", "c", "d"])) == ["BERT", "RoBERTa", "DeBERTa", "d"]


def test_a_stand_in_is_shown_only_where_there_is_no_run_on_the_data_set():
    frame = domain_expertise.frame([record([*HAND, *(r | {"task": "tweet_eval/emotion"} for r in HAND),
                                *(r | {"task": "mine.csv"} for r in HAND)])])
    assert set(for_data_set(frame, "Twitter-Emotion")["task"]) == {"tweet_eval/emotion"}
    assert set(for_data_set(frame, "MIND")["task"]) == {"pydocs/topic"}


# --- claims ------------------------------------------------------------------------------------------------------------

CLASSES = ("a", "b", "c", "d", "e")


def made(repeats=8, *, gain=0.03, average=-0.02, rough=0.06, warm=0.0, above=0.0, task="pydocs/topic", seed=0):
    """Teachers at 0.7 on every class; the expertise student above them by `gain`, the others by `average`, the averaged
    one unevenly by `rough`; at temperature 2 all scores are `warm` higher; `above` is added to the teachers."""
    rng = np.random.default_rng(seed)
    rows = []
    for repeat in range(repeats):
        def around(level, rough=0.0):
            tilt = np.array([-2, -1, 0, 1, 2]) * rough / 2
            return {c: float(level + t + e) for c, t, e in zip(CLASSES, tilt, rng.normal(0, 0.001, 5))}

        for i, name in enumerate(TEACHERS):
            rows.append(row("teacher", recalls=around(0.7 + above), score=0.7 + above, position=i, model=name, repeat=repeat,
                            task=task, layers=2))
        levels = {"expertise": (gain, 0.004), "average": (average, rough), "random": (average, 0.004),
                  "camkd": (average, 0.004), "mixture": (average, 0.004)}
        for method, (level, uneven) in levels.items():
            score = 0.7 + level + rng.normal(0, 0.0005)
            rows.append(row(method=method, recalls=around(0.7 + level, uneven), score=score, repeat=repeat, task=task))
        for method in ("expertise", "average"):
            same = next(r for r in rows[::-1] if r["method"] == method and r["variant"] == "")
            rows.append(same | {"variant": "temperature 2", "temperature": 2.0,
                                "score": same["score"] + warm + rng.normal(0, 0.0005)})
        rows.append(row("undistilled", recalls=around(0.66), score=0.66 + rng.normal(0, 0.001), repeat=repeat, task=task))
        for control in ("plain_ce", "shuffled_teacher", "uniform_teacher"):
            rows.append(row("control", "expertise", around(0.65), 0.65 + rng.normal(0, 0.001), variant=control,
                            repeat=repeat, task=task))
    return rows


def spans(repeats=8, *, camkd=-0.03, tuned=0.04, clinical=0.0, seed=0, layers=(1, 1)):
    """Plain student 0.60 (average logits), CA-MKD `camkd` lower, the tuned start `tuned` higher; the last teacher scores
    as the tuned student plus `clinical`."""
    rng = np.random.default_rng(seed)
    rows = []
    for repeat in range(repeats):
        def noisy(value):
            return float(value + rng.normal(0, 0.0005))

        same = {"arm": "span", "task": "pydocs/span", "repeat": repeat, "metric": "char_f1"}
        rows.append(row("teacher", position=0, model="general", score=noisy(0.8), layers=2, **same))
        rows.append(row("teacher", position=1, model="special", score=noisy(0.6 + tuned + clinical), layers=2, **same))
        for start, depth in zip(("plain", "tuned"), layers):
            level = 0.6 + tuned * (start == "tuned")
            for method, shift in (("average", 0.0), ("camkd", camkd), ("average+teacher", 0.0)):
                score = noisy(level + shift)
                if method == "average+teacher":
                    score = next(r["score"] for r in rows[::-1] if r["method"] == "average")
                rows.append(row(method=method, score=score, start=start, model=f"{start} model", layers=depth, **same))
            rows.append(row("undistilled", score=noisy(level - 0.1), start=start, model=f"{start} model", layers=depth, **same))
    return rows


def verdicts_of(rows, **options):
    return {v.claim: v for v in domain_expertise.claims([record(rows)], **options)}


def test_claims_hold_where_the_data_say_so():
    found = verdicts_of(made() + spans())
    assert {name: v.verdict for name, v in found.items()} == dict.fromkeys([f"D{i}" for i in range(1, 8)], SUPPORTED)
    # D1: 3 teachers x 2 rivals; D2: 3 teachers x 5 classes; D3: 3 teachers; D4: 2 methods; D5: 2 students; D6: 2 losses
    assert [found[f"D{i}"].members for i in range(1, 8)] == [6, 15, 3, 2, 2, 2, 1]
    assert found["D1"].effect == pytest.approx(5.0, abs=0.3)
    assert found["D6"].effect == pytest.approx(4.0, abs=0.2)
    assert (found["D1"].n, found["D1"].unit, found["D1"].tier) == (8, "points", "demo")
    assert "standing in" in found["D1"].note
    assert "against special" in found["D7"].parts[0]["label"]
    assert (found["D1"].delta, found["D5"].delta, found["D6"].delta) == (1.0, 2.0, 2.0)  # F1 over characters: two points


@pytest.mark.parametrize(("changes", "claim"), [
    ({"gain": -0.04}, "D1"), ({"above": 0.05}, "D2"), ({"rough": 0.0}, "D3"), ({"warm": 0.03}, "D4"), ({"warm": -0.03}, "D4"),
])  # fmt: skip
def test_claims_about_classes_fail_where_the_data_say_so(changes, claim):
    verdict = verdicts_of(made(**changes))[claim]
    assert (verdict.verdict, verdict.as_stated) == (CONTRADICTED, FAILS)


@pytest.mark.parametrize(("changes", "claim", "verdict"), [
    ({"camkd": 0.03}, "D5", CONTRADICTED), ({"camkd": 0.002}, "D5", SUPPORTED), ({"tuned": -0.02}, "D6", CONTRADICTED),
    ({"clinical": 0.03}, "D7", CONTRADICTED), ({"clinical": -0.03}, "D7", SUPPORTED),
])  # fmt: skip
def test_claims_about_spans_follow_the_data(changes, claim, verdict):
    assert verdicts_of(spans(**changes))[claim].verdict == verdict


def test_one_bad_teacher_spoils_d1():
    """Averaged logits are ahead on class e alone. Where a teacher is strong on two classes and weak on two others, the
    difference on e is the median, so against this one teacher, and in no other setting, averaged logits come out better."""
    rows = made(rough=0.08)
    for r in rows:
        if r["kind"] == "teacher" and r["model"] == TEACHERS[1]:
            r["recalls"] = {"a": 0.9, "b": 0.9, "c": 0.5, "d": 0.5, "e": 0.7}
    verdict = verdicts_of(rows)["D1"]
    assert (verdict.verdict, verdict.as_stated) == (SUPPORTED, FAILS)
    flipped = [part["label"] for part in verdict.parts if part["effect"] < 0]
    assert flipped == [f"pydocs/topic: against {METHODS['average']}, from {TEACHERS[1]}"]
    assert (verdict.passed, verdict.members) == (5, 6)


def test_d2_is_about_mind_only():
    assert verdicts_of(made(task="tweet_eval/emotion"))["D2"].verdict == NOT_TESTED
    assert verdicts_of(made(task="mind/balanced"))["D2"].verdict == SUPPORTED
    assert "1 of the thesis's 4 data sets" in verdicts_of(made(task="mind/balanced"))["D1"].note


def test_d6_says_when_the_students_differ_in_depth():
    assert "differ in depth" in verdicts_of(spans(layers=(2, 1)))["D6"].note
    assert "differ in depth" not in verdicts_of(spans())["D6"].note


def test_data_of_ones_own_decides_no_claim():
    good, bad = made(), made(gain=-0.04, warm=0.03, rough=0.0, task="reviews.csv", seed=1)
    assert {name: v.verdict for name, v in verdicts_of(good + bad).items()} == {
        name: v.verdict for name, v in verdicts_of(good).items()}
    assert all("reviews.csv" not in v.note for v in verdicts_of(good + bad).values())
    for verdict in verdicts_of(bad).values():
        assert verdict.verdict == NOT_TESTED
        assert "say nothing of reviews.csv" in verdict.note
    assert not domain_expertise.exhibit("medians", [record(bad)]).missing


def test_notes_name_only_the_data_that_took_part():
    """Two data sets; one of them without another temperature, one without a rival, CA-MKD in one repeat only."""
    second = [r for r in made(task="emotion") if not r["variant"].startswith("temperature")]
    alone = [r for r in made(task="tweet_eval/emotion") if r["method"] not in ("average", "random") and not r["variant"]]
    span = [r for r in spans() if r["method"] != "camkd" or r["repeat"] == 0]
    found = verdicts_of(made(task="mind/balanced") + second + alone + span)
    assert found["D4"].note == "8 repeats; on mind/balanced"
    assert found["D1"].note == "8 repeats; on emotion, mind/balanced; 2 of the thesis's 4 data sets"
    assert found["D2"].note == "8 repeats; on mind/balanced"
    assert found["D3"].note.startswith("8 repeats; on emotion, mind/balanced; spread")
    assert found["D5"].n == 1
    assert found["D7"].note.startswith("8 repeats; on pydocs/span")


def test_the_leak_is_named_where_the_test_split_chose_the_experts():
    honest, leaky = record(made()), record(made(), parameters={"fit_split": "test"})
    for records, named in (([honest], False), ([leaky], True)):
        assert ("a leak (demo tier)" in {v.claim: v for v in domain_expertise.claims(records)}["D1"].note) == named
        for name in ("table5_1", "table5_4", "table5_5", "fig5_4", "choices"):
            assert ("a leak (demo tier)" in domain_expertise.exhibit(name, records).caption) == named


def test_variants_and_other_settings_do_not_mix_with_the_main_rows():
    rows = made()
    spoiled = [r | {"variant": "fit on test", "score": 0.1, "recalls": dict.fromkeys(CLASSES, 0.1)} for r in rows
               if r["kind"] == "student" and r["variant"] == ""]
    assert verdicts_of(rows + spoiled)["D1"].verdict == SUPPORTED
    assert (domain_expertise.frame([record(rows), record(rows)])["arm"] == "classes").sum() == len(rows)


def test_tiers_are_kept_apart():
    found = domain_expertise.claims([record(made()), record(made(gain=-0.04, task="tweet_eval/emotion"), tier="small")])
    assert {v.tier: v.verdict for v in found if v.claim == "D1"} == {"demo": SUPPORTED, "small": CONTRADICTED}
    assert [v.tier for v in found if v.claim == "D2"] == ["demo"]


# --- exhibits ------------------------------------------------------------------------------------------------------------


def everything():
    data = [{"task": "pydocs/topic", "split": s, "samples": n, "tokens_mean": 9.5, "classes": 8, "metric": "accuracy"}
            for s, n in (("train", 2000), ("validation", 500), ("test", 1500))]
    return [record(made() + spans(), data=data)]


def test_per_class_table_puts_the_theses_row_at_the_class_its_numbers_allow():
    names = {"a": "anger", "b": "joy", "c": "optimism", "d": "sadness", "e": "other"}
    rows = [r | {"task": "tweet_eval/emotion", "recalls": {names[c]: v for c, v in r["recalls"].items()}} for r in made()]
    table = domain_expertise.exhibit("table5_6", [record(rows, tier="small")]).content.set_index(["class", "source"])
    assert table.loc[("optimism", "thesis"), "average logits"] == "17.1"
    assert table.loc[("optimism", "thesis"), "printed as"] == "Anger"
    assert table.loc[("optimism", "small tier"), "our approach"].startswith("73.")
    assert list(table.index[:2]) == [("anger", "small tier"), ("anger", "thesis")]


def test_median_table_has_the_printed_medians_beside_ours():
    table = domain_expertise.exhibit("table5_5", everything()).content.set_index(["student", "source"])
    assert table.loc[("our approach", "thesis"), "BERT"] == "+1.30"
    ours = table.loc[("our approach", "demo tier: pydocs/topic (stand-in)"), "BERT"]
    assert float(ours.split(" ± ")[0]) == pytest.approx(3.0, abs=0.2)
    assert table.loc[("our approach", "thesis"), "DeBERTa"] == "-"


def test_table_5_1_reports_validation_and_keeps_the_excluded_teacher():
    rows = made(task="tweet_eval/sentiment")
    rows = [r for r in rows if r["model"] != TEACHERS[2]]
    rows += [row("finetuned", recalls={}, score=0.45, model="microsoft/deberta-base", task="tweet_eval/sentiment", repeat=i)
             for i in range(4)]
    table = domain_expertise.exhibit("table5_1", [record(rows)]).content.set_index(["data set", "source"])
    assert table.loc[("Twitter-Sentiment", "demo tier"), "DeBERTa"] == "46.0 ± 0.0"
    assert table.loc[("Twitter-Sentiment", "thesis"), "DeBERTa"] == "45.1"
    assert table.loc[("MIND", "thesis"), "average logits"] == "81.9"
    assert table.loc[("Twitter-Sentiment", "demo tier"), "BERT"] == "71.0 ± 0.0"


def test_figures_draw_our_means_and_the_theses_differences():
    exhibit = domain_expertise.exhibit("fig5_4", everything())
    assert exhibit.png() == domain_expertise.exhibit("fig5_4", everything()).png()
    figure = exhibit.content
    heights = [sorted(round(bar.get_height(), 1) for bar in axis.patches if bar.get_width()) for axis in figure.axes]
    assert heights[1] == sorted(published_differences("MIND").query("role == 'BERT'")["difference"].round(1))
    assert len(heights[0]) == 15
    assert max(heights[0]) == pytest.approx(4.0, abs=0.2)  # average logits on the class that its unevenness favours


def test_span_tables():
    table = domain_expertise.exhibit("table5_11", everything()).content
    ours, theirs = (part.set_index(["student", "loss"]) for part in (table[table["source"] != "thesis"],
                                                                      table[table["source"] == "thesis"]))
    assert set(ours["stands for"]) == set(ours["thesis's F1"]) == {"-"}  # a stand-in: no number of the thesis beside it
    assert theirs.loc[("BERT-base", "Student loss + Distillation loss"), "thesis's F1"] == "78"
    assert theirs.loc[("DistilBERT-SQuAD", "Student loss + CA-MKD"), "thesis's F1"] == "81"
    third = "Student loss + Distillation loss + Teacher loss"
    assert theirs.loc[("BERT-base", third), "thesis's F1"] == "not reported"
    assert ours.loc[("plain model", third), "F1"] == ours.loc[("plain model", "Student loss + Distillation loss"), "F1"]
    listed = domain_expertise.exhibit("table5_10", everything()).content
    assert list(listed[listed["source"] == "thesis"]["thesis's F1"]) == ["74", "80", "82", "83", "88"]
    names = {"google-bert/bert-base-uncased": "BERT-Base-Uncased", "microsoft/deberta-v3-large": "deberta-v3-large",
             "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract": "biomednlp-pubmedbert-base-uncased"}
    called = papers.raw(PAPER)["exhibits"]["table5_10"]["models"]
    assert {hub: called[domain_expertise_tables.short(hub)] for hub in names} == names


def test_table_5_11_has_the_theses_numbers_beside_its_own_students_only():
    """On NBME the plain student is another model than the thesis's BERT-base; the tuned one is the thesis's."""
    names = {"plain model": "distilbert/distilbert-base-uncased",
             "tuned model": "distilbert/distilbert-base-uncased-distilled-squad"}
    rows = [r | {"task": "nbme", "model": names.get(r["model"], r["model"])} for r in spans()]
    table = domain_expertise.exhibit("table5_11", [record(rows, tier="paper")]).content
    plain, tuned = (table[table["student"] == name] for name in names.values())
    assert set(plain["stands for"]) == set(plain["thesis's F1"]) == {"-"}
    assert list(tuned["thesis's F1"]) == ["82", "81", "not reported"]
    assert set(tuned["stands for"]) == {"DistilBERT-SQuAD"}
    theirs = table[table["source"] == "thesis"]
    assert set(theirs["student"]) == {"BERT-base"}
    assert list(theirs["thesis's F1"]) == ["78", "74", "not reported"]
    bert = [r | {"model": "google-bert/bert-base-uncased"} for r in rows if r["start"] == "plain"]
    table = domain_expertise.exhibit("table5_11", [record(bert, tier="paper")]).content
    assert list(table[table["stands for"] == "BERT-base"]["F1"].str[:2]) == ["60", "57", "60"]


def sized(task, train, models, kinds=("teacher", "undistilled"), repeats=1, **parameters):
    """A record that counts `train` samples of a task and holds one row per model and kind."""
    data = [{"task": task, "split": split, "samples": n, "tokens_mean": 9.0, "classes": 4, "metric": "accuracy"}
            for split, n in (("train", train), ("validation", 64), ("test", 64))]
    rows = [row(kind, "expertise" if kind == "student" else None, {}, task=task, model=model, repeat=r, layers=12,
                position=0 if kind == "teacher" else None)
            for r in range(repeats) for kind in kinds for model in models]
    return record(rows, tier="paper", data=data, parameters=parameters)


BUILT = sized("tweet_eval/emotion", 64, ["google-bert/bert-base-uncased"], train_size=64)            # as table4_2.yaml has it
COUNTED = sized("tweet_eval/emotion", 3257, ["scratch-1x64"], teacher_epochs=1)                      # as table4_1.yaml has it


@pytest.mark.parametrize("records", [[BUILT, COUNTED], [COUNTED, BUILT]], ids=["built, counted", "counted, built"])
def test_tables_4_1_and_4_2_do_not_spoil_each_other(records):
    sizes = domain_expertise.exhibit("table4_1", records).content.set_index("task")
    assert sizes.loc["tweet_eval/emotion", "samples"] == "3257 / 64 / 64"
    models = domain_expertise.exhibit("table4_2", records).content
    assert set(models["model"]) == {"google-bert/bert-base-uncased"}


def test_table_4_2_shows_the_models_of_runs_that_distilled():
    made_here = sized("tweet_eval/emotion", 900, ["my/model"], ("teacher", "undistilled", "student"), train_size=900)
    models = domain_expertise.exhibit("table4_2", [COUNTED, made_here, BUILT]).content
    assert set(models["model"]) == {"google-bert/bert-base-uncased", "my/model"}
    assert domain_expertise.exhibit("table4_2", [COUNTED]).missing


def test_figures_of_twitter_emotion_name_the_same_class_in_both_panels():
    names = {"a": "anger", "b": "joy", "c": "optimism", "d": "sadness"}
    rows = [r | {"task": "tweet_eval/emotion", "recalls": {names[c]: v for c, v in r["recalls"].items() if c in names}}
            for r in made()]
    ours, theirs = domain_expertise.exhibit("fig5_6", [record(rows, tier="small")]).content.axes
    labels = [[label.get_text() for label in axis.get_xticklabels()] for axis in (ours, theirs)]
    assert labels[0] == labels[1] == [
        "anger\n(printed Sadness)", "joy", "optimism\n(printed Anger)", "sadness\n(printed Optimism)"]
    average = [bar.get_height() for bar in theirs.patches if bar.get_width()][4:8]  # the second student, class by class
    assert average[2] == pytest.approx(17.1 - 52)


def test_training_sizes_are_those_of_the_records():
    assert domain_expertise.training_sizes([]) == ""
    assert domain_expertise.training_sizes([*everything(), BUILT, COUNTED]) == (
        "demo tier: pydocs/topic (2000 training samples); paper tier: tweet_eval/emotion (64 or 3257 training samples)")


def test_controls_and_choices_are_paired_over_repeats():
    controls = domain_expertise.exhibit("controls", everything()).content
    line = controls[(controls["task"] == "pydocs/topic") & (controls["control"] == "plain CE, same compute")].iloc[0]
    assert float(line["difference"]) == pytest.approx(8.0, abs=0.2)
    assert line["repeats"] == 8
    choices = domain_expertise.exhibit("choices", everything()).content.set_index("instead")
    assert float(choices.loc["average logits", "difference"]) == pytest.approx(5.0, abs=0.2)
    assert "our approach, temperature 2" in choices.index


def test_summary_has_a_line_per_student():
    table = domain_expertise.summary(everything()).sort_values("task", ascending=False, kind="stable", ignore_index=True)
    assert list(table["task"]) == ["pydocs/topic", "pydocs/span", "pydocs/span"]
    assert table["student"].tolist() == ["fine-tuned", "fine-tuned", "fine-tuned after a related task"]
    assert table.loc[0, "our approach"].startswith("73.0")
    assert not table.isna().any().any()


# --- exercises -----------------------------------------------------------------------------------------------------------


def test_exercise_answers():
    def rule(predictions, best, accuracy):
        followed = []
        for said in predictions.tolist():
            experts = [t for t, c in enumerate(said) if best[c] == t]
            followed.append(experts[0] if len(experts) == 1 else int(accuracy.argmax()))
        return followed

    def among_the_experts(predictions, best, accuracy):
        followed = []
        for said in predictions.tolist():
            experts = [t for t, c in enumerate(said) if best[c] == t] or list(range(len(accuracy)))
            followed.append(max(experts, key=lambda t: float(accuracy[t])))
        return followed

    def shares(recalls, predictions):
        return (recalls / recalls.sum(0)).T[predictions]

    right = {"1": [0, 2, 1, 2], "2": rule, "3": "Optimism", "4": shares}
    wrong = {"1": [0, 0, 1, 2], "2": among_the_experts, "3": "anger", "4": lambda r, p: r.T[p]}
    for name, answer in right.items():
        assert CELLS.exercises.check(name, answer) == f"exercise {name}: correct"
        assert CELLS.exercises.check(name, wrong[name]) == f"exercise {name}: not yet"
    assert CELLS.printable(71.2, 66)
    assert not CELLS.printable(71.3, 66)
