"""Teacher outputs: stored or computed on the fly, the same numbers; found by id, never by position."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.models.names import build
from mtkd.rules import matching as terms
from mtkd.rules.selection import Primary, Uniform
from mtkd.tokens.batches import iterate
from mtkd.train import distil, outputs, recipes, teachers
from mtkd.train import loop as train
from mtkd.train.outputs import LiveOutputs, Needs, Packed, StoredOutputs
from mtkd.train.prepare import Views, prepare
from mtkd.train.recipes import Optimisation, Stage, Term

CPU = torch.device("cpu")
OPT = Optimisation(epochs=2, batch_size=8, lr=2e-3, keep="last")
TERMS = (Term("embedding_mse", Primary(1)), Term("hidden_mse", Uniform()), Term("attention_mse", Primary(1)),
         Term("cosine", Primary(0)), Term("soft_cross_entropy", Uniform()), Term("cross_entropy"))


@pytest.fixture
def prepared(text_task):
    return prepare(text_task, "scratch-2x32", vocab=200)


def make_teachers(prepared, n=2):
    """Untrained teachers without dropout, set to training mode: whoever uses them has to set them right."""
    return [build("scratch-2x32", 3, seed=100 + i, vocab=prepared.vocab).train() for i in range(n)]


def stored(prepared, networks, needs, split="train"):
    data = prepared.data(split)
    logits = torch.stack([outputs.score_all_views(n, data, CPU) for n in networks], 1)
    states = {}
    for t, need in needs.items():
        kept = outputs.pack_states(networks[t], data, need, CPU)
        states[t] = Packed(need, prepared.fingerprint, kept.get("hidden"), kept.get("attention"))
    return StoredOutputs(data, logits, states)


def student_run(prepared, said, stage_terms=TERMS, n=2, seed=3):
    network = build("scratch-1x32", 3, seed=0, vocab=prepared.vocab)
    shape = {"layers": 2, "width": 32, "heads": 4}
    stage = Stage("all", stage_terms, OPT)
    torch.manual_seed(0)
    modules, _, want = terms.prepare_stage(stage, terms.Setting(network.shape, [shape] * n))
    history = train.fit(network, prepared.data("train"), stage, modules, said, want=want, seed=seed, device=CPU)
    return history.losses, network


def needs_of(stage_terms=TERMS, n=2):
    shape = {"layers": 2, "width": 32, "heads": 4}
    student = {"layers": 1, "width": 32, "heads": 4}
    return terms.prepare_stage(Stage("all", stage_terms), terms.Setting(student, [shape] * n))[1]


def close(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    for name in one:
        assert len(one[name]) == len(other[name]) == 16
        assert_close(torch.tensor(one[name]), torch.tensor(other[name]), atol=tolerance, rtol=tolerance)


def test_cached_and_on_the_fly_training_give_the_same_losses_step_by_step(prepared):
    networks, needs = make_teachers(prepared), needs_of()
    assert needs == {0: Needs(hidden=(2,)), 1: Needs(hidden=(0, 2), attention=(2,))}
    table = stored(prepared, networks, needs)
    from_store, a = student_run(prepared, table)
    on_the_fly, b = student_run(prepared, LiveOutputs(networks, needs, CPU))
    half_and_half, _ = student_run(prepared, LiveOutputs(networks, needs, CPU, StoredOutputs(table.data, table.logits)))
    assert len(from_store) == 6
    close(from_store, on_the_fly)
    close(from_store, half_and_half)
    for name, values in a.state_dict().items():
        assert_close(values, b.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_a_table_in_the_wrong_order_would_show(prepared):
    """The test above can fail: one row further, and the losses are others."""
    networks, needs = make_teachers(prepared), needs_of()
    table = stored(prepared, networks, needs)
    right, _ = student_run(prepared, table)
    wrong, _ = student_run(prepared, StoredOutputs(table.data, table.logits.roll(1, 0), table.states))
    with pytest.raises(AssertionError):
        close(right, wrong)


def test_packed_states_are_the_direct_ones(prepared):
    network, data = make_teachers(prepared, 1)[0].eval(), prepared.data("train")
    needs = Needs(hidden=(0, 1, 2), attention=(1, 2))
    table = stored(prepared, [network], {0: needs})
    for batch in iterate(data, 7, np.random.default_rng(0)):
        found = table.batch(batch)
        with torch.no_grad():
            direct = network(batch.inputs, needs.want)
        assert_close(found.logits[:, 0], direct.logits, atol=1e-5, rtol=1e-5)
        pairs = (batch.mask[:, :, None] & batch.mask[:, None, :]).unsqueeze(1)
        for k in needs.hidden:
            real = batch.mask.unsqueeze(-1)
            assert_close(found.hidden[0][k], direct.hidden[k] * real, atol=1e-5, rtol=1e-5)
        for k in needs.attention:
            assert_close(found.attention[0][k], direct.attention[k - 1] * pairs, atol=1e-5, rtol=1e-5)


def test_packed_bytes_are_the_bytes_kept(prepared):
    needs = Needs(hidden=(0, 2), attention=(1,))
    network = make_teachers(prepared, 1)[0]
    kept = outputs.pack_states(network, prepared.data("train"), needs, CPU)
    assert outputs.packed_bytes(prepared.data("train"), needs, network.shape) == sum(t.nbytes for t in kept.values())


def test_teachers_stay_as_they_are(prepared):
    networks, needs = make_teachers(prepared), needs_of()
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in networks]
    student_run(prepared, LiveOutputs(networks, needs, CPU))
    for network, old in zip(networks, before):
        assert not network.training
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
        assert all(torch.equal(v, old[k]) for k, v in network.state_dict().items())


def test_scoring_leaves_no_gradient_and_does_not_depend_on_batches(prepared, monkeypatch):
    network, data = make_teachers(prepared, 1)[0], prepared.data("test")
    whole = outputs.evaluate_logits(network, data, CPU)
    monkeypatch.setattr(outputs, "SCORING_BATCH", 1)
    assert_close(outputs.evaluate_logits(network, data, CPU), whole, atol=1e-5, rtol=1e-5)
    assert not whole.requires_grad
    assert not network.training
    for i in (0, 11):
        alone = network(data.batch(np.array([i])).inputs).logits[0]
        assert_close(alone.detach(), whole[i], atol=1e-5, rtol=1e-5)


def test_identical_teachers_equal_one(prepared):
    one = make_teachers(prepared, 1)
    soft = (Term("soft_cross_entropy", Uniform()),)
    single, _ = student_run(prepared, stored(prepared, one, {}), soft, 1)
    several, _ = student_run(prepared, stored(prepared, one * 3, {}), soft, 3)
    close(single, several)


def test_permuted_teachers_give_the_same_training(prepared):
    a, b, c = make_teachers(prepared, 3)
    def follow(*of):
        return Term("soft_cross_entropy", Uniform(of)), Term("hidden_mse", Primary(of[0]))

    one, _ = student_run(prepared, LiveOutputs([a, b, c], needs_of(follow(0, 2), 3), CPU), follow(0, 2), 3)
    two, _ = student_run(prepared, LiveOutputs([c, a, b], needs_of(follow(1, 0), 3), CPU), follow(1, 0), 3)
    close(one, two)


# --- by id ---------------------------------------------------------------------------------------------------------------


def test_a_shuffled_table_gives_the_same_training(prepared):
    networks = make_teachers(prepared)
    soft = (Term("soft_cross_entropy", Uniform()),)
    table = stored(prepared, networks, {})
    order = np.random.default_rng(0).permutation(60)
    ids = [table.data.ids[i] for i in order]
    logits = torch.stack([outputs.align(table.data.row_ids, ids, table.logits[order, t], "a table") for t in range(2)], 1)
    assert torch.equal(logits, table.logits)
    assert not torch.equal(table.logits[order], table.logits)
    assert student_run(prepared, StoredOutputs(table.data, logits), soft)[0] == student_run(prepared, table, soft)[0]


def test_a_table_may_hold_more_but_not_less():
    table = torch.arange(6.0).reshape(3, 2)
    assert outputs.align(["c", "a"], ["a", "b", "c"], table, "it").tolist() == [[4, 5], [0, 1]]
    with pytest.raises(KitError, match=r"the table x\.csv has no logits for sample 'e' \(and 1 more\)"):
        outputs.align(["a", "e", "f"], ["a", "b", "c"], table, "the table x.csv")


def test_ids_survive_the_file(tmp_path):
    from mtkd.store.artifacts import tensors_save

    ids = ["plain", "with space", "Übung/3", "a/0/1"]
    assert outputs.ids_from(outputs.ids_tensor(ids)) == ids
    tensors_save(tmp_path / "x.safetensors", {"ids": outputs.ids_tensor(ids), "logits": torch.arange(8.0).reshape(4, 2)})
    assert outputs.read_logits(tmp_path / "x.safetensors", ids[::-1]).tolist() == [[6, 7], [4, 5], [2, 3], [0, 1]]


def test_tables_of_the_wrong_size_or_tokeniser_are_refused(prepared):
    data = prepared.data("train")
    with pytest.raises(KitError, match="59 rows for 60 samples"):
        StoredOutputs(data, torch.zeros(59, 1, 3))
    with pytest.raises(KitError, match="another tokeniser"):
        StoredOutputs(data, torch.zeros(60, 1, 3), {0: Packed(Needs((1,)), "other", torch.zeros(9, 1, 32), None)})


def test_scores_of_views_sit_in_their_rows(image_task):
    prepared = prepare(image_task, "resnet-8w8", views=Views(3, crop=2))
    network, data = build("resnet-8w8", 3, seed=0, channels=1), prepared.data("train")
    table = outputs.score_all_views(network, data, CPU)
    assert table.shape == (180, 3)
    said = StoredOutputs(data, table.unsqueeze(1))
    for view in range(5):
        batch = data.batch(np.array([40, 3, 17]), view)
        with torch.no_grad():
            assert_close(said.batch(batch).logits[:, 0], network(batch.inputs).logits, atol=1e-5, rtol=1e-5)


# --- through the store ---------------------------------------------------------------------------------------------------


def test_a_budget_of_nothing_gives_the_same_student_as_the_store(prepared, monkeypatch):
    """Beyond the budget for inner states the teacher runs along; students are the same to rounding."""
    pool = distil.finetune(prepared, "scratch-2x32", (0, 1), OPT)
    recipe = recipes.tinybert((0, 1), 1, intermediate=OPT, prediction=OPT)
    recipe = replace(recipe, stages=recipe.stages[:1])
    setting = terms.Setting({"layers": 1, "width": 32, "heads": 4}, [t.shape for t in pool])
    _, needs, _ = terms.prepare_stage(recipe.stages[0], setting)
    cached = teachers.gather(prepared, pool, recipe, recipe.stages[0], "train", needs, CPU)
    monkeypatch.setattr(teachers, "STATES_BUDGET", 0)
    live = teachers.gather(prepared, pool, recipe, recipe.stages[0], "train", needs, CPU)
    assert isinstance(cached, StoredOutputs)
    assert isinstance(live, LiveOutputs)
    assert set(cached.states) == {1}
    close(student_run(prepared, cached, recipe.stages[0].terms)[0], student_run(prepared, live, recipe.stages[0].terms)[0])


def test_a_score_artifact_is_keyed_by_teacher_and_split_and_holds_ids(prepared):
    pool = distil.finetune(prepared, "scratch-1x32", (0, 1), OPT)
    found = teachers.score(prepared, pool[0], "validation")
    assert not found.reused
    assert teachers.score(prepared, pool[0], "validation").reused
    assert not teachers.score(prepared, pool[1], "validation").reused
    from mtkd.store.artifacts import tensors_load

    kept = tensors_load(found.folder / "logits.safetensors")
    assert outputs.ids_from(kept["ids"]) == prepared.task.splits["validation"].ids
    assert_close(kept["logits"], pool[0].logits("validation"), atol=1e-5, rtol=1e-5)


def test_controls_take_knowledge_away_and_nothing_else():
    logits = torch.randn(50, 2, 3)
    shuffled = teachers.control(logits, "shuffled")
    assert not torch.equal(shuffled, logits)
    assert_close(shuffled.sort(0).values, logits.sort(0).values)
    rows = {tuple(r.flatten().tolist()) for r in logits}
    assert all(tuple(r.flatten().tolist()) in rows for r in shuffled)  # teachers stay together
    assert torch.equal(shuffled, teachers.control(logits, "shuffled"))
    assert teachers.control(logits, "uniform").abs().sum() == 0
    assert teachers.control(logits, None) is logits
    with pytest.raises(KitError, match="no such control: 'noise'"):
        teachers.control(logits, "noise")
