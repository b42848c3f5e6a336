"""Students with several heads (tmkd): Eq. 3 to 6 by hand, who follows whom, what is saved, what is reset, who predicts."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.testing import assert_close

from mtkd.data.tasks import Split, Task
from mtkd.errors import KitError
from mtkd.measure import metrics as evaluate
from mtkd.models import names as models
from mtkd.models.heads import HeadsNetwork, Voter, classes_of, golden_path, renew, vote
from mtkd.models.networks import Outputs
from mtkd.rules import matching as terms
from mtkd.rules.selection import Primary, Uniform
from mtkd.tokens.batches import Batch
from mtkd.train import distil, recipes, teachers
from mtkd.train import loop as train
from mtkd.train.outputs import StoredOutputs, TeacherBatch
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation, Recipe, Stage, Term

CPU = torch.device("cpu")
OPT = Optimisation(epochs=2, batch_size=8, lr=5e-3, keep="last", weight_decay=0)
TEACHER, STUDENT = "scratch-1x32", "scratch-1x16"
FAMILIES = ["scratch-1x32", "distilbert-scratch-1x32", "roberta-scratch-1x32", "albert-scratch-2x32", "xlnet-scratch-1x32",
            "deberta-scratch-1x32", "deberta-v3-scratch-1x32", "electra-scratch-1x32", "mpnet-scratch-1x32", "bilstm-2x16e8"]


def soft(weight=1.0, selection=None, combine="heads"):
    return Term("logit_mse", selection or Uniform(), combine=combine, weight=weight)


def first_stage(opt=OPT, data="unlabelled"):
    """Eq. 4 alone."""
    return Recipe("stage 1", (Stage("pre-training", (soft(),), opt, data),), predictor="heads")


def second_stage(alpha=0.9, opt=OPT, reset=(), predictor="heads", combine="heads", selection=None):
    """Eq. 5."""
    terms_ = (Term("cross_entropy", weight=1 - alpha), soft(alpha, selection, combine))
    return Recipe("stage 2", (Stage("task", terms_, opt, reset=reset),), predictor=predictor)


def some_inputs(n=3, length=7, vocab=60):
    ids = torch.randint(9, vocab, (n, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, length // 2:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def run(network, inputs=None):
    network.eval()
    with torch.no_grad():
        return network(inputs or some_inputs())


@pytest.fixture(scope="module")
def pooled_task(text_task) -> Task:
    return replace(text_task, name="tiny/pooled", splits={
        **text_task.splits, "unlabelled": replace(text_task.splits["train"], labels=np.full(60, -1))})


@pytest.fixture(scope="module")
def two_classes(text_task) -> Task:
    """Is the sentence about the sea?"""
    splits = {name: Split(s.ids, s.inputs, (s.labels == 0).astype(np.int64)) for name, s in text_task.splits.items()}
    return Task("tiny/sea", "text", ("other", "sea"), splits, "accuracy", ("accuracy", "f1"))


# --- the equations -------------------------------------------------------------------------------------------------------


def loss_of(stage, out, said, labels, heads=2, n=2):
    """The loss of a stage on one batch, as the loop adds it up."""
    modules, _, _ = terms.prepare_stage(stage, terms.Setting({}, [{}] * n, heads=heads))
    batch = Batch(np.arange(len(labels)), {}, labels)
    total = 0.0
    for term, module in zip(stage.terms, modules):
        weights = None if term.selection is None else term.selection.weights(batch, said, 0, None)
        total = total + term.weight * train.batch_mean(module(out, said, batch, weights), None)
    return total


@pytest.mark.parametrize(("recipe", "golden", "label", "expected"), [
    (first_stage(), [99.0, -99.0], -1, 3.5),                    # Eq. 4: l_s1 = (1 + 9) / 2, l_s2 = (4 + 0) / 2, their mean
    (second_stage(0.25), [0.0, math.log(3.0)], 0, 0.75 * math.log(4) + 0.25 * 3.5),                    # Eq. 5: CE = ln 4
])
def test_eq_4_and_5_by_hand(recipe, golden, label, expected):
    out = Outputs(torch.tensor([golden]), heads=torch.tensor([[[1.0, 0.0], [2.0, 2.0]]]))
    said = TeacherBatch(torch.tensor([[[0.0, 3.0], [0.0, 2.0]]]))
    assert loss_of(recipe.stages[0], out, said, torch.tensor([label])).item() == pytest.approx(expected)


def test_eq_6_by_hand():
    """Probabilities of class 0: golden 1/2, heads 3/4 and 1/4 + 1/2 = 3/4 by logits (ln 3, 0) and (0, -ln 3)."""
    golden, ln3 = torch.tensor([[0.0, 0.0]]), math.log(3.0)
    heads = torch.tensor([[[ln3, 0.0], [0.0, -ln3]]])
    assert_close(vote(golden, heads).exp(), torch.tensor([[(0.5 + 0.75 + 0.75) / 3, (0.5 + 0.25 + 0.25) / 3]]))
    assert_close(vote(golden, heads, "soft_heads").exp(), torch.tensor([[0.75, 0.25]]))
    assert vote(golden, heads, "one_model") is golden


def test_a_vote_of_equals_changes_nothing_and_order_does_not_matter():
    golden, heads = torch.randn(5, 4), torch.randn(5, 3, 4)
    assert_close(vote(golden, golden.unsqueeze(1).expand(5, 3, 4)), golden.log_softmax(-1))
    assert_close(vote(golden, heads), vote(golden, heads[:, [2, 0, 1]]))
    assert_close(vote(golden, heads).exp().sum(-1), torch.ones(5))
    every = torch.cat([golden.unsqueeze(1), heads], 1)
    ensemble = evaluate.ensemble_logits(every.transpose(0, 1).numpy(), "probabilities")
    assert_close(vote(golden, heads), torch.from_numpy(ensemble).float())


def test_a_vote_of_values_is_their_mean_and_one_of_extremes_is_finite():
    assert_close(vote(torch.tensor([[1.0]]), torch.tensor([[[4.0], [7.0]]])), torch.tensor([[4.0]]))
    found = vote(torch.tensor([[1e4, -1e4]]), torch.tensor([[[-1e4, 1e4]]]))
    assert_close(found.exp(), torch.tensor([[0.5, 0.5]]))


def test_one_head_follows_the_mean_of_the_followed_teachers_logits():
    """1avg-o-1: teachers say (0, 3) and (4, 1), their mean is (2, 2); 1-o-1 follows the first alone."""
    out = Outputs(torch.tensor([[99.0, -99.0]]), heads=torch.tensor([[[1.0, 0.0]]]))
    said = TeacherBatch(torch.tensor([[[0.0, 3.0], [4.0, 1.0]]]))
    for selection, expected in ((Uniform(), (1 + 4) / 2), (Primary(0), (1 + 9) / 2), (Primary(1), (9 + 1) / 2)):
        stage = Stage("s", (soft(1.0, selection, "one_head"),))
        assert loss_of(stage, out, said, torch.tensor([0]), heads=1).item() == pytest.approx(expected)


# --- the network ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_students_load_with_plain_transformers_and_with_every_head(name, tmp_path):
    """AutoModelForSequenceClassification gives encoder and golden head exactly; models.load all heads exactly."""
    network = models.build(f"{name} + heads-3", 4, seed=0, vocab=60, labels=("a", "b", "c", "d"))
    network.soft[1].load_state_dict(network.golden.state_dict())
    out = run(network)
    assert (out.logits.shape, out.heads.shape) == ((3, 4), (3, 3, 4))
    assert torch.equal(out.heads[:, 1], out.logits)  # the same weights say the same: all heads read the same vector
    assert not torch.equal(out.heads[:, 0], out.logits)
    network.predictor = "heads"
    network.save(tmp_path)
    again = models.load(tmp_path)
    found = run(again)
    assert (again.n_heads, again.predictor, again.shape) == (3, "heads", network.shape)
    assert torch.equal(found.logits, out.logits)
    assert torch.equal(found.heads, out.heads)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(run(models.TextNetwork(plain)).logits, out.logits)
    assert list(plain.config.id2label.values()) == ["a", "b", "c", "d"]
    assert not [k for k in plain.state_dict() if "soft" in k or "heads" in k]


@pytest.mark.parametrize("name", ["scratch-1x32", "distilbert-scratch-1x32"])
def test_the_encoder_and_the_golden_head_are_those_of_the_plain_name(name):
    """Soft heads are drawn after everything else: the same seed gives the same student with and without them."""
    with_heads, plain = models.build(f"{name} + heads-2", 3, seed=5, vocab=60), models.build(name, 3, seed=5, vocab=60)
    for key, value in plain.state_dict().items():
        assert torch.equal(with_heads.base.state_dict()[key], value)
    assert models.count_parameters(with_heads) == models.count_parameters(plain) + 2 * (32 * 3 + 3)
    other = models.build(f"{name} + heads-2", 3, seed=6, vocab=60)
    assert not torch.equal(with_heads.soft[0].weight, other.soft[0].weight)
    assert not torch.equal(with_heads.soft[0].weight, with_heads.soft[1].weight)


def test_the_kits_own_pooler_and_token_heads_can_carry_soft_heads(tmp_path):
    network = models.build("scratch-1x32 + attentive-8 + heads-2", 3, seed=0, vocab=60, labels=("a", "b", "c"))
    network.save(tmp_path)
    out, found = run(network), run(models.load(tmp_path))
    assert torch.equal(found.logits, out.logits)
    assert torch.equal(found.heads, out.heads)
    network = models.build("scratch-1x32 + heads-2", 3, seed=0, vocab=60, per_token=True)
    assert run(network).heads.shape == (3, 7, 2, 3)


def test_missing_or_foreign_heads_are_told(tmp_path):
    network = models.build("scratch-1x32 + heads-2", 3, seed=0, vocab=60)
    network.save(tmp_path)
    (tmp_path / "heads.safetensors").rename(tmp_path / "away")
    with pytest.raises(KitError, match=r"there is no heads\.safetensors"):
        models.load(tmp_path)
    (tmp_path / "away").rename(tmp_path / "heads.safetensors")
    (tmp_path / "heads.json").write_text(json.dumps({"heads": 3, "predictor": "heads"}))
    with pytest.raises(KitError, match="do not fit the model beside them"):
        models.load(tmp_path)


class Picks(nn.Module):
    """As GPT-like classifiers do: logits of all tokens, and one of them."""

    kind, shape = "text", {}

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(4, 2)

    def forward(self, inputs, want=frozenset()):
        return Outputs(self.score(inputs["states"])[:, -1])


def test_models_that_cannot_carry_soft_heads_are_told():
    with pytest.raises(KitError, match="no linear layer behind its encoder"):
        golden_path(nn.Identity())
    with pytest.raises(KitError, match="reads every token before it picks one"):
        HeadsNetwork(Picks(), 2)({"states": torch.randn(3, 5, 4)})


# --- gradients, and who follows whom -------------------------------------------------------------------------------------


def has_gradient(module):
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_each_loss_trains_its_own_head_and_the_encoder():
    said = TeacherBatch(torch.randn(3, 2, 4, requires_grad=True))
    for stage, labels, golden, softs in (
            (first_stage().stages[0], torch.full((3,), -1), False, True),
            (second_stage(0.0).stages[0], torch.tensor([0, 1, 2]), True, False),
            (second_stage(0.5).stages[0], torch.tensor([0, 1, 2]), True, True)):
        network = models.build("scratch-1x32 + heads-2", 4, seed=0, vocab=60)
        loss_of(stage, network(some_inputs()), TeacherBatch(said.logits.detach()), labels).backward()
        assert has_gradient(network.golden) == golden
        assert [has_gradient(h) for h in network.soft] == [softs, softs]
        assert has_gradient(network.hf.base_model)


def test_each_soft_head_becomes_its_own_teacher(text_task):
    """Three teachers that contradict each other: teacher t says class (label + t) mod 3."""
    prepared = prepare(text_task, STUDENT, vocab=200)
    data = prepared.data("train")
    shifted = torch.stack([(torch.from_numpy(data.labels) + t) % 3 for t in range(3)], 1)                  # [n, T]
    said = StoredOutputs(data, 4.0 * nn.functional.one_hot(shifted, 3).float())
    network = models.build(f"{STUDENT} + heads-3", 3, seed=0, vocab=prepared.vocab)
    stage = second_stage(0.9, replace(OPT, epochs=25, lr=1e-2)).stages[0]
    modules, _, want = terms.prepare_stage(stage, terms.Setting(network.shape, [network.shape] * 3, heads=3))
    train.fit(network, data, stage, modules, said, want=want, seed=0, device=CPU)
    out = run(network, data.batch(np.arange(len(data))).inputs)
    agree = (out.heads.argmax(-1).unsqueeze(-1) == shifted.unsqueeze(1)).float().mean(0)                  # [head, teacher]
    assert agree.diagonal().min() > 0.9
    assert (agree - torch.diag(agree.diagonal())).max() < 0.1
    assert (out.logits.argmax(-1) == shifted[:, 0]).float().mean() > 0.9  # the golden head follows the labels
    assert vote(out.logits, out.heads).exp().max() < 0.7  # and the vote of four that disagree is split


def test_stage_1_leaves_the_golden_head_as_it_was_drawn(pooled_task):
    """A head without a gradient stays in the optimiser and in the clipped norm, and neither breaks nor moves."""
    prepared = prepare(pooled_task, STUDENT, vocab=200)
    pool = distil.finetune(prepared, TEACHER, range(2), OPT)
    opt = replace(OPT, weight_decay=0.1, clip=1.0)
    student = distil.distill(prepared, pool, f"{STUDENT} + heads-2", first_stage(opt))
    fresh = models.build(f"{STUDENT} + heads-2", 3, seed=0, vocab=prepared.vocab)
    network = student.network()
    assert torch.equal(network.golden.weight, fresh.golden.weight)
    assert not torch.equal(network.soft[0].weight, fresh.soft[0].weight)
    assert network.predictor == "soft_heads"  # the golden head has learned nothing and has no vote
    ends = student.info["history"]["losses"]["logit_mse"]
    assert ends[1] < ends[0]


# --- stages: reset, another task, sharing --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES[1:6:2])
def test_new_heads_of_another_size_on_the_same_encoder(name, tmp_path):
    network = models.build(f"{name} + heads-3", 3, seed=0, vocab=60, labels=("a", "b", "c"))
    kept = {k: v.clone() for k, v in network.hf.base_model.state_dict().items()}
    made = renew(network, 2, 5, seed=1, labels=tuple("vwxyz"))
    assert all(torch.equal(v, kept[k]) for k, v in made.hf.base_model.state_dict().items())
    made.save(tmp_path)
    out = run(models.load(tmp_path))
    assert (out.logits.shape, out.heads.shape) == ((3, 5), (3, 2, 5))
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert (plain.config.num_labels, plain.config.id2label[4], plain.config.label2id["w"]) == (5, "z", 1)
    assert torch.equal(run(models.TextNetwork(plain)).logits, out.logits)


def test_new_heads_come_from_the_seed_and_fit_the_task():
    def made(seed, n=2):
        return renew(models.build("scratch-1x32 + heads-3", 3, seed=0, vocab=60), n, 3, seed=seed)

    a, b, c = made(1), made(1), made(2)
    assert torch.equal(a.golden.weight, b.golden.weight)
    assert torch.equal(a.soft[1].weight, b.soft[1].weight)
    assert not torch.equal(a.golden.weight, c.golden.weight)
    assert type(made(1, 0)) is type(a.base)  # without soft heads
    network = renew(models.build("scratch-1x32 + attentive", 3, seed=0, vocab=60, labels=("a", "b", "c")), 1, 2, seed=1,
                    labels=("no", "yes"))
    assert classes_of(network.base) == ("no", "yes")
    assert run(network).heads.shape == (3, 1, 2)
    values = renew(models.build("scratch-1x32", 3, seed=0, vocab=60), 0, 1, seed=1, regression=True)
    assert (values.hf.config.num_labels, values.hf.config.problem_type) == (1, "regression")
    with pytest.raises(KitError, match="reads images"):
        renew(models.build("resnet-8w8", 3, seed=0), 0, 2, seed=0)


@pytest.mark.parametrize("student", [STUDENT, f"{STUDENT} + mean"])
def test_two_downstream_tasks_share_one_stage_1(pooled_task, two_classes, pair_task, monkeypatch, student):
    """Stage 1's key does not hold what comes after it: trained once, found again, and each stage 2 starts from its encoder."""
    name = f"{student} + heads-2"
    first = prepare(pooled_task, STUDENT, vocab=200)
    qa = distil.finetune(first, TEACHER, range(2), OPT)
    trained = []
    fit = train.fit
    monkeypatch.setattr(train, "fit", lambda *a, **k: trained.append(k["label"]) or fit(*a, **k))
    starts = []
    for task in (two_classes, pair_task):
        start = distil.distill(first, qa, name, first_stage())
        starts.append(start)
        prepared = first.with_task(task)
        assert prepared.fingerprint == first.fingerprint
        own = distil.finetune(prepared, TEACHER, range(2), OPT)
        student = distil.distill(prepared, own, name, second_stage(reset=("heads",)), start=start)
        network, before = student.network(), start.network()
        assert (network.golden.out_features, network.n_heads) == (2, 2)
        assert before.golden.out_features == 3
        assert student.before is start
        assert len(student.logits("test")) == 30
    both = Recipe("both", first_stage().stages + second_stage().stages, predictor="one_model")  # in one go it is shared too
    student = distil.distill(first, qa, name, both)
    assert student.network().predictor == "one_model"  # and not what stage 1 left in the network
    assert starts[0].key == starts[1].key == student.before.key
    assert starts[1].reused
    assert trained.count(f"{name} pre-training") == 1
    assert trained.count(f"{name} task") == 3


def test_stage_2_starts_from_the_encoder_of_stage_1(pooled_task, two_classes, monkeypatch):
    first = prepare(pooled_task, STUDENT, vocab=200)
    qa = distil.finetune(first, TEACHER, range(2), OPT)
    start = distil.distill(first, qa, f"{STUDENT} + heads-2", first_stage())
    seen = {}

    def look(network, *a, **k):
        seen.update({n: v.clone() for n, v in network.state_dict().items()})
        raise KitError("enough seen")

    monkeypatch.setattr(train, "fit", look)
    with pytest.raises(KitError, match="enough seen"):
        distil.distill(first.with_task(two_classes), [], f"{STUDENT} + heads-2",
                       Recipe("x", (replace(recipes.plain(OPT).stages[0], reset=("heads",)),)), start=start, seed=3)
    for key, value in start.network().state_dict().items():
        if "classifier" in key or key.startswith("soft"):
            assert seen[key].shape[0] == 2
        else:
            assert torch.equal(seen[key], value)


def test_starts_that_do_not_fit_are_refused(pooled_task, two_classes, pair_task):
    name = f"{STUDENT} + heads-2"
    prepared = prepare(pooled_task, STUDENT, vocab=200)
    pool = distil.finetune(prepared, TEACHER, range(2), OPT)
    start = distil.distill(prepared, pool, name, first_stage())
    own = prepared.with_task(two_classes)
    with pytest.raises(KitError, match=r"has 3 outputs and this task has 2: give its first stage reset=\('heads',\)"):
        distil.distill(own, pool, name, second_stage(), start=start)
    sea = distil.finetune(own, STUDENT, [0], OPT)[0]
    with pytest.raises(KitError, match="has the classes other, sea and this task has no, yes: give its first stage reset"):
        distil.undistilled(own.with_task(pair_task), STUDENT, OPT, 0, sea)
    with pytest.raises(KitError, match="has 2 soft heads and the student is to have 1"):
        distil.distill(prepared, pool, f"{STUDENT} + heads-1", second_stage(combine="one_head"), start=start)
    other = prepare(two_classes, STUDENT, vocab=100)
    with pytest.raises(KitError, match="reads other tokens than this task was prepared with: prepare the task by with_task"):
        distil.distill(other, pool, name, second_stage(reset=("heads",)), start=start)


def test_a_tokeniser_is_shared_between_texts_only(text_task, image_task):
    with pytest.raises(KitError, match="holds images"):
        prepare(image_task, "resnet-8w8").with_task(text_task)
    with pytest.raises(KitError, match="holds images"):
        prepare(text_task, STUDENT).with_task(image_task)


# --- who predicts --------------------------------------------------------------------------------------------------------


def planted(prepared, wrong=True):
    """Two teachers that are surely wrong: they say the next class."""
    def make(folder):
        import pandas as pd

        rows = []
        for split in prepared.task.splits.values():
            logits = np.full((len(split), 3), -4.0)
            logits[np.arange(len(split)), (split.labels + (1 if wrong else 0)) % 3] = 4.0
            rows.append(pd.DataFrame(logits, columns=list(prepared.task.classes)).assign(id=split.ids))
        pd.concat(rows).to_csv(folder / "logits.csv", index=False)
        return teachers.teacher_from_table(folder / "logits.csv")

    return make


def test_the_predictor_decides_scores_kept_epoch_and_stored_logits(text_task, tmp_path):
    """The soft heads follow teachers that are wrong, the golden head the labels. Asked for the golden head, the last epochs
    are the best; asked for the soft ones, the first is."""
    prepared = prepare(text_task, STUDENT, vocab=200)
    wrong = planted(prepared)(tmp_path)
    opt = replace(OPT, epochs=12, lr=1e-2, keep="best")
    found = {p: distil.distill(prepared, [wrong, wrong], f"{STUDENT} + heads-2", second_stage(0.5, opt, predictor=p))
             for p in ("one_model", "heads", "soft_heads")}
    assert len({m.key for m in found.values()}) == 3
    history = {p: m.info["history"] for p, m in found.items()}
    assert history["one_model"]["losses"] == history["heads"]["losses"] == history["soft_heads"]["losses"]
    assert history["soft_heads"]["best_epoch"] < history["one_model"]["best_epoch"]
    assert history["one_model"]["validation"][-1] > 0.8
    assert history["soft_heads"]["validation"][-1] < 0.2
    for predictor, model in found.items():
        data = prepared.data("validation")
        out = run(model.network(), data.batch(np.arange(len(data))).inputs)
        said = vote(out.logits, out.heads, predictor)
        assert_close(model.logits("validation"), said, atol=1e-5, rtol=1e-5)
        kept = history[predictor]["validation"][history[predictor]["best_epoch"]]
        assert model.metrics["validation"]["accuracy"] == kept == max(history[predictor]["validation"])


def test_a_student_with_heads_is_a_teacher_that_votes(text_task, tmp_path):
    """What others read of it is what it says when asked: scored on a split, or loaded from its folder."""
    prepared = prepare(text_task, STUDENT, vocab=200)
    right = planted(prepared, wrong=False)(tmp_path)
    model = distil.distill(prepared, [right], f"{STUDENT} + heads-1", second_stage(0.5, combine="one_head"))
    assert isinstance(model.answering(), Voter)
    assert_close(teachers.logits_of(prepared, model, "test"), model.logits("test"))
    stranger = teachers.teacher_from_folder(prepared, model.folder)
    assert_close(teachers.logits_of(prepared, stranger, "test"), model.logits("test"))
    golden = distil.undistilled(prepared, STUDENT, OPT, 0)
    assert not isinstance(golden.answering(), Voter)


def test_at_alpha_1_the_soft_heads_predict_alone(text_task, tmp_path):
    prepared = prepare(text_task, STUDENT, vocab=200)
    right = planted(prepared, wrong=False)(tmp_path)
    name = f"{STUDENT} + heads-2"
    asked, said = (distil.distill(prepared, [right, right], name, second_stage(1.0, predictor=p))
                   for p in ("heads", "soft_heads"))
    assert asked.network().predictor == "soft_heads"
    assert asked.key == said.key  # two ways to say the same
    golden = distil.distill(prepared, [right, right], name, second_stage(0.0))
    assert golden.network().predictor == "one_model"


@pytest.mark.parametrize(("student", "recipe", "says"), [
    (STUDENT, second_stage(), f"'{STUDENT}' has no soft heads: call the student '{STUDENT} [+] heads-N'"),
    (f"{STUDENT} + heads-2", second_stage(predictor="loudest"), "no such predictor: 'loudest'; there are one_model, heads"),
    (f"{STUDENT} + heads-2", second_stage(1.0, predictor="one_model"), "trains the soft heads alone: use 'soft_heads'"),
    (f"{STUDENT} + heads-2", second_stage(0.0, predictor="soft_heads"), "trains the golden head alone: use 'one_model'"),
    (f"{STUDENT} + heads-2", second_stage(reset=("pooler",)), "stage 'task' resets pooler, and only 'heads' can be"),
    (f"{STUDENT} + heads-3", second_stage(), "one student head per teacher: 3 heads, 2 teachers"),
    (f"{STUDENT} + heads-2", second_stage(combine="one_head"), r"one soft head \('NAME \+ heads-1'\): this one has 2"),
    (f"{STUDENT} + heads-2", second_stage(selection=Primary(1)), "follows only 1 of 2: hand over only the teachers"),
])
def test_recipes_that_a_student_cannot_serve_are_refused_before_training(text_task, monkeypatch, student, recipe, says):
    prepared = prepare(text_task, STUDENT, vocab=200)
    shape = {"layers": 1, "width": 32, "heads": 4}
    pool = [distil.Model(None, n, n, {"shape": shape}) for n in ("a", "b")]
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained"))
    with pytest.raises(KitError, match=says):
        distil.distill(prepared, pool, student, recipe)
