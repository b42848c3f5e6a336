"""What the five studies share: seeds, training subsets by replicate, what is refused and when, the table of the data."""

import pytest
from conftest import make_text_task
from tiny_studies import NAMES, PAIR, SPAN, parameters, study_of, tiny  # noqa: F401

from mtkd import study
from mtkd.errors import KitError
from mtkd.papers import PAPERS
from mtkd.train import loop


@pytest.mark.parametrize("paper", PAPERS)
def test_no_two_replicates_nor_teacher_and_student_share_a_seed(paper):
    replicates = {"pools" if paper == "seed_ensemble" else "repeats": [0, 1, 2]}
    e = study_of(paper, **replicates)
    assert e.seeds() == sorted({e.seed_of(r, n) for r in (0, 1, 2) for n in e.numbers})
    assert len(e.seeds()) == 3 * len(e.numbers)
    assert not set(e.seeds()) & set(study_of(paper, seed=1, **replicates).seeds())


@pytest.mark.parametrize("paper", PAPERS)
def test_every_replicate_has_its_own_training_subset_and_students(paper):
    e = study_of(paper, train_size=30, **{"pools" if paper == "seed_ensemble" else "repeats": [0, 1]})
    first, second = (e.drawn(r) for r in (0, 1))
    assert len(first.splits["train"]) == len(second.splits["train"]) == 30
    assert set(first.splits["train"].ids) != set(second.splits["train"].ids)
    assert first.splits["test"].ids == second.splits["test"].ids
    assert e.prepared_for(1) is e.prepared_for(1)  # tokenised once
    assert [s.replicate for s in e.students(1)] == [1] * len(e.students(0))
    assert len(set(e.students(0))) == len(e.students(0))


@pytest.mark.parametrize("paper", ["mt_bert", "rl_kd", "seed_ensemble", "domain_expertise"])
def test_the_table_of_the_data_counts_samples_and_words(paper):
    rows = study_of(paper).data_rows()
    assert [(r["split"], r["samples"]) for r in rows] == [("train", 60), ("validation", 24), ("test", 30)]
    assert {r["classes"] for r in rows} == {3}
    words = [len(t.split()) for (t,) in make_text_task().splits["train"].inputs]
    assert rows[0]["tokens_mean"] == pytest.approx(sum(words) / 60)


def test_images_have_no_words():
    e = study_of("seed_ensemble", arm="resnet", task="tiny image", teacher="resnet-8w8", student="resnet-8w4")
    assert e.data_rows()[0]["tokens_mean"] is None


MT, RL, SEED, TMKD, DOMAIN = "mt_bert", "rl_kd", "seed_ensemble", "tmkd", "domain_expertise"
REFUSED = [
    *((paper, {"repeats": given}, f"repeats must be different numbers, at least one, and are {given}.")
      for paper in (MT, RL, TMKD, DOMAIN) for given in ([], [1, 0, 1])),
    (SEED, {"pools": [0, 0]}, "pools must be different numbers, at least one, and are [0, 0]."),
    *((paper, {"weak_teachers": "go"}, "weak_teachers is 'go'; there are stop, mark.") for paper in PAPERS),
    (MT, {"student_init": "scratch"}, "student_init is 'scratch'; there are teacher, pretrained."),
    (MT, {"student_head": "old"}, "student_head is 'old'; there are shared, new."),
    (MT, {"pooler": "max"}, "pooler is 'max'; there are attentive, mean, cls."),
    (MT, {"combination_start": "unilm"}, "combination_start is 'unilm'; there are own, fixed."),
    (MT, {"sections": ["main", "table2"]}, "no such section: 'table2'; there are main, combinations"),
    (MT, {"student_from": 3}, "student_from is 3, and there are 3 teachers."),
    (MT, {"baseline_teacher": -4}, "baseline_teacher is -4, and there are 3 teachers."),
    (MT, {"student_depths": []}, "there must be at least one teacher and one student depth of at least 1."),
    (MT, {"student_depths": [1, 1]}, "student_depths is [1, 1], in which one number comes twice."),
    (MT, {"teachers": ["scratch-2x16", "scratch-2x16h2"]}, "the teachers must differ, in their short names too"),
    (MT, {"teachers": [NAMES[0], "said.parquet"]}, "student_from names a table of logits, which has no layers"),
    (MT, {"combination_start": "fixed", "teachers": [NAMES[0], "finished:here"]}, "is a finished teacher: name the model that"),
    (MT, {"temperature": 0.0}, "temperature is 0, and it must be above 0."),
    (MT, {"query_size": 0}, "query_size is 0, and an attention query needs a size of at least 1."),
    (MT, {"task_weight": 0.0, "distillation_weight": 0.0}, "task_weight and distillation_weight are both 0; the student's"),
    (MT, {"distillation_weight": 0.0}, "the section ablations leaves out the task loss and the distillation loss in turn"),
    (MT, {"hidden_weight": -1.0}, "hidden_weight is -1, and a weight cannot be below 0."),
    (RL, {"sections": ["main", "table2"]}, "no such entry of sections: 'table2'; there are main, readings."),
    (RL, {"controls": ["plain_ce", "frozen"]}, "no such entry of controls: 'frozen'; there are average_again"),
    (RL, {"teachers": PAIR[:1]}, "choosing teachers needs at least two of them, a learning rate for them, and a student."),
    (RL, {"students": []}, "and a student."),
    (RL, {"teachers": ["scratch-2x16", "scratch-2x16h2"]}, "the teachers must differ, in their short names too"),
    (RL, {"students": ["scratch-1x16h2"] * 2}, "the students must differ, in their short names too"),
    (RL, {"alpha": 1.5}, "alpha is the distillation loss's share and lies between 0 and 1, not at 1.5."),
    (RL, {"temperature": 0.0}, "the temperature must be above 0, and is 0."),
    (SEED, {"arm": "minibert"}, "no such arm: 'minibert'; there are tinybert, distilbert, resnet."),
    (SEED, {"n_teachers": 0}, "n_teachers and repeats must be at least 1."),
    (SEED, {"repeats": 0}, "n_teachers and repeats must be at least 1."),
    (SEED, {"student_seeds": "random"}, "student_seeds is 'per_primary' or 'shared', not 'random'."),
    (SEED, {"intermediate_epochs": 0}, "the tinybert arm needs an intermediate stage: set intermediate_epochs above 0."),
    *((TMKD, {name: ["main", "table4"]}, "no such section: 'table4'; there are main, stages")
      for name in ("sections", "transfer_sections", "ranking")),
    (TMKD, {"teacher_lrs": [1e-3]}, "a learning rate per teacher, or none at all, and there are 3 teachers and 1 teacher_lrs."),
    (TMKD, {"teachers": ["finished:x", "a", "b"]}, "a finished teacher knows one task only: leave transfer empty"),
    (TMKD, {"teachers": ["said.csv"] * 3}, "a finished teacher knows one task only"),
    (TMKD, {"transfer": ["tiny/text"]}, "task and transfer must name different tasks."),
    (TMKD, {"heads_after_pool": "old"}, "heads_after_pool is 'old'; there are kept, new."),
    (TMKD, {"pool_sizes": [40, 20]}, "pool_sizes must grow and be at least 1, not [40, 20]."),
    (TMKD, {"bilstm": "lstm-1x8"}, "bilstm is 'lstm-1x8', which names no Bi-LSTM (bilstm-2x256e300)."),
    (DOMAIN, {"arm": "spans"}, "no such arm: 'spans'; there are classes, span."),
    (DOMAIN, {"teachers": []}, "name at least one teacher."),
    (DOMAIN, {"teachers": ["minilm", "minilm"]}, "every teacher must be another one: minilm, minilm."),
    (DOMAIN, {"also_finetuned": ["a", "a"]}, "every model fine-tuned beside the teachers must be another one: a, a."),
    (DOMAIN, {"teacher_lrs": [1e-3]}, "teacher_lrs has 1 learning rates for 2 teachers."),
    (DOMAIN, {"temperatures": [0.0]}, "name at least one temperature above 0; the first is the run's own."),
    *((DOMAIN, {"alpha": alpha}, "alpha, the weight of the loss on labels, is between 0 and 1; this one is")
      for alpha in (1.2, -0.1, float("nan"))),
    (DOMAIN, {"sections": ["all"]}, "no such section: 'all'; there are methods, others"),
    (DOMAIN, {"several": "best"}, "several is overall or matched, not 'best'."),
    (DOMAIN, {"ties": "first"}, "ties is random or overall, not 'first'."),
    (DOMAIN, {"camkd_combine": "heads"}, "camkd_combine is losses or logits, not 'heads'."),
    (DOMAIN, {"tuned_student": "other questions"}, "tuned_student 'other questions' needs questions: how many"),
    (DOMAIN, {"tuned_student": "scratch-1x16"}, "the arm 'classes' has one student: tuned_student is for the arm 'span'."),
    (DOMAIN, {"arm": "span", "teachers": ["said.parquet", "minilm"]}, "said.parquet is a table of logits with one row per"),
    *((DOMAIN, {"margin": margin}, "margin, the difference that counts as none, is above 0") for margin in (0.0, float("nan"))),
]
ODD = [  # refused when the task is read
    *((RL, {"task": kind}, f"a policy chooses among teachers that classify texts, and the task {kind} is another.")
      for kind in ("regression", "span", "image")),
    *((TMKD, {"pool_sizes": [], **where}, f"TMKD needs tasks that sort a text, or a pair of texts, into classes, and '{kind}'")
      for kind in ("regression", "span", "image") for where in ({"task": kind}, {"transfer": [kind]})),
    (TMKD, {"pool_sizes": [500]}, "has 40 rows, and a pool of 500 was asked for"),
    (DOMAIN, SPAN | {"task": "tiny"}, "the arm 'span' marks words, and the task tiny has none marked: use the arm 'classes'."),
    (DOMAIN, SPAN | {"task": "tiny/regression"}, "use the arm 'classes'."),
    (DOMAIN, {"task": "tiny/span"}, "the arm 'classes' needs a class per sample, and the task tiny/span marks words: use"),
    (DOMAIN, {"task": "tiny/regression"}, "is a regression: it has no classes that a teacher could be an expert of."),
    (DOMAIN, {"questions": 1}, "questions is 1, and tiny/classes has no questions: some must be asked and some left out."),
    (DOMAIN, SPAN | {"questions": 3}, "questions is 3, and tiny/span has 3 questions: some must be asked and some left out."),
    (SEED, {"general_text": "no/such.txt"}, "the text no/such.txt cannot be read: No such file or directory."),
    (SEED, {"general_text": "/dev/null"}, "the text /dev/null is empty."),
]


@pytest.mark.parametrize(("paper", "changes", "says"), REFUSED)
def test_parameters_that_contradict_each_other_are_refused(paper, changes, says, monkeypatch):
    monkeypatch.setattr(study, "load_task", lambda *a, **k: pytest.fail("data were read first"))
    with pytest.raises(KitError) as refused:
        study_of(paper, **changes)
    assert says in str(refused.value)


@pytest.mark.parametrize(("paper", "changes", "says"), ODD)
def test_tasks_that_do_not_fit_are_refused_before_anything_is_trained(paper, changes, says, monkeypatch):
    monkeypatch.setattr(loop, "fit", lambda *a, **k: pytest.fail("something was trained"))
    e = study_of(paper, **changes)
    for ask in (e.data_rows, e.data_rows, e.jobs()[0][-1]):  # not only when it is asked first
        with pytest.raises(KitError) as refused:
            ask()
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)


def test_parameters_are_a_study_s_own_attributes_for_notebooks():
    e = study_of("mt_bert")
    assert e.teachers == tuple(parameters("mt_bert")["teachers"])
    with pytest.raises(AttributeError):
        _ = e.no_such_parameter
