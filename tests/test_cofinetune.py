"""Co-finetuning (mt_bert 2.1): really shared parameters, gradients from every teacher, one artifact, N = 1 as plain."""

import json

import pytest
import torch
from torch.testing import assert_close

from mtkd.errors import KitError
from mtkd.models import names as models
from mtkd.models.networks import TextNetwork
from mtkd.models.pooling import JointNetwork, PooledNetwork, Pooler, load_pooled
from mtkd.rules import losses
from mtkd.rules import matching as terms
from mtkd.rules.selection import Everyone, InverseLoss
from mtkd.tokens.batches import JointData
from mtkd.train import distil, outputs, teachers
from mtkd.train import loop as train
from mtkd.train.cofinetune import cofinetune, joint_network, stage_of
from mtkd.train.distil import Init, distill, finetune
from mtkd.train.prepare import prepare
from mtkd.train.recipes import CoFinetuned, Optimisation, Recipe, Stage, Term

FAMILIES = ["scratch-2x32", "roberta-scratch-2x32", "mpnet-scratch-2x48"]  # three families, tokenisers, and two widths
HOW = CoFinetuned(query=16)
OPT = Optimisation(epochs=4, batch_size=8, lr=3e-3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    from mtkd.store.artifacts import Store
    from tests.conftest import make_text_task

    return prepare(make_text_task(), FAMILIES[0], max_length=48, vocab=300, store=Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def together(prepared):
    return cofinetune(prepared, FAMILIES, HOW, 0, OPT)


def joint_batch(prepared, names, index):
    return JointData([prepared.of(n).data("train") for n in names]).batch(index)


# --- the pooler ----------------------------------------------------------------------------------------------------------


def test_attentive_pooling_by_hand():
    """Two tokens with scores ln 3 and 0 count 3/4 and 1/4; a padded one counts nothing."""
    pooler = Pooler("attentive", 1, 1)
    with torch.no_grad():
        pooler.key.weight.fill_(1.0)
        pooler.key.bias.zero_()
        pooler.query.weight.fill_(1.0)
    x = torch.atanh(torch.log(torch.tensor(3.0)) / 2)                  # tanh(x) = ln 3 / 2, and -x gives minus that
    states, mask = torch.tensor([[[x], [-x], [9.0]]]), torch.tensor([[1, 1, 0]])
    assert_close(pooler.weights(states, mask), torch.tensor([[0.75, 0.25, 0.0]]))
    assert_close(pooler(states, mask), torch.tensor([[0.5 * x]]))


def test_mean_and_cls_pooling():
    states, mask = torch.arange(6.0).reshape(1, 3, 2), torch.tensor([[1, 1, 0]])
    assert Pooler("mean", 2)(states, mask).tolist() == [[1.0, 2.0]]
    assert Pooler("cls", 2)(states, mask).tolist() == [[0.0, 1.0]]
    assert Pooler("cls", 2)(states, mask, cls=-1).tolist() == [[4.0, 5.0]]  # XLNet's place
    with pytest.raises(KitError, match="no such pooler: 'max'; there are attentive, mean, cls"):
        Pooler("max", 2)


@pytest.mark.parametrize("kind", ["attentive", "mean", "cls"])
@pytest.mark.parametrize("family", ["scratch-1x32", "xlnet-scratch-1x32"])
def test_padding_does_not_change_a_pooled_network(prepared, kind, family):
    own = prepared.of(family)
    network = models.build(f"{family} + {kind}", 3, seed=0, vocab=own.vocab, tokens=own.special_ids).eval()
    data = own.data("train")
    order = data.lengths.argsort()
    short, both = data.batch(order[:1]), data.batch(order[[0, -1]])
    assert both.mask.shape[1] > short.mask.shape[1]
    with torch.no_grad():
        assert_close(network(both.inputs).logits[0], network(short.inputs).logits[0], atol=1e-5, rtol=1e-4)


# --- sharing -------------------------------------------------------------------------------------------------------------


def test_pooler_and_dense_layer_are_one_object_for_all_teachers(prepared):
    network = joint_network(prepared, FAMILIES, HOW, 0)
    members = [network.member(i) for i in range(3)]
    assert all(m.pooler is network.pooler and m.dense is network.dense for m in members)
    names = [n for n, _ in network.named_parameters()]
    assert sum(n.startswith("dense.") for n in names) == 2            # weight and bias, once
    assert sum("pooler" in n for n in names) == 3                     # key weight and bias, query; no encoder's own pooler
    assert [m.adapt is None for m in members] == [False, False, True]  # the widest sets the shared width


def test_every_teacher_sends_gradients_to_the_shared_layers_and_to_itself_only(prepared):
    network = joint_network(prepared, FAMILIES, HOW, 0)
    batch = joint_batch(prepared, FAMILIES, torch.arange(6).numpy())
    shared = [*network.pooler.parameters(), *network.dense.parameters()]
    heads = network(batch.inputs).heads
    assert heads.shape == (6, 3, 3)
    parts = []
    for i in range(3):
        one = losses.cross_entropy(heads[:, i], batch.labels).mean()
        parts.append(torch.autograd.grad(one, shared, retain_graph=True))
        assert all(g.abs().sum() > 0 for g in parts[-1])
        for j in range(3):
            own = list(network.encoders[j].parameters())
            reached = torch.autograd.grad(one, own, retain_graph=True, allow_unused=True)
            assert any(g is not None and g.abs().sum() > 0 for g in reached) == (i == j)
    total = torch.autograd.grad(losses.cofinetuning(heads, batch.labels).mean(), shared)
    for k in range(len(shared)):
        assert_close(total[k], sum(p[k] for p in parts))


def test_the_summed_loss_by_hand():
    heads = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])
    assert losses.cofinetuning(heads, torch.tensor([0])).item() == pytest.approx(0.126928 + 0.693147, abs=1e-5)


def test_a_set_of_one_is_plain_finetuning_with_that_pooler(prepared):
    """Same start, same steps, same losses and logits, up to the rounding of sums over one head."""
    name, one = FAMILIES[1], CoFinetuned(query=200)
    alone = finetune(prepared.of(name), f"{name} + attentive", [7], OPT)[0]
    joined = cofinetune(prepared, [name], one, 7, OPT)[0]
    assert_close(joined.logits("test"), alone.logits("test"), atol=1e-4, rtol=1e-3)
    assert joined.metrics == alone.metrics
    assert joined.info["history"]["losses"]["cross_entropy"] == pytest.approx(alone.info["history"]["losses"]["cross_entropy"])


def test_every_loss_falls_for_three_families_with_three_tokenisers(prepared):
    network = joint_network(prepared, FAMILIES, HOW, 0)
    data = JointData([prepared.of(n).data("train") for n in FAMILIES])
    batch = data.batch(torch.arange(60).numpy())
    assert len({v["input_ids"].shape[1] for v in batch.inputs.values()}) > 1  # they do read other tokens

    def each():
        with torch.no_grad():
            heads = network.eval()(batch.inputs).heads
        return [losses.cross_entropy(heads[:, i], batch.labels).mean().item() for i in range(3)]

    before = each()
    modules, _, _ = terms.prepare_stage(stage_of(OPT), terms.Setting({}, [], heads=3))
    train.fit(network, data, stage_of(OPT), modules, seed=0, device=torch.device("cpu"))
    assert all(b < 0.7 * a for a, b in zip(before, each()))


# --- the artifact --------------------------------------------------------------------------------------------------------


def test_one_artifact_with_the_head_once(prepared, together):
    folder = together[0].folder.parent
    assert [m.folder.name for m in together] == ["teacher-0", "teacher-1", "teacher-2"]
    assert all(m.folder.parent == folder for m in together)
    assert (folder / "head.safetensors").is_file()
    assert not list(folder.glob("teacher-*/head.safetensors"))
    assert (folder / "teacher-0" / "adapt.safetensors").is_file()
    assert len({m.key for m in together}) == 3
    again = cofinetune(prepared, FAMILIES, HOW, 0, OPT)
    assert all(m.reused for m in again)
    assert [m.key for m in again] == [m.key for m in together]


def test_a_loaded_teacher_says_what_the_stored_logits_say(prepared, together):
    for teacher in together:
        own = prepared.of(teacher)
        assert own.fingerprint == teacher.info["input"]
        network = teacher.network()
        assert isinstance(network, PooledNetwork)
        found = outputs.evaluate_logits(network, own.data("test"), torch.device("cpu"))
        assert_close(found, teacher.logits("test"), atol=1e-6, rtol=1e-5)
        assert teacher.metrics["test"] == distil.metrics(own, "test", teacher.logits("test"))


def test_plain_transformers_loads_the_encoder(together):
    import transformers

    for teacher in together:
        encoder = transformers.AutoModel.from_pretrained(teacher.folder)
        words = transformers.AutoTokenizer.from_pretrained(teacher.folder)
        states = encoder(**words("the old boat", return_tensors="pt")).last_hidden_state
        assert states.shape[-1] == teacher.shape["width"]


def test_another_set_is_another_artifact(prepared, together):
    two = cofinetune(prepared, FAMILIES[:2], HOW, 0, Optimisation(epochs=1, batch_size=8))
    assert two[0].folder.parent != together[0].folder.parent


def test_a_teacher_starts_alike_in_every_set(prepared):
    """One seed per member: position in the set does not matter to an encoder, and counted seeds are the same artifact."""
    three, two = joint_network(prepared, FAMILIES, HOW, 7, (7, 8, 9)), joint_network(prepared, FAMILIES[1:], HOW, 7, (8, 9))
    for mine, theirs in zip(two.encoders, three.encoders[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True))
    quick = Optimisation(epochs=1, batch_size=30)
    counted, other = (cofinetune(prepared, FAMILIES[1:], HOW, 7, quick, seeds) for seeds in ((7, 8), (8, 9)))
    assert cofinetune(prepared, FAMILIES[1:], HOW, 7, quick)[0].key == counted[0].key != other[0].key
    with pytest.raises(KitError, match="one seed per teacher, and there are 1 seeds and 2 teachers"):
        cofinetune(prepared, FAMILIES[1:], HOW, 7, quick, (8,))


def test_a_missing_head_is_said(together, tmp_path):
    import shutil

    copy = shutil.copytree(together[0].folder, tmp_path / "alone" / "teacher-0")
    with pytest.raises(KitError, match=r"the pooler and dense layer of .* are missing"):
        load_pooled(copy)


def test_what_cannot_be_cofinetuned(prepared, regression_task):
    with pytest.raises(KitError, match="at least one teacher"):
        cofinetune(prepared, [], HOW, 0, OPT)
    other = prepare(regression_task, FAMILIES[0], vocab=60, store=prepared.store)
    with pytest.raises(KitError, match="pools whole texts into classes"):
        cofinetune(other, FAMILIES, HOW, 0, OPT)
    with pytest.raises(KitError, match="needs a network with several heads"):
        terms.prepare(Term("cross_entropy", combine="heads"), terms.Setting({}, []))


# --- MT-BERT itself ------------------------------------------------------------------------------------------------------

FULL = (Term("multi_hidden", Everyone()), Term("soft_cross_entropy", InverseLoss(), combine="losses"), Term("cross_entropy"))


def test_equation_1_equals_the_term(prepared, together):
    """The loop's term against the sum written out (losses.multi_teacher_hidden), for three aligned teachers."""
    network = distil.fresh(prepared, "scratch-2x32 + attentive", 0)
    setting = terms.Setting(network.shape, [t.shape for t in together])
    module = terms.prepare(Term("multi_hidden", Everyone()), setting)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    assert sorted(module.maps) == ["0-1", "0-2", "1-1", "1-2", "2-1", "2-2"]  # one W per teacher and layer
    assert module.maps["2-1"].weight.shape == (32, 48)                        # on the teacher's side
    stage, recipe = Stage("s", FULL), Recipe("mt", (Stage("s", FULL),), HOW)
    needs = {t: module.needs(t) for t in range(3)}
    said = teachers.gather(prepared, together, recipe, stage, "train", needs, torch.device("cpu"))
    batch = prepared.data("train").batch(torch.arange(5).numpy())
    said = said.batch(batch)
    out = network(batch.inputs, frozenset({"hidden"}))
    got = module(out, said, batch, torch.ones(5, 3))
    assert all(said.seen[t][batch.mask].all() for t in (1, 2))                # nothing of these short texts is cut off
    expected = losses.multi_teacher_hidden(
        [out.hidden[1], out.hidden[2]],
        [[module.maps[f"{t}-{j}"](said.hidden[t][j]) for j in (1, 2)] for t in range(3)], batch.mask.float())
    assert_close(got, expected)


def test_equation_2_equals_the_term(prepared):
    torch.manual_seed(0)
    z, s, y = torch.randn(4, 3, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 4])
    term = Term("soft_cross_entropy", InverseLoss(), combine="losses", temperature=2.0)
    module = terms.prepare(term, terms.Setting({}, [{}, {}, {}]))
    said = outputs.TeacherBatch(z)
    from mtkd.tokens.batches import Batch

    batch = Batch(torch.arange(4).numpy(), {}, y)
    weights = term.selection.weights(batch, said, 0, None)
    got = module(outputs_of(s), said, batch, weights)
    assert_close(got, losses.multi_teacher_distillation(s, z, y, temperature=2.0))


def outputs_of(logits):
    from mtkd.models.networks import Outputs

    return Outputs(logits)


def test_a_student_from_lower_layers_and_the_shared_head(prepared, together):
    last = together[2]
    own = prepared.of(last)
    network = distil.fresh(own, "bottom-1 of teacher + attentive-16", 0, Init(last, last))
    teacher = last.network()
    assert network.shape["layers"] == 1
    assert torch.equal(network.encoder.get_input_embeddings().weight, teacher.encoder.get_input_embeddings().weight)
    first = {k: v for k, v in teacher.encoder.state_dict().items() if ".layer.0." in k}
    assert first
    assert all(torch.equal(network.encoder.state_dict()[k], v) for k, v in first.items())
    assert torch.equal(network.dense.weight, teacher.dense.weight)
    assert torch.equal(network.pooler.query.weight, teacher.pooler.query.weight)
    narrow = distil.fresh(prepared, "bottom-1 of teacher + attentive-16", 0, Init(together[0], last))  # last has no map
    assert narrow.adapt is not None                                           # 32 wide in front of a head of 48
    with pytest.raises(KitError, match="cannot be taken over"):
        distil.fresh(prepared, "scratch-1x32", 0, Init(None, last))
    with pytest.raises(KitError, match="takes its layers from a finished teacher"):
        models.root("bottom-1 of teacher")


def test_all_layers_and_the_head_of_a_narrow_member_say_what_it_says(prepared, together):
    """Its learned map to the shared width goes along; nothing of the student is new."""
    for teacher in together:
        own = prepared.of(teacher)
        network = distil.fresh(own, "bottom-2 of teacher + attentive-16", 5, Init(teacher, teacher))
        assert (network.adapt is None) == (teacher.shape["width"] == 48)
        found = outputs.evaluate_logits(network, own.data("test"), torch.device("cpu"))
        assert_close(found, teacher.logits("test"), atol=1e-5, rtol=1e-5)


def taught(prepared, together, budget, monkeypatch):
    """An MT-BERT student whose teachers' states were stored, or with a budget of 0 came from teachers that ran along."""
    monkeypatch.setattr(teachers, "STATES_BUDGET", budget)
    recipe = Recipe(f"mt_bert{budget}", (Stage(f"task{budget}", FULL, OPT),), HOW)
    return distill(prepared, together, "scratch-1x32 + attentive", recipe, seed=1)


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_mt_bert_runs_in_the_loop_from_stored_and_from_live_states(prepared, together, budget, monkeypatch):
    student = taught(prepared, together, budget, monkeypatch)
    ends = student.info["history"]["losses"]
    assert set(ends) == {"multi_hidden", "soft_cross_entropy", "cross_entropy"}
    assert all(last < first for first, last in ends.values()), ends
    about = json.loads((student.folder / "head.json").read_text())
    assert about["labels"] == list(prepared.task.classes)
    assert (student.folder / "head.safetensors").is_file()


def test_both_roads_train_the_same_student(prepared, together, monkeypatch):
    one, two = (taught(prepared, together, budget, monkeypatch) for budget in (1 << 30, 0))
    assert one.key != two.key                                                 # two students, not one from the store
    assert_close(one.logits("test"), two.logits("test"), atol=2e-3, rtol=1e-3)


def test_teachers_are_left_alone(prepared, together, monkeypatch):
    """Distilling neither changes a teacher that runs along nor reaches it with a gradient."""
    live = []

    class Watched(outputs.LiveOutputs):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            live.append((self, [{k: v.clone() for k, v in n.state_dict().items()} for n in self.networks]))

    monkeypatch.setattr(teachers.outputs, "LiveOutputs", Watched)
    monkeypatch.setattr(teachers, "STATES_BUDGET", 0)
    files = {path: path.read_bytes() for path in together[0].folder.parent.rglob("*.safetensors")}
    recipe = Recipe("left alone", (Stage("left alone", FULL, OPT),), HOW)
    assert not distill(prepared, together, "scratch-1x32 + attentive", recipe, seed=2).reused
    (said, before), = live
    assert len(said.networks) == len(before) == 3
    for network, old in zip(said.networks, before, strict=True):
        new = network.state_dict()
        assert new.keys() == old.keys()
        assert all(torch.equal(new[name], old[name]) for name in old)
        assert all(not p.requires_grad and p.grad is None for p in network.parameters())
        assert not network.training
    assert files == {path: path.read_bytes() for path in together[0].folder.parent.rglob("*.safetensors")}


def test_what_a_teacher_loads_as(together):
    assert isinstance(together[0].network(), PooledNetwork)
    assert not isinstance(together[0].network(), TextNetwork | JointNetwork)


def test_frozen_embeddings_are_the_pretrained_ones_only(prepared, together):
    """A model from scratch would keep random embeddings for ever; one loaded from a folder has something to keep."""
    for name in ("roberta-scratch-1x32", "roberta-scratch-1x32 + attentive"):
        own = prepared.of(name)
        network = models.build(name, 3, seed=0, vocab=own.vocab, tokens=own.special_ids)
        network.freeze_embeddings()
        assert all(p.requires_grad for p in network.parameters())
    for network in (together[0].network(), distil.fresh(prepared, "bottom-1 of teacher", 0, Init(together[0]))):
        network.freeze_embeddings()
        frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
        assert len(frozen) == 1
        assert "word_embeddings" in frozen[0]
    joint = joint_network(prepared, FAMILIES, HOW, 0)
    joint.freeze_embeddings()
    assert all(p.requires_grad for p in joint.parameters())
