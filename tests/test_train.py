"""The one loop: seeds, schedules, stopping, keeping the best, and what it does when the numbers go wrong."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mtkd.errors import KitError
from mtkd.measure.metrics import compute_metrics
from mtkd.models.names import build
from mtkd.models.networks import Outputs
from mtkd.rules import matching as terms
from mtkd.rules.selection import Uniform
from mtkd.tokens.batches import ImageData
from mtkd.train import loop as train
from mtkd.train import outputs
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Optimisation, Stage, Term

CPU = torch.device("cpu")
PLAIN = Optimisation(epochs=2, batch_size=8, lr=3e-3, keep="last")


def pixels(n=40, classes=3) -> ImageData:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    images = rng.integers(0, 100, (n, 2, 2, 1)) + 50 * labels[:, None, None, None]
    return ImageData([str(i) for i in range(n)], images.astype(np.uint8), labels, 1, 0, False, (0.3,), (0.3,))


class Linear(nn.Module):
    """The smallest network there is; from step `breaks` on its logits are not numbers."""

    def __init__(self, seed=0, breaks=None):
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.breaks, self.steps, self.rates = nn.Linear(4, 3), breaks, 0, []

    def forward(self, inputs, want=frozenset()):
        self.steps += self.training
        logits = self.layer(inputs["pixels"].flatten(1))
        return Outputs(logits * float("nan") if self.breaks and self.steps >= self.breaks and self.training else logits)


GOLD = (Term("cross_entropy"),)


def run(network, optimisation=PLAIN, *, data=None, seed=0, validate=None, stage_terms=GOLD, teachers=None):
    stage = Stage("task", stage_terms, optimisation)
    modules, _, want = terms.prepare_stage(stage, terms.Setting({}, [{}, {}] if teachers else []))
    return train.fit(network, pixels() if data is None else data, stage, modules, teachers, want=want, seed=seed, device=CPU,
                     validate=validate)


def weights(network):
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


# --- seeds ---------------------------------------------------------------------------------------------------------------


def text_run(task, seed, name="scratch-1x32", **changes):
    prepared = prepare(task, name, vocab=200)
    network = build(name, 3, seed=seed, vocab=prepared.vocab)
    return run(network, Optimisation(**{**vars(PLAIN), **changes}), data=prepared.data("train"), seed=seed), network


def test_same_seed_twice_is_the_same_run_and_another_seed_is_another(text_task):
    (a, one), (b, two), (c, three) = (text_run(text_task, seed) for seed in (5, 5, 6))
    assert a.losses == b.losses
    assert len(a.losses["cross_entropy"]) == a.steps == 16
    assert a.samples == 120
    assert torch.equal(weights(one), weights(two))
    assert a.losses != c.losses
    assert not torch.equal(weights(one), weights(three))


def test_dropout_too_is_drawn_from_the_seed(text_task):
    def with_dropout(seed):
        prepared = prepare(text_task, "scratch-1x32", vocab=200)
        network = build("scratch-1x32", 3, seed=0, vocab=prepared.vocab)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.3
        torch.rand(seed + 1)  # whatever was drawn before must not matter
        return run(network, data=prepared.data("train"), seed=1).losses

    assert with_dropout(0) == with_dropout(10)


def test_loss_falls_and_the_network_ends_in_eval_mode(text_task):
    history, network = text_run(text_task, 0, epochs=6)
    first, last = history.summary()["losses"]["cross_entropy"]
    assert first > 0.9
    assert last < 0.6 * first
    assert not network.training


# --- when the numbers go wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 5, 7])
def test_a_loss_that_is_not_a_number_stops_with_its_step_and_a_hint(step):
    network = Linear(breaks=step)
    with pytest.raises(KitError, match=rf"'cross_entropy' of stage 'task' is not a number at step {step}: .*lr"):
        run(network)
    assert network.steps == step


def test_on_an_accelerator_the_step_is_still_the_first_bad_one():
    traces = {"a": [torch.tensor(1.0)] * 60, "b": [torch.tensor(1.0)] * 33 + [torch.tensor(math.inf)] * 27}
    with pytest.raises(KitError, match=r"'b' .* at step 34"):
        train.check_finite(traces, 60, "task", train.CHECK_EVERY)


# --- optimisation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decay", "expected"), [
    ("linear", [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
    ("constant", [0.5] + [1.0] * 9),
    ("steps", [0.5] + [1.0] * 4 + [0.1] * 3 + [0.01] * 2),
])
def test_learning_rate_by_hand(decay, expected):
    opt = Optimisation(lr=2.0, warmup=0.2, decay=decay)
    assert [train.learning_rate(opt, s, 10) for s in range(10)] == pytest.approx([2 * e for e in expected])


def test_without_warm_up_the_first_step_has_the_whole_rate():
    assert train.learning_rate(Optimisation(lr=1.0, warmup=0.0), 0, 10) == 1.0


def test_an_unknown_decay_or_optimiser_is_refused():
    with pytest.raises(KitError, match="no such decay: 'cosine'"):
        run(Linear(), Optimisation(lr=1e-3, decay="cosine"))
    with pytest.raises(KitError, match="no such optimiser: 'lamb'"):
        run(Linear(), Optimisation(lr=1e-3, optimiser="lamb"))


def test_sgd_steps_are_the_schedules():
    """One batch per epoch, clip off: w - lr m with m = 0.9 m + g, and the rate falls after half and three quarters."""
    data, network, twin = pixels(), Linear(), Linear()
    opt = Optimisation(epochs=4, batch_size=40, lr=0.1, optimiser="sgd", warmup=0, decay="steps", weight_decay=0, clip=0,
                       keep="last")
    run(network, opt, data=data)
    batch, momentum = data.batch(np.arange(40)), [torch.zeros_like(p) for p in twin.parameters()]
    for rate in (0.1, 0.1, 0.01, 0.001):
        loss = nn.functional.cross_entropy(twin(batch.inputs).logits, batch.labels)
        grads = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for p, g, m in zip(twin.parameters(), grads, momentum):
                m.mul_(0.9).add_(g)
                p.sub_(rate * m)
    torch.testing.assert_close(weights(network), weights(twin))


def test_adamw_decays_matrices_but_not_biases():
    """With a learning rate that matters only through decay, what shrinks is what is decayed."""
    optimiser = train.make_optimiser(Optimisation(weight_decay=0.5), network := Linear())
    decayed = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decayed == {id(network.layer.weight): 0.5, id(network.layer.bias): 0.0}
    before = weights(network)
    run(network, Optimisation(epochs=1, batch_size=40, lr=0.01, warmup=0, decay="constant"))
    assert (weights(network) - before).abs().max() <= 0.0101  # Adam's first step has the size lr


def test_clipping_bounds_the_step():
    opt = {"epochs": 1, "batch_size": 40, "lr": 1.0, "optimiser": "sgd", "warmup": 0, "decay": "constant", "weight_decay": 0}
    moved = {}
    for clip in (0, 0.01):
        network = Linear()
        before = weights(network)
        run(network, Optimisation(**opt, clip=clip))
        moved[clip] = (weights(network) - before).norm().item()
    assert moved[0.01] == pytest.approx(0.01, rel=1e-3)
    assert moved[0] > 0.1


def test_frozen_embeddings_stay_and_the_rest_moves(text_task):
    prepared = prepare(text_task, "scratch-1x32", vocab=200)
    network = build("scratch-1x32", 3, seed=0, vocab=prepared.vocab)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.hf.mtkd_scratch = False  # as if it were pre-trained
    run(network, Optimisation(**{**vars(PLAIN), "freeze_embeddings": True}), data=prepared.data("train"))
    after = network.state_dict()
    assert torch.equal(after["hf.bert.embeddings.word_embeddings.weight"], before["hf.bert.embeddings.word_embeddings.weight"])
    moved = [k for k in after if not torch.equal(after[k], before[k])]
    assert "hf.classifier.weight" in moved
    assert "hf.bert.encoder.layer.0.output.dense.weight" in moved


# --- keeping and stopping ------------------------------------------------------------------------------------------------


class Scores:
    """A validation that gives the scores it was told to and remembers the weights it saw."""

    def __init__(self, *scores):
        self.scores, self.seen = list(scores), []

    def __call__(self, network):
        self.seen.append(weights(network))
        return self.scores[len(self.seen) - 1]


@pytest.mark.parametrize(("scores", "best"), [((0.1, 0.7, 0.3, 0.2), 1), ((0.9, 0.7, 0.3, 0.2), 0), ((0.1, 0.2, 0.3, 0.4), 3),
                                              ((0.1, 0.7, 0.7, 0.2), 1)])
def test_the_best_epoch_on_validation_is_what_remains(scores, best):
    network, validate = Linear(), Scores(*scores)
    history = run(network, Optimisation(epochs=4, batch_size=8, lr=0.01), validate=validate)
    assert history.best_epoch == best
    assert history.validation == list(scores)
    assert torch.equal(weights(network), validate.seen[best])
    assert not torch.equal(validate.seen[0], validate.seen[1])


def test_keep_last_keeps_the_last():
    network, validate = Linear(), Scores(0.9, 0.1, 0.2)
    run(network, Optimisation(epochs=3, batch_size=8, lr=0.01, keep="last"), validate=validate)
    assert torch.equal(weights(network), validate.seen[2])


@pytest.mark.parametrize("keep", ["best", "last"])
def test_patience_stops_after_so_many_epochs_without_a_better_score(keep):
    network, validate = Linear(), Scores(0.1, 0.5, 0.6, 0.4, 0.55, 0.9, 0.9)
    history = run(network, Optimisation(epochs=7, batch_size=8, lr=0.01, patience=2, keep=keep), validate=validate)
    assert history.validation == [0.1, 0.5, 0.6, 0.4, 0.55]
    assert torch.equal(weights(network), validate.seen[2 if keep == "best" else -1])


def test_validation_leaves_training_in_training_mode_and_changes_nothing():
    """A validation that puts the network into eval mode must not change what is learned."""
    quiet, looked_at = Linear(), Linear()
    validate = lambda n: compute_metrics(  # noqa: E731
        outputs.evaluate_logits(n, pixels(), CPU).numpy(), pixels().labels, ("accuracy",))["accuracy"]
    a, b = run(quiet, PLAIN), run(looked_at, PLAIN, validate=validate)
    assert a.losses == b.losses
    assert torch.equal(weights(quiet), weights(looked_at))
    assert looked_at.steps == 10  # counted in training mode only


# --- terms in the loop ---------------------------------------------------------------------------------------------------


def test_losses_are_recorded_per_term_and_weighed():
    said = outputs.StoredOutputs(pixels(), torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(0)))
    gold, soft = Term("cross_entropy"), Term("soft_cross_entropy", Uniform())
    both = run(Linear(), stage_terms=(gold, soft, soft), teachers=said)
    assert set(both.losses) == {"cross_entropy", "soft_cross_entropy#0", "soft_cross_entropy#1"}
    assert both.losses["soft_cross_entropy#0"] == both.losses["soft_cross_entropy#1"]
    silent = Term("soft_cross_entropy", Uniform(), weight=0.0)
    muted, alone = run(Linear(), stage_terms=(gold, silent), teachers=said), run(Linear(), stage_terms=(gold,))
    assert muted.losses["cross_entropy"] == alone.losses["cross_entropy"]
    assert both.losses["cross_entropy"] != alone.losses["cross_entropy"]
