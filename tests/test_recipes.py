"""The five papers as data: seed_ensemble's recipes, sketches of the other four, and the crosses that are refused.

The sketches show that the interface holds what the other papers need before they are built. Some of their selections live
here and not in mtkd, as small, untuned stand-ins; rl_kd's policy is the kit's own (mtkd/rules/policy.py).
"""

import json
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.models.heads import vote
from mtkd.models.names import build
from mtkd.models.networks import Outputs
from mtkd.rules import losses
from mtkd.rules import matching as terms
from mtkd.rules.policy import Policy
from mtkd.rules.selection import Primary, Selection, Uniform
from mtkd.rules.terms import layer_map
from mtkd.store.artifacts import key
from mtkd.tokens.batches import Batch, ImageData
from mtkd.train import distil, episodes, recipes
from mtkd.train import loop as train
from mtkd.train.outputs import LiveOutputs, StoredOutputs, TeacherBatch
from mtkd.train.prepare import prepare
from mtkd.train.recipes import CoFinetuned, Optimisation, Recipe, Stage, Term, stage_spec

CPU = torch.device("cpu")
OPT = Optimisation(epochs=2, batch_size=8, lr=5e-3, keep="last", weight_decay=0)
NAMES = ["anna", "bert", "carl", "dora"]
TINY = {"layers": 1, "width": 32, "heads": 4}
DEEP = {"layers": 2, "width": 32, "heads": 4}


def followed(recipe, n=4):
    return [recipe.members(stage, n) for stage in recipe.stages]


# --- seed_ensemble -------------------------------------------------------------------------------------------------------


def test_tinyberts_inner_terms_follow_the_primary_alone_and_its_prediction_everyone():
    recipe = recipes.tinybert((0, 2, 3), 2, intermediate=OPT, prediction=OPT)
    inner, prediction = recipe.stages
    assert [t.loss for t in inner.terms] == ["embedding_mse", "hidden_mse", "attention_mse"]
    assert {t.selection.members(4) for t in inner.terms} == {(2,)}
    (soft,) = prediction.terms
    assert (soft.loss, soft.combine, soft.temperature) == ("soft_cross_entropy", "logits", 1.0)
    assert followed(recipe) == [(2,), (0, 2, 3)]
    assert not soft.t_squared
    assert not soft.kl


def test_distilberts_cosine_follows_the_primary_and_its_soft_labels_everyone():
    (stage,) = recipes.distilbert((0, 1), 1, optimisation=OPT).stages
    assert [(t.loss, t.weight) for t in stage.terms] == [("cross_entropy", 1.0), ("soft_cross_entropy", 1.0), ("cosine", 1.0)]
    assert [t.selection and t.selection.members(3) for t in stage.terms] == [None, (0, 1), (1,)]


@pytest.mark.parametrize(("terms_", "losses_"), [("CE", ["cross_entropy"]), ("KD+cos", ["soft_cross_entropy", "cosine"]),
                                                 ("cos+CE", ["cross_entropy", "cosine"])])
def test_distilberts_sets_of_terms(terms_, losses_):
    assert [t.loss for t in recipes.distilbert((0,), 0, optimisation=OPT, terms=terms_).stages[0].terms] == losses_


def test_resnet_has_no_primary():
    recipe = recipes.resnet((1, 3), optimisation=OPT, lam=0.3, temperature=4.0)
    gold, soft = recipe.stages[0].terms
    assert (gold.loss, soft.weight, soft.temperature, soft.selection.members(4)) == ("cross_entropy", 0.3, 4.0, (1, 3))


def test_impossible_recipes_are_refused():
    with pytest.raises(KitError, match=r"primary teacher 1 is not one of the members \(0, 2\)"):
        recipes.tinybert((0, 2), 1, intermediate=OPT, prediction=OPT)
    with pytest.raises(KitError, match="primary teacher 5"):
        recipes.distilbert((0, 2), 5, optimisation=OPT)
    with pytest.raises(KitError, match="no such loss term: 'KL'"):
        recipes.distilbert((0,), 0, optimisation=OPT, terms="CE+KL")


def test_uniform_weights_by_hand():
    said = TeacherBatch(torch.zeros(2, 4, 3))
    rng = torch.Generator()
    assert Uniform().weights(None, said, 0, rng).tolist() == [[0.25] * 4] * 2
    assert Uniform((1, 3)).weights(None, said, 0, rng).tolist() == [[0, 0.5, 0, 0.5]] * 2
    assert Primary(2).weights(None, said, 0, rng).tolist() == [[0, 0, 1, 0]] * 2


def test_all_combinations_with_the_same_primary_share_the_intermediate_stage():
    def inner_and_outer(members, primary, names=NAMES):
        recipe = recipes.tinybert(members, primary, intermediate=OPT, prediction=OPT)
        return [key("model", stage_spec(s, names)) for s in recipe.stages]

    alone, pair, all_four = inner_and_outer((1,), 1), inner_and_outer((0, 1), 1), inner_and_outer((0, 1, 2, 3), 1)
    assert alone[0] == pair[0] == all_four[0]
    assert len({alone[1], pair[1], all_four[1]}) == 3
    assert inner_and_outer((0, 1), 0)[0] != pair[0]
    assert inner_and_outer((0, 1), 0)[1] == pair[1]  # the last stage differs by what it starts from, not by its terms
    moved = ["bert", "zoe"]  # the same teacher at another position of another pool
    assert inner_and_outer((0,), 0, moved)[0] == alone[0]


def test_a_spec_holds_everything_that_changes_the_training():
    base = Stage("task", (Term("soft_cross_entropy", Uniform((0, 1))),), OPT)
    term = base.terms[0]
    others = [
        replace(base, terms=(replace(term, temperature=2.0),)), replace(base, terms=(replace(term, weight=0.5),)),
        replace(base, terms=(replace(term, kl=True),)), replace(base, terms=(replace(term, t_squared=True),)),
        replace(base, terms=(replace(term, combine="probabilities"),)), replace(base, terms=(replace(term, loss="logit_mse"),)),
        replace(base, terms=(replace(term, selection=Uniform((0, 2))),)),
        replace(base, terms=(replace(term, options={"a": 1}),)),
        replace(base, terms=(term, Term("cross_entropy"))), replace(base, optimisation=replace(OPT, lr=1e-3)),
        replace(base, data="unlabelled"), replace(base, reset=("heads",)), replace(base, learns="selection"),
        replace(base, terms=(replace(term, selection=Policy(of=(0, 1))),)),
        replace(base, terms=(replace(term, selection=Policy(of=(0, 1), lr=0.5)),)),
    ]
    specs = [key("model", stage_spec(s, NAMES)) for s in (base, *others)]
    assert [s for s, n in Counter(specs).items() if n > 1] == []
    json.dumps(stage_spec(others[-1], NAMES))


# --- the stand-ins of the other four papers -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SoftCE(Selection):
    """mt_bert: 1 / (1 + CE of the teacher) per sample, as it is (the losses are summed, not averaged)."""

    def weights(self, batch, teachers, step, rng):
        z = teachers.logits
        return 1 / (1 + losses.cross_entropy(z, batch.labels.unsqueeze(-1).expand(z.shape[:-1])))


@dataclass(frozen=True)
class Each(Selection):
    """mt_bert's hidden loss: every teacher with weight 1, a sum and not a mean."""

    def weights(self, batch, teachers, step, rng):
        return torch.ones(teachers.logits.shape[:2])


@dataclass(frozen=True)
class Expertise(Selection):
    """domain_expertise: the best teacher of the class it predicts; with none or several of those, the best overall.
    Best is by recall on the split it is fitted on; one-hot. Units may be samples [B, T, C] or tokens [B, L, T, C]."""

    _learned: dict = field(default_factory=dict, compare=False, repr=False)

    def fit(self, teachers, labels):
        said = teachers.logits.argmax(-1)                                                          # [n, T]
        classes = range(teachers.logits.shape[-1])
        recall = torch.stack([(said[labels == c] == c).float().mean(0) for c in classes])          # [C, T]
        self._learned.update(best=recall.argmax(1), overall=(said == labels[:, None]).float().mean(0).argmax())

    def weights(self, batch, teachers, step, rng):
        z = teachers.logits
        specialist = self._learned["best"][z.argmax(-1)] == torch.arange(z.shape[-2])              # [.., T]
        one = specialist.sum(-1, keepdim=True) == 1
        overall = torch.zeros_like(specialist)
        overall[..., self._learned["overall"]] = True
        return torch.where(one, specialist, overall).to(z.dtype)

    def state(self):
        return self._learned


def mt_bert(alpha=1.0) -> Recipe:
    """CE + weighted soft CE per teacher + hidden losses of all teachers, one stage, teachers trained as a set."""
    return Recipe("mt_bert", (Stage("task", (
        Term("cross_entropy"), Term("soft_cross_entropy", SoftCE(), combine="losses"),
        Term("hidden_mse", Each(), weight=alpha, options={"side": "teacher"})), OPT),),
        teachers=CoFinetuned("attentive"))


def rl_kd(policy: Selection, alpha=0.5) -> Recipe:
    """KD from everyone, then the policy alone, then both in turn."""
    def kd(selection):
        return (Term("cross_entropy", weight=1 - alpha),
                Term("soft_cross_entropy", selection, combine="probabilities", weight=alpha))

    return Recipe("rl_kd", (Stage("pretrain KD", kd(Uniform()), OPT),
                            Stage("pretrain policy", kd(policy), OPT, learns="selection"),
                            Stage("alternate", kd(policy), OPT, learns="alternate")))


def tmkd(alpha=0.9) -> Recipe:
    """Soft heads alone on unlabelled text; then new heads, gold and soft, on the task; all heads vote (Eq. 6)."""
    soft = Term("logit_mse", Uniform(), combine="heads", weight=alpha)
    return Recipe("tmkd", (Stage("pre-training", (replace(soft, weight=1.0),), OPT, data="unlabelled"),
                           Stage("task", (Term("cross_entropy", weight=1 - alpha), soft), OPT, reset=("heads",))),
                  predictor="heads")


def domain_expertise(selection: Selection, alpha=0.5) -> Recipe:
    """Fine-tune the student, then alpha CE + (1 - alpha) KD from the one expert per unit."""
    return Recipe("domain_expertise", (
        Stage("fine-tune", (Term("cross_entropy"),), OPT),
        Stage("distil", (Term("cross_entropy", weight=alpha), Term("soft_cross_entropy", selection, weight=1 - alpha)), OPT)))


ALL = {"mt_bert": mt_bert(), "rl_kd": rl_kd(Policy()), "tmkd": tmkd(), "domain_expertise": domain_expertise(Expertise())}


@pytest.mark.parametrize("name", ALL)
def test_every_stage_of_every_paper_composes(name):
    """Each stage becomes modules and a key for the store, with two teachers of the same tokeniser."""
    for stage in ALL[name].stages:
        setting = terms.Setting(TINY, [DEEP, DEEP], labelled=stage.data != "unlabelled", heads=2)
        modules, needs, want = terms.prepare_stage(stage, setting)
        assert len(modules) == len(stage.terms)
        assert set(needs) == ({0, 1} if name == "mt_bert" else set())
        assert want == ({"hidden"} if name == "mt_bert" else set())
        first, last = (key("model", stage_spec(stage, some)) for some in (NAMES[:2], NAMES[2:]))
        assert first != last or not ALL[name].members(stage, 2)


# --- stub networks on nine features, so that the recipes can be run in the loop -----------------------------------------


class Stub(nn.Module):
    """A linear student: golden logits [B, C] and, where asked for, one head per teacher [B, T, C]."""

    def __init__(self, heads=0, classes=3, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.golden = nn.Linear(9, classes)
        self.soft = nn.ModuleList(nn.Linear(9, classes) for _ in range(heads))

    def forward(self, inputs, want=frozenset()):
        x = inputs["pixels"].flatten(1)
        return Outputs(self.golden(x), heads=torch.stack([h(x) for h in self.soft], 1) if self.soft else None)


def numbers(n=48, unlabelled=False) -> ImageData:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    pixels = rng.integers(0, 90, (n, 3, 3, 1))
    for i, label in enumerate(labels):
        pixels[i, label] += 110
    return ImageData([str(i) for i in range(n)], pixels.astype(np.uint8), np.full(n, -1) if unlabelled else labels, 1, 0, False,
                     (0.3,), (0.3,))


def said_by(data: ImageData, *skills: tuple[float, float, float]) -> StoredOutputs:
    """Teachers with a skill per class: +3 is surely right, -3 surely wrong (says the next class)."""
    labels = torch.from_numpy(np.arange(len(data)) % 3)
    logits = torch.zeros(len(data), len(skills), 3)
    for t, skill in enumerate(skills):
        power = torch.tensor(skill, dtype=torch.float32)[labels]
        logits[range(len(data)), t, labels] = power.clamp(min=0)
        logits[range(len(data)), t, (labels + 1) % 3] = (-power).clamp(min=0)
    return StoredOutputs(data, logits + 0.01 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)))


def fit(stage, data, teachers, network=None, *, heads=0, seed=0, epochs=6):
    network = Stub(heads) if network is None else network
    stage = replace(stage, optimisation=replace(stage.optimisation, epochs=epochs, lr=0.02))
    n = teachers.logits.shape[-2]
    modules, _, want = terms.prepare_stage(stage, terms.Setting({}, [{}] * n, heads=heads))
    history = train.fit(network, data, stage, modules, teachers, want=want, seed=seed, device=CPU)
    return network, history


def ends(history, name):
    first, last = history.summary()["losses"][name]
    return first, last


def accuracy(logits: Tensor) -> float:
    return (logits.argmax(-1) == torch.arange(len(logits)) % 3).float().mean().item()


def everything(network, data) -> Outputs:
    with torch.no_grad():
        return network(data.batch(np.arange(len(data))).inputs)


def logit_term(term, heads=0, n=2):
    return terms.prepare(term, terms.Setting({}, [{}] * n, heads=heads))


RNG = torch.Generator()
ROWS2 = Batch(np.arange(2), {}, torch.tensor([0, 1]))


# --- mt_bert -------------------------------------------------------------------------------------------------------------


def test_mt_bert_weighs_each_teachers_loss_by_its_own_certainty():
    z = torch.tensor([[[0.0, 0.0], [5.0, 0.0]], [[0.0, 0.0], [5.0, 0.0]]])  # the second teacher is sure of class 0
    said, student = TeacherBatch(z), Outputs(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    w = SoftCE().weights(ROWS2, said, 0, RNG)
    ce = lambda a, b: np.log1p(np.exp(b - a))  # noqa: E731 - cross-entropy for the class whose logit is a
    expected = torch.tensor([[1 / (1 + np.log(2)), 1 / (1 + ce(5, 0))], [1 / (1 + np.log(2)), 1 / (1 + ce(0, 5))]])
    assert_close(w, expected.float())
    assert (w.sum(-1) > 1).any()  # not normalised
    term = logit_term(mt_bert().stages[0].terms[1])
    per_teacher = torch.stack([losses.soft_cross_entropy(student.logits, z[:, t]) for t in range(2)], 1)
    assert_close(term(student, said, ROWS2, w), (w * per_teacher).sum(1))


def test_mt_bert_runs_in_the_loop_with_real_encoders(text_task):
    """Hidden states of two teachers, weight 1 each. Two things are not there yet: the map W_ij on the *teacher's* side
    (the option is stored, but StateTerm maps the student), and teachers with other tokenisers."""
    prepared = prepare(text_task, "scratch-2x32", vocab=200)
    networks = [build("scratch-2x32", 3, seed=i, vocab=prepared.vocab) for i in range(2)]
    student = build("scratch-1x32", 3, seed=9, vocab=prepared.vocab)
    stage = replace(mt_bert().stages[0], optimisation=replace(OPT, epochs=16))
    torch.manual_seed(0)
    modules, needs, want = terms.prepare_stage(stage, terms.Setting(TINY, [DEEP, DEEP]))
    history = train.fit(student, prepared.data("train"), stage, modules, LiveOutputs(networks, needs, CPU), want=want, seed=0,
                        device=CPU)
    for name in ("cross_entropy", "hidden_mse"):
        first, last = ends(history, name)
        assert last < 0.8 * first
    assert set(modules[2].maps) == {"0", "1"}  # one map per teacher
    one = terms.prepare(replace(stage.terms[2], selection=Primary(0)), terms.Setting(TINY, [DEEP, DEEP]))
    assert set(one.maps) == {"0"}


# --- rl_kd ---------------------------------------------------------------------------------------------------------------


def test_an_empty_selection_has_no_distillation_loss_and_no_gradient():
    for options in ({}, {"kl": True}, {"temperature": 2.0, "t_squared": True}):
        logits = torch.randn(3, 3, requires_grad=True)
        said = TeacherBatch(torch.randn(3, 2, 3))
        weights = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
        term = logit_term(Term("soft_cross_entropy", Policy(), combine="probabilities", **options))
        units = term(Outputs(logits), said, Batch(np.arange(3), {}, torch.tensor([0, 1, 2])), weights)
        assert units[1] == 0
        assert (units[[0, 2]] > 0).all()
        units.sum().backward()
        assert (logits.grad[1] == 0).all()
        assert (logits.grad[0] != 0).any()
        t = options.get("temperature", 1.0)
        mean = (said.logits[2] / t).softmax(-1).mean(0)
        expected = losses.soft_cross_entropy(logits[2], mean, probabilities=True, **options)
        assert_close(units[2], expected)


def run_policy(seed=0):
    """The last stage on stub networks: a student that sees the gold labels too, and one of two teachers always wrong."""
    data, policy = numbers(), Policy(reward=2, lr=2.0)
    said = said_by(data, (3, 3, 3), (-3, -3, -3))
    said.features = torch.from_numpy(data.pixels.reshape(48, 9) / 255).float()
    everyone = said.batch(data.batch(np.arange(48)))
    policy.fit(everyone, torch.from_numpy(data.labels))
    stage = replace(rl_kd(policy, alpha=0.2).stages[2], optimisation=replace(OPT, epochs=30, lr=0.02))
    modules, _, want = terms.prepare_stage(stage, terms.Setting({}, [{}, {}]))
    learner, network = episodes.Learner(stage, stage.terms[1], modules[1], said, data, data, CPU), Stub()
    history = train.fit(network, data, stage, modules, said, want=want, seed=seed, device=CPU, learner=learner)
    return policy, history, policy.probabilities(policy.look(everyone, torch.from_numpy(data.labels)))


def test_a_policy_learns_in_the_loop_whom_to_follow():
    """Whom the student's answers are far from does not pay (reward 2)."""
    policy, history, chosen = run_policy()
    p = chosen.mean(0)
    assert p[0] > p[1] + 0.3
    assert ends(history, "cross_entropy")[1] < 0.8 * ends(history, "cross_entropy")[0]
    assert len(history.policy["entropy"]) == 30
    assert history.policy["empty"][-1] < 0.4
    assert policy.state()["A"].abs().sum() > 0


def test_the_policys_draws_come_from_the_seed():
    a, b, c = (run_policy(seed) for seed in (1, 1, 2))
    assert a[1].losses == b[1].losses
    assert all(torch.equal(a[0].state()[k], b[0].state()[k]) for k in a[0].state())
    assert a[1].losses != c[1].losses


def test_rl_kds_recipe_runs_with_real_students(text_task):
    """KD, policy and alternation one after the other, each stage stored; more in tests/test_episodes.py."""
    prepared = prepare(text_task, "scratch-1x32", vocab=200)
    pool = distil.finetune(prepared, "scratch-1x32", range(2), OPT)
    students = [distil.distill(prepared, pool, "scratch-1x32", rl_kd(Policy(reward=r))) for r in (1, 2, 3)]
    assert len({s.key for s in students}) == 3
    assert len({s.before.before.key for s in students}) == 1  # all rewards share the pre-training of the student
    assert {"policy"} <= set(students[0].info["history"])


# --- tmkd ----------------------------------------------------------------------------------------------------------------


def test_tmkds_heads_each_follow_their_own_teacher():
    z = torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 2.0], [0.0, 0.0]]])
    heads = torch.zeros(2, 2, 2)
    term = logit_term(tmkd().stages[1].terms[1], heads=2)
    units = term(Outputs(torch.full((2, 2), 99.0), heads=heads), TeacherBatch(z), ROWS2, torch.full((2, 2), 0.5))
    assert_close(units, torch.tensor([0.5 * (0.5 + 4.5), 0.5 * 4.0]))
    assert_close(term(Outputs(z[:, 0], heads=z), TeacherBatch(z), ROWS2, torch.full((2, 2), 0.5)), torch.zeros(2))


def test_tmkd_runs_both_stages_in_the_loop():
    """Stage 1 learns from soft targets alone on data without labels; stage 2 adds the golden head. The student is a stub
    whose new heads between the stages are this test's doing; a real one follows below, and in tests/test_heads.py."""
    first, second = tmkd().stages
    pool, data = numbers(unlabelled=True), numbers()
    network, history = fit(first, pool, said_by(pool, (3, 3, 3), (3, 3, 0)), heads=2, epochs=30)
    assert ends(history, "logit_mse")[1] < 0.3 * ends(history, "logit_mse")[0]
    golden = {k: v.clone() for k, v in network.golden.state_dict().items()}
    assert all(torch.equal(v, Stub(2).golden.state_dict()[k]) for k, v in golden.items())  # untouched by stage 1
    out = everything(network, pool)
    assert accuracy(out.heads[:, 0]) == 1.0
    assert accuracy(out.heads[:, 1]) < 1.0  # each head has become its own teacher
    for layer in (*network.soft, network.golden):
        layer.reset_parameters()
    assert accuracy(everything(network, data).heads[:, 0]) < 0.9
    network, history = fit(second, data, said_by(data, (3, 3, 3), (3, 3, 0)), network, heads=2, epochs=30)
    assert ends(history, "cross_entropy")[1] < 0.9 * ends(history, "cross_entropy")[0]
    out = everything(network, data)
    assert accuracy(vote(out.logits, out.heads)) == 1.0


def test_tmkds_recipe_runs_with_a_real_student(text_task):
    """Stage 1 on the unlabelled split, stage 2 on the task with new heads, and the vote of Eq. 6 as what is measured."""
    task = replace(text_task, splits={**text_task.splits, "unlabelled": replace(text_task.splits["train"],
                                                                                labels=np.full(60, -1))})
    prepared = prepare(task, "scratch-1x32", vocab=200)
    pool = distil.finetune(prepared, "scratch-1x32", range(2), replace(OPT, epochs=8))
    student = distil.distill(prepared, pool, "scratch-1x32 + heads-2", tmkd())
    network, before = student.network(), student.before.network()
    assert (network.predictor, before.predictor) == ("heads", "soft_heads")
    assert network.n_heads == 2
    assert_close(student.logits("test").exp().sum(1), torch.ones(30))  # probabilities, as logarithms
    with pytest.raises(KitError, match=r"'scratch-1x32' has no soft heads: call the student 'scratch-1x32 [+] heads-N'"):
        distil.distill(prepared, pool, "scratch-1x32", tmkd())


# --- domain_expertise ----------------------------------------------------------------------------------------------------


def test_the_expert_of_the_class_it_predicts_is_followed():
    """Teacher 0 knows class 0, teacher 1 class 1, teacher 2 everything a little: it is the best overall."""
    validation = numbers()
    said = said_by(validation, (3, -3, -3), (-3, 3, -3), (-1, 1, 3))
    selection = Expertise()
    selection.fit(said.batch(validation.batch(np.arange(48))), torch.arange(48) % 3)
    state = selection.state()
    assert state["best"].tolist() == [0, 1, 2]
    assert state["overall"] == 2
    z = torch.zeros(4, 3, 3)
    for sample, predicted in enumerate(([0, 2, 0], [2, 1, 0], [0, 1, 1], [1, 2, 0])):
        z[sample, range(3), predicted] = 1.0
    w = selection.weights(None, TeacherBatch(z), 0, RNG)
    # one specialist: 0; one specialist: 1; two specialists: the best overall; none: the best overall
    assert w.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_domain_expertise_runs_in_the_loop_and_follows_experts_not_the_average():
    data = numbers()
    said = said_by(data, (3, -3, -3), (-3, 3, -3), (-3, -3, 3))
    selection = Expertise()
    selection.fit(said.batch(data.batch(np.arange(48))), torch.arange(48) % 3)
    stages = domain_expertise(selection, alpha=0.0).stages
    network, history = fit(stages[1], data, said, epochs=40)
    assert ends(history, "soft_cross_entropy")[1] < ends(history, "soft_cross_entropy")[0]
    averaged, _ = fit(domain_expertise(Uniform(), alpha=0.0).stages[1], data, said, epochs=40)
    assert accuracy(everything(network, data).logits) > accuracy(everything(averaged, data).logits) + 0.3


class Tokens:
    """Three sentences of 5, 3 and 2 tokens, a class per token; padding has the label -1."""

    lengths = np.array((5, 3, 2))

    def __init__(self):
        rng = torch.Generator().manual_seed(0)
        self.labels = torch.randint(0, 3, (3, 5), generator=rng)
        self.features = torch.randn(3, 5, 9, generator=rng) + 2 * nn.functional.one_hot(self.labels, 9)

    def __len__(self):
        return 3

    def batch(self, index, view=0):
        width = max(self.lengths[i] for i in index)
        mask = torch.arange(width) < torch.tensor([self.lengths[i] for i in index])[:, None]
        labels = torch.where(mask, self.labels[index, :width], -1)
        return Batch(index, {"tokens": self.features[index, :width]}, labels, mask)


class TokenTeachers:
    """Two teachers, logits [B, L, T, C]: the first is right about the classes 0 and 1, the second about 2."""

    logits = torch.empty(0, 2, 3)  # for the number of teachers

    def batch(self, batch):
        gold = batch.labels.clamp(min=0)
        right, wrong = (4.0 * nn.functional.one_hot(x % 3, 3) for x in (gold, gold + 1))
        knows = (gold < 2).unsqueeze(-1)
        return TeacherBatch(torch.stack([torch.where(knows, right, wrong), torch.where(knows, wrong, right)], 2))


class TokenStub(Stub):
    def forward(self, inputs, want=frozenset()):
        return Outputs(self.golden(inputs["tokens"]))


@dataclass(frozen=True)
class TokenExpertise(Expertise):
    """Tokens as units: weights [B, L, T], all zero on padding."""

    def weights(self, batch, teachers, step, rng):
        return super().weights(batch, teachers, step, rng) * (batch.labels >= 0).unsqueeze(-1)


def test_tokens_as_units():
    data, said = Tokens(), TokenTeachers()
    batch = data.batch(np.arange(3))
    teachers = said.batch(batch)
    selection, real = TokenExpertise(), batch.mask
    selection.fit(TeacherBatch(teachers.logits[real]), batch.labels[real])
    assert selection.state()["best"].tolist() == [0, 0, 1]
    weights = selection.weights(batch, teachers, 0, RNG)
    assert weights.shape == (3, 5, 2)
    student = TokenStub()(batch.inputs)
    term = logit_term(Term("soft_cross_entropy", selection))
    units = term(student, teachers, batch, weights)
    assert units.shape == (3, 5)
    assert (units[~real] == 0).all()
    flat = term(Outputs(student.logits[real]), TeacherBatch(teachers.logits[real]), batch, weights[real])
    assert_close(units[real], flat)  # a token in a sentence is a unit like any other
    gold = terms.prepare(Term("cross_entropy"), terms.Setting({}, []))(student, None, batch, None)
    assert (gold[~real] == 0).all()
    assert_close(gold[real], losses.cross_entropy(student.logits[real], batch.labels[real]))
    for combine in ("probabilities", "losses"):
        other = logit_term(Term("soft_cross_entropy", selection, combine=combine))
        assert other(student, teachers, batch, weights).shape == (3, 5)


def test_tokens_run_in_the_loop():
    """The loop takes units of any shape; a real span task is in tests/test_spans.py."""
    selection = TokenExpertise()
    data, said = Tokens(), TokenTeachers()
    batch = data.batch(np.arange(3))
    selection.fit(TeacherBatch(said.batch(batch).logits[batch.mask]), batch.labels[batch.mask])
    network, history = fit(domain_expertise(selection, alpha=0.8).stages[1], data, said, TokenStub(), epochs=100)
    for name in ("cross_entropy", "soft_cross_entropy"):
        assert ends(history, name)[1] < 0.7 * ends(history, name)[0]
    with torch.no_grad():
        found = network(batch.inputs).logits.argmax(-1)
    assert torch.equal(found[batch.mask], batch.labels[batch.mask])


# --- crosses that cannot work --------------------------------------------------------------------------------------------


TWO = [DEEP, DEEP]
BARE = {}


@pytest.mark.parametrize(("term", "setting", "says"), [
    (Term("logit_mse", Uniform(), combine="heads"), terms.Setting(TINY, TWO), "one student head per teacher: 0 heads, 2"),
    (Term("logit_mse", Uniform(), combine="heads"), terms.Setting(TINY, TWO, heads=3), "3 heads, 2 teachers"),
    (Term("attention_mse", Uniform()), terms.Setting({**TINY, "heads": 2}, TWO), r"equal numbers of attention heads.*\[2, 4"),
    (Term("attention_mse", Uniform()), terms.Setting(TINY, [DEEP, {**DEEP, "heads": 8}]), r"\[4, 4, 8\]"),
    (Term("hidden_mse", Uniform()), terms.Setting(BARE, [BARE]), "hidden_mse matches layers.*ResNet"),
    (Term("cosine", Uniform()), terms.Setting(TINY, [DEEP, BARE]), "cosine matches layers.*table of logits"),
    (Term("embedding_mse", Uniform()), terms.Setting(BARE, TWO), "embedding_mse matches layers"),
    (Term("hidden_mse", Uniform()), terms.Setting({**TINY, "layers": 3}, TWO), "more layers than its teacher"),
    (Term("triplet", Uniform()), terms.Setting(TINY, TWO), "no such loss: 'triplet'; "),
    (Term("soft_cross_entropy", Uniform(), combine="votes"), terms.Setting(TINY, TWO), "no such way to combine .*'votes'"),
    (Term("soft_cross_entropy"), terms.Setting(TINY, TWO), "needs a teacher to follow"),
    (Term("soft_cross_entropy", Uniform()), terms.Setting(TINY, []), "needs a teacher to follow"),
    (Term("cross_entropy"), terms.Setting(TINY, TWO, labelled=False), "needs labels and this stage's data has none"),
    (Term("soft_cross_entropy", Uniform((0, 2))), terms.Setting(TINY, TWO), r"\(0, 2\) are not distinct positions among 2"),
    (Term("cosine", Primary(5)), terms.Setting(TINY, TWO), r"\(5,\) are not distinct positions among 2"),
    (Term("soft_cross_entropy", Uniform((1, 1))), terms.Setting(TINY, TWO), "not distinct"),
    (Term("soft_cross_entropy", Uniform(())), terms.Setting(TINY, TWO), "not distinct"),
    (Term("soft_cross_entropy", Uniform((-1,))), terms.Setting(TINY, TWO), "not distinct"),
])
def test_crosses_that_cannot_work_are_refused_with_the_reason(term, setting, says):
    with pytest.raises(KitError, match=says):
        terms.prepare(term, setting)


def test_a_cross_in_the_last_stage_is_refused_before_the_first_is_trained(text_task, image_task, monkeypatch):
    prepared = prepare(text_task, "scratch-2x32")
    pool = [distil.Model(None, n, n, {"shape": DEEP}) for n in NAMES[:2]]
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("something was trained"))
    inner = recipes.plain(OPT).stages[0]
    for term, says in ((Term("triplet", Uniform()), "no such loss"), (Term("hidden_mse", Uniform((0, 7))), "not distinct"),
                       (Term("logit_mse", Uniform(), combine="heads"), "one student head")):
        with pytest.raises(KitError, match=says):
            distil.distill(prepared, pool, "scratch-1x32", Recipe("x", (inner, Stage("last", (term,), OPT))))
    seen = prepare(image_task, "resnet-8w8")
    with pytest.raises(KitError, match="ResNet"):
        distil.distill(seen, [distil.Model(None, "a", "a", {"shape": {}})], "resnet-8w8",
                       Recipe("x", (Stage("s", (Term("hidden_mse", Uniform()),), OPT),)))
    hidden = replace(text_task, splits={**text_task.splits, "unlabelled": replace(text_task.splits["train"],
                                                                                  labels=np.full(60, -1))})
    with pytest.raises(KitError, match="needs labels"):
        distil.distill(prepare(hidden, "scratch-1x32"), [], "scratch-1x32", recipes.plain(OPT, "unlabelled"))


def test_terms_are_zero_where_the_student_is_the_teacher():
    """A student of the teacher's width starts from the identity, so a copy has no inner loss at all."""
    network = build("scratch-2x32", 3, seed=0, vocab=50)
    ids = torch.randint(5, 50, (2, 6))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    batch = Batch(np.arange(2), given, torch.tensor([0, 1]), torch.ones_like(ids, dtype=torch.bool))
    for loss in ("embedding_mse", "hidden_mse", "attention_mse", "cosine", "multi_hidden", "logit_mse"):
        modules, needs, want = terms.prepare_stage(Stage("s", (Term(loss, Primary(0)),)), terms.Setting(DEEP, [DEEP]))
        said = LiveOutputs([network], needs, CPU).batch(batch)
        with torch.no_grad():
            units = modules[0](network(given, want), said, batch, Primary(0).weights(None, said, 0, RNG))
        assert_close(units, torch.zeros(2), atol=1e-6, rtol=0)


def test_layers_are_mapped_evenly_from_student_to_teacher():
    assert layer_map(4, 12) == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert layer_map(3, 6) == [(1, 2), (2, 4), (3, 6)]
    assert layer_map(1, 6) == [(1, 6)]
    assert layer_map(2, 2) == [(1, 1), (2, 2)]


def test_state_terms_weigh_each_teacher_by_its_own_weight():
    """hidden_mse over two teachers is the weighted sum of the two single losses."""
    a, b, student = (torch.randn(2, 3, 32) for _ in range(3))
    batch = Batch(np.arange(2), {}, torch.tensor([0, 1]), torch.ones(2, 3, dtype=torch.bool))
    said = TeacherBatch(torch.zeros(2, 2, 3), {0: {2: a}, 1: {2: b}})
    both = terms.prepare(Term("hidden_mse", Uniform()), terms.Setting(TINY, TWO))
    weights = torch.tensor([[0.3, 2.0], [1.0, 0.0]])
    mask = torch.ones(2, 3)
    with torch.no_grad():
        found = both(Outputs(torch.zeros(2, 3), hidden=(None, student)), said, batch, weights)
    each = [losses.hidden_mse(student, teacher, mask) for teacher in (a, b)]
    assert_close(found, weights[:, 0] * each[0] + weights[:, 1] * each[1])


def test_other_widths_are_mapped_by_a_trained_projection():
    narrow = {**TINY, "width": 16}
    for loss, maps in (("hidden_mse", 1), ("embedding_mse", 1), ("cosine", 1), ("attention_mse", 0)):
        term = terms.prepare(Term(loss, Primary(0)), terms.Setting(narrow, [DEEP]))
        assert [p.shape for p in term.parameters()] == [(32, 16)] * maps
    assert not list(terms.prepare(Term("cosine", Primary(0)), terms.Setting(TINY, [DEEP])).parameters())


def test_a_regression_compares_outputs_by_squared_error():
    setting = terms.Setting({}, [{}, {}], regression=True)
    batch = Batch(np.arange(2), {}, torch.tensor([1.0, 4.0]))
    student, said = Outputs(torch.tensor([[0.0], [4.0]])), TeacherBatch(torch.tensor([[[1.0], [3.0]], [[4.0], [8.0]]]))
    assert_close(terms.prepare(Term("cross_entropy"), setting)(student, None, batch, None), torch.tensor([1.0, 0.0]))
    half = torch.full((2, 2), 0.5)
    soft = terms.prepare(Term("soft_cross_entropy", Uniform()), setting)
    assert_close(soft(student, said, batch, half), torch.tensor([4.0, 4.0]))
