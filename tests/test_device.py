"""A device that is not the CPU, without one (tests/elsewhere.py): every loss, selection, policy, reward and episode runs there,
and says the same numbers as on the CPU."""

import contextlib
import inspect

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mtkd.models.names import build, soft_heads
from mtkd.rules import ensembles, experts, registry, rewards, selection
from mtkd.rules import matching as terms
from mtkd.rules.policy import Policy
from mtkd.tokens.batches import TextData
from mtkd.train import episodes, loop, outputs
from mtkd.train.recipes import Optimisation, Stage, Term
from tests.elsewhere import There, elsewhere

CPU = torch.device("cpu")
N, LENGTH, CLASSES, TEACHERS, WIDTH = 12, 6, 3, 2, 32
SELECTIONS = [cls for module in (selection, ensembles, experts) for cls in vars(module).values()
              if inspect.isclass(cls) and issubclass(cls, selection.Selection) and cls.__module__ == module.__name__
              and cls not in (selection.Selection, selection.Chosen, selection.Ruled, ensembles.Fixed, experts.ByClass)]
OPT = Optimisation(epochs=2, batch_size=4, lr=1e-3, keep="last")


@pytest.fixture
def device(monkeypatch):
    """A device that is not there, or the real one on a machine that has it."""
    monkeypatch.setattr(loop, "autocast", lambda device: (contextlib.nullcontext(), None))
    if torch.cuda.is_available():
        yield torch.device("cuda")
    else:
        with elsewhere(monkeypatch) as there:
            yield there


def data() -> TextData:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, LENGTH + 1, N)
    tokens = rng.integers(5, 40, lengths.sum()).astype(np.int32)
    return TextData([str(i) for i in range(N)], tokens, np.zeros_like(tokens, dtype=np.int8),
                    np.concatenate([[0], np.cumsum(lengths)]), np.arange(N) % CLASSES, 0, "own")


def network(name="scratch-2x32", seed=0):
    return build(name, CLASSES, seed=seed, vocab=40)


def teacher_outputs(device, needs=None, features=True):
    own, found = data(), [network(seed=7 + t) for t in range(TEACHERS)]
    logits = torch.stack([outputs.evaluate_logits(n, own, CPU) for n in found], 1) * 40
    states = {t: outputs.Packed(need, "own", *map(outputs.pack_states(found[t], own, need, CPU).get, ("hidden", "attention")))
              for t, need in (needs or {}).items()}
    return outputs.StoredOutputs(own, logits, states, features=torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
                                 if features else None)


def train(stage: Stage, device, student="scratch-2x32"):
    """The stage's history on a device."""
    net, heads, learner = network(student), soft_heads(student), None
    setting = terms.Setting(net.shape, [{"layers": 2, "width": WIDTH, "heads": 4}] * TEACHERS, heads=heads)
    torch.manual_seed(0)
    modules, needs, want = terms.prepare_stage(stage, setting)
    said = teacher_outputs(device, needs)
    for term in stage.terms:
        if term.selection is not None:
            term.selection.fit(outputs.TeacherBatch(said.logits, features=said.features), torch.from_numpy(data().labels))
    if stage.learns != "student":
        learner = episodes.Learner(stage, stage.terms[-1], modules[-1], said, data(), data(), device)
    return loop.fit(net, data(), stage, modules, said, want=want, seed=0, device=device, learner=learner,
                    validate=lambda n: outputs.evaluate_logits(n, data(), device).mean())


UNIFORM = selection.Uniform()
TERMS = [*(Term(rule.name, UNIFORM) for rule in registry.registered("loss") if not rule.own),
         Term("cross_entropy", combine="heads"),
         *(Term("soft_cross_entropy", UNIFORM, combine=how) for how in ("probabilities", "losses", "heads", "one_head")),
         Term("dissimilarity", UNIFORM, options={"triplets": 8}), Term("angle", UNIFORM, options={"space": "states"}),
         Term("adaptive_kd", UNIFORM, options={"angle": 1.0, "l2": 0.1})]


@pytest.mark.parametrize("term", TERMS, ids=lambda t: f"{t.loss}-{t.combine}")
def test_a_step_of_every_loss(term, device):
    stage = Stage("x", (Term("cross_entropy"), term), OPT)
    student = "scratch-2x32" + {"heads": " + heads-2", "one_head": " + heads-1"}.get(term.combine, "")
    there, here = train(stage, device, student), train(stage, CPU, student)
    for name, values in here.losses.items():
        assert len(values) == 6
        assert_close(there.losses[name], values, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("cls", SELECTIONS, ids=lambda c: c.__name__)
def test_every_selection(cls, device):
    said = teacher_outputs(device)
    batch = data().batch(np.arange(N)).to(device)
    teachers, own = said.batch(batch), cls()
    own.fit(outputs.TeacherBatch(said.logits.to(device)), batch.labels)
    weights = own.weights(batch, teachers, 0, torch.Generator(device).manual_seed(0))
    assert weights.device == teachers.logits.device
    assert weights.shape == (N, TEACHERS)
    assert selection.followed(weights).device == weights.device
    if cls is not ensembles.BestSingle:
        assert ensembles.ensemble(own, teachers.logits).device == weights.device
    assert ensembles.random_single(teachers.logits, torch.Generator().manual_seed(0)).shape == (N, CLASSES)


@pytest.mark.parametrize("learns", ["student", "selection", "alternate"])
@pytest.mark.parametrize("policy", [
    Policy(), Policy(reward=2, alternation="batch"), Policy(reward=3, dev_every=2),
    Policy(pretrain_reward="student", credit="batch"), Policy(gradient="printed", baseline="none", standardise=False),
], ids=lambda p: f"{p.reward}-{p.gradient}-{p.pretrain_reward}")
def test_episodes(policy, learns, device):
    kd = Term("soft_cross_entropy", policy, combine="probabilities", t_squared=True)
    history = train(Stage("x", (Term("cross_entropy"), kd), OPT, learns=learns), device)
    assert len(history.policy.get("entropy", [0, 0])) == 2
    assert all(v.device == CPU for v in policy.state().values())


def test_the_policy_can_be_fitted_where_its_states_are(device):
    said, labels = teacher_outputs(device), torch.from_numpy(data().labels)
    own, policy = outputs.TeacherBatch(said.logits.to(device), features=said.features.to(device)), Policy()
    policy.fit(own, labels.to(device))
    assert policy.probabilities(policy.look(own, labels.to(device))).device == own.logits.device


def test_rewards_that_come_from_elsewhere_are_written_down(device, monkeypatch):
    monkeypatch.setattr(rewards, "reward_of_teachers", lambda logits, actions, labels: torch.zeros(len(labels)))
    train(Stage("x", (Term("soft_cross_entropy", Policy(), combine="probabilities"),), OPT, learns="selection"), device)


def test_a_network_is_scored_wherever_it_is(device):
    net, own = network(), data()
    there = outputs.evaluate_logits(net, own, device)
    assert there.device == CPU
    assert_close(there, outputs.evaluate_logits(network(), own, CPU), atol=1e-4, rtol=1e-4)
    states = outputs.pack_states(network(), own, outputs.Needs((1,), (1,)), device)
    assert {k: v.device for k, v in states.items()} == {"hidden": CPU, "attention": CPU}


def test_the_pretended_device_refuses_what_a_gpu_refuses(monkeypatch):
    with elsewhere(monkeypatch) as there:
        x, here = torch.arange(3.0).to(there), torch.ones(3)
        assert isinstance(x, There)
        assert (x * 2 + torch.tensor(1.0)).tolist() == [1, 3, 5]
        assert x[torch.tensor([2])].tolist() == [2]
        for wrong in (lambda: x + here, lambda: here[x > 0], lambda: torch.where(x > 0, here, x), lambda: x.numpy()):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
