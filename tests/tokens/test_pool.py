"""Pools: the same student as from memory, every row once, logits found by id, and what happens when files are not right."""

import csv
import gc
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from mtkd.data import files
from mtkd.data.tasks import Split
from mtkd.errors import KitError
from mtkd.models.names import build
from mtkd.rules import matching as terms
from mtkd.rules.selection import Chosen, Primary, Uniform
from mtkd.store import artifacts as store
from mtkd.tokens import batches as data
from mtkd.tokens import pool
from mtkd.tokens.batches import Pooled
from mtkd.tokens.pool import attach, boundaries
from mtkd.train import distil, outputs, poolscores, teachers
from mtkd.train import loop as train
from mtkd.train.poolscores import StreamedOutputs
from mtkd.train.prepare import prepare
from mtkd.train.recipes import Independent, Optimisation, Recipe, Stage, Term
from tests.conftest import make_image_task, make_pair_task, make_regression_task, make_text_task, sentences

CPU = torch.device("cpu")
N = 150  # rows of the test pools: 12 shards of at most 16 rows, read 32 or so at a time
OPT = Optimisation(epochs=3, batch_size=8, lr=2e-3, keep="last")
KD = (Term("soft_cross_entropy", Uniform()),)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(pool, "FIRST", 4)
    monkeypatch.setattr(pool, "LARGEST", 16)
    monkeypatch.setattr(data, "GROUP", 32)


def unlabelled(task, n=N):
    """The task with an unlabelled split of texts or pairs of its kind."""
    first, second = sentences(n, 70)[0], sentences(n, 71)[0]
    inputs = list(zip(first, second)) if task.kind == "pair" else [(t,) for t in first]
    labels = np.full(n, np.nan, np.float32) if task.regression else np.full(n, -1)
    return replace(task, splits=task.splits | {"unlabelled": Split([f"u{i}" for i in range(n)], inputs, labels)})


@pytest.fixture(params=["text", "pair"])
def prepared(request):
    task = make_pair_task() if request.param == "pair" else make_text_task()
    return prepare(unlabelled(task), "scratch-1x32", vocab=200)


@pytest.fixture
def texts():
    return prepare(unlabelled(make_text_task()), "scratch-1x32", vocab=200)


def one_group(monkeypatch):
    monkeypatch.setattr(data, "GROUP", 10 * N)


def recipe(where, stage_terms=KD, **more):
    return Recipe("kd", (Stage("kd", stage_terms, OPT, data=where),), **more)


def pool_of_teachers(prepared, n=2):
    return distil.finetune(prepared, "scratch-1x32", range(n), replace(OPT, epochs=1))


def kinds(prepared):
    return {kind: found["artifacts"] for kind, found in prepared.store.usage().items()}


# ---- shards and order ----

@given(st.integers(1, 300), st.integers(1, 300))
def test_sizes_are_prefixes(one, other):
    small, big = boundaries(min(one, other)), boundaries(max(one, other))
    assert small[0] == 0
    assert small[-1] == min(one, other)
    assert (np.diff(small) > 0).all()
    assert small[:-1].tolist() == big[:len(small) - 1].tolist()  # all but the last shard are shared
    assert np.diff(small).max() <= 16


def hollow(n):
    """A pool without files: enough to plan with."""
    lengths = np.random.default_rng(n).integers(3, 20, n)
    return Pooled(range(n), None, None, np.concatenate([[0], np.cumsum(lengths)]), None, 0, "", ends=boundaries(n))


@given(st.integers(1, 400), st.integers(1, 40), st.booleans())
def test_every_row_once_per_epoch_and_all_batches_but_one_full(n, batch_size, shuffled):
    found, rng = hollow(n), np.random.default_rng(7) if shuffled else None
    for _ in range(2):
        batches = list(data.plan(found, batch_size, rng))
        assert sorted(np.concatenate(batches).tolist()) == list(range(n))
        sizes = sorted(map(len, batches))
        assert len(sizes) == -(-n // batch_size)  # what the learning rate's schedule counts on
        assert sizes[1:] == [batch_size] * (len(sizes) - 1)


def test_a_pool_that_fits_into_one_group_is_read_as_the_split_is(prepared, monkeypatch):
    one_group(monkeypatch)
    attach(prepared)
    streamed, whole = prepared.data("pool"), prepared.data("unlabelled")
    assert isinstance(streamed, Pooled)
    assert len(streamed.folders) == 12
    for rng in (None, 5):
        plans = [list(data.plan(d, 8, rng and np.random.default_rng(rng))) for d in (streamed, whole)]
        assert [b.tolist() for b in plans[0]] == [b.tolist() for b in plans[1]]
        for index in plans[0]:
            one, other = streamed.batch(index), whole.batch(index)
            assert one.rows.tolist() == other.rows.tolist()
            assert one.inputs.keys() == other.inputs.keys()
            for name, values in one.inputs.items():
                assert torch.equal(values, other.inputs[name])
            assert torch.equal(one.labels, other.labels)
            assert torch.equal(one.mask, other.mask)


def test_labels_of_a_regression_are_missing_numbers():
    prepared = prepare(unlabelled(make_regression_task()), "scratch-1x32", vocab=200)
    attach(prepared)
    batch = prepared.data("pool").batch(np.array([1, 100]))
    assert batch.labels.dtype == torch.float32
    assert batch.labels.isnan().all()


def test_padding_on_the_left(monkeypatch):
    one_group(monkeypatch)
    prepared = prepare(unlabelled(make_text_task()), "xlnet-scratch-1x32", vocab=200)
    attach(prepared)
    one, other = (prepared.data(name).batch(np.array([3, 140, 77])) for name in ("pool", "unlabelled"))
    assert torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])
    assert not one.mask[:, 0].all()


# ---- training ----

def student_run(prepared, where, said, stage_terms=KD):
    network = build("scratch-1x32", prepared.task.outputs, seed=0, vocab=prepared.vocab)
    shape = {"layers": 1, "width": 32, "heads": 4}
    stage = Stage("kd", stage_terms, OPT, data=where)
    torch.manual_seed(0)
    modules, _, want = terms.prepare_stage(stage, terms.Setting(network.shape, [shape] * 2, labelled=False))
    history = train.fit(network, prepared.data(where), stage, modules, said, want=want, seed=3, device=CPU)
    return history, network.state_dict()


def in_memory(prepared, pair):
    """A table of the logits that the pool's shards hold, for the split in memory."""
    files = [poolscores.score(prepared, teacher, "pool").files for teacher in pair]
    said = StreamedOutputs(prepared.data("pool"), files, prepared.task.outputs)
    rows = torch.cat([said.shard(k) for k in range(len(files[0]))])
    return outputs.StoredOutputs(prepared.data("unlabelled"), rows), said


def test_streamed_training_gives_the_same_student_as_the_split_in_memory(prepared, monkeypatch):
    one_group(monkeypatch)
    attach(prepared)
    whole, streamed = in_memory(prepared, pool_of_teachers(prepared))
    one, a = student_run(prepared, "pool", streamed)
    other, b = student_run(prepared, "unlabelled", whole)
    assert one.steps == other.steps == 57  # more than CHECK_EVERY: losses are settled in parts
    assert one.losses == other.losses
    assert len(one.losses["soft_cross_entropy"]) == 57
    assert one.losses["soft_cross_entropy"][-1] < one.losses["soft_cross_entropy"][0]
    for name, values in a.items():
        assert torch.equal(values, b[name]), name


def test_in_other_orders_the_logits_still_belong_to_their_rows(prepared):
    attach(prepared)
    pair = pool_of_teachers(prepared)
    whole, streamed = in_memory(prepared, pair)
    # and these are what the networks say of the texts, in whatever batches they are asked
    for t, teacher in enumerate(pair):
        logits = outputs.evaluate_logits(teacher.network(), prepared.data("unlabelled"), CPU)
        assert_close(whole.logits[:, t], logits, atol=1e-5, rtol=1e-4)
    seen = 0
    for index in data.plan(prepared.data("pool"), 8, np.random.default_rng(0)):
        batch = prepared.data("pool").batch(index)
        assert torch.equal(streamed.batch(batch).logits, whole.logits[index])
        seen += len(index)
    assert seen == N
    history, _ = student_run(prepared, "pool", streamed)
    assert (history.steps, history.samples) == (57, 3 * N)


def test_a_stage_of_a_recipe_reads_a_pool(texts, monkeypatch):
    one_group(monkeypatch)
    pair = pool_of_teachers(texts)
    attach(texts)
    streamed = distil.distill(texts, pair, "scratch-1x32", recipe("pool"))
    whole = distil.distill(texts, pair, "scratch-1x32", recipe("unlabelled"))
    assert set(streamed.metrics) == {"validation", "test"}
    assert distil.distill(texts, pair, "scratch-1x32", recipe("pool")).reused
    assert streamed.key != whole.key
    ends = [model.info["history"]["losses"]["soft_cross_entropy"] for model in (streamed, whole)]
    assert_close(torch.tensor(ends[0]), torch.tensor(ends[1]), atol=1e-3, rtol=1e-3)  # logits of other batches round otherwise


def test_the_key_holds_the_size_and_the_content(texts):
    pair = pool_of_teachers(texts, 1)
    keys = []
    for size in (40, 80, 40):
        attach(texts, size=size)
        keys.append(distil.distill(texts, pair, "scratch-1x32", recipe("pool")).key)
    assert keys[0] == keys[2] != keys[1]
    other = prepare(unlabelled(make_text_task()), "scratch-1x32", vocab=200)
    attach(other, "another name", size=40)
    assert other.spec("another name") == texts.spec("pool")
    changed = replace(other.task, splits=other.task.splits | {"unlabelled": other.task.splits["unlabelled"].take(range(1, N))})
    fourth = prepare(changed, "scratch-1x32", vocab=200)
    attach(fourth, size=40)
    assert fourth.spec("pool")["pool"] != texts.spec("pool")["pool"]


def test_growing_pools_share_tokens_and_scores(texts):
    [teacher] = pool_of_teachers(texts, 1)
    attach(texts, size=40)  # shards end at 4, 8, 16, 32, 40
    assert not teachers.score(texts, teacher, "pool").reused
    assert (kinds(texts)["pool-tokens"], kinds(texts)["logits"]) == (5, 5)
    attach(texts, size=64)  # ... 32, 48, 64
    scored = teachers.score(texts, teacher, "pool")
    assert (kinds(texts)["pool-tokens"], kinds(texts)["logits"]) == (7, 7)
    assert not scored.reused
    assert scored.info["seconds"] > 0
    assert teachers.score(texts, teacher, "pool").reused
    assert len(texts.data("pool")) == 64


def test_a_teacher_with_its_own_tokeniser(texts):
    attach(texts)
    own = prepare(texts.task, "roberta-scratch-1x32", vocab=300)
    [teacher] = distil.finetune(own, "roberta-scratch-1x32", [0], replace(OPT, epochs=1))
    streamed = StreamedOutputs(texts.data("pool"), [poolscores.score(texts, teacher, "pool").files], 3)
    index = np.array([149, 0, 33, 77])
    expected = outputs.evaluate_logits(teacher.network(), own.data("unlabelled"), CPU)[index]
    assert_close(streamed.batch(texts.data("pool").batch(index)).logits[:, 0], expected, atol=1e-5, rtol=1e-4)
    hidden = recipe("pool", (Term("hidden_mse", Primary(0)),))
    with pytest.raises(KitError, match="another tokeniser than the student: on a pool only its logits can be matched"):
        distil.distill(texts, [teacher], "scratch-1x32", hidden)


def test_inner_states_come_from_a_teacher_that_runs_along(texts, monkeypatch):
    one_group(monkeypatch)
    attach(texts)
    pair = pool_of_teachers(texts)
    both = (Term("hidden_mse", Primary(1)), Term("soft_cross_entropy", Uniform()))
    made = {where: distil.distill(texts, pair, "scratch-1x32", recipe(where, both)) for where in ("pool", "unlabelled")}
    ends = [model.info["history"]["losses"] for model in made.values()]
    assert ends[0].keys() == ends[1].keys() == {"hidden_mse", "soft_cross_entropy"}
    for name in ends[0]:
        assert_close(torch.tensor(ends[0][name]), torch.tensor(ends[1][name]), atol=1e-3, rtol=1e-3)
    assert "states" not in kinds(texts) or kinds(texts)["states"] == 1  # of the split in memory alone


def test_controls(texts):
    attach(texts)
    pair = pool_of_teachers(texts)
    stage = recipe("pool").stages[0]
    said = {kind: teachers.gather(texts, pair, recipe("pool", teachers=Independent(kind)), stage, "pool", {}, CPU)
            for kind in (None, "shuffled", "uniform")}
    batch = texts.data("pool").batch(np.arange(16, 32))  # one shard
    plain, shuffled, uniform = (s.batch(batch).logits for s in said.values())
    assert not uniform.any()
    assert not torch.equal(plain, shuffled)
    assert_close(plain.sort(0).values, shuffled.sort(0).values)
    with pytest.raises(KitError, match="no such control"):
        teachers.gather(texts, pair, recipe("pool", teachers=Independent("x")), stage, "pool", {}, CPU).batch(batch)


class WithFeatures(Chosen):
    needs = frozenset({"features", "logits"})
    encoder = "lsa-8"


def test_what_a_pool_cannot_do(texts):
    attach(texts)
    [teacher] = pool_of_teachers(texts, 1)
    with pytest.raises(KitError, match="its texts cannot be had at once"):
        texts.texts("pool")
    with pytest.raises(KitError, match="its logits cannot be had at once"):
        teachers.logits_of(texts, teacher, "pool")
    stage = Stage("s", (Term("soft_cross_entropy", WithFeatures()),), OPT, data="pool")
    with pytest.raises(KitError, match="features of every sample, which a pool does not keep"):
        teachers.gather(texts, [teacher], recipe("pool"), stage, "pool", {}, CPU)
    with pytest.raises(KitError, match="cross_entropy needs labels and this stage's data has none"):
        distil.undistilled(texts, "scratch-1x32", OPT, 0, data="pool")


# ---- memory ----

def maps(folder):
    try:
        return {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line}
    except OSError:
        return None


def test_few_shards_are_mapped_at_a_time(texts, monkeypatch):
    if maps("/") is None:
        pytest.skip("this system does not list its maps")
    monkeypatch.setattr(data, "OPEN", 3)
    attach(texts)
    found, here, most = texts.data("pool"), texts.store.folder, 0
    assert not maps(here)
    for index in data.plan(found, 8, np.random.default_rng(0)):
        found.batch(index)
        most = max(most, len(maps(here)))
    assert 2 <= most <= 2 * 3 < 2 * len(found.folders)  # tokens and types of three shards
    del found
    texts._cache.clear()
    gc.collect()
    assert not maps(here)


# ---- files ----

def frame(n=N, pair=False, ids=False):
    first, second = sentences(n, 70)[0], sentences(n, 71)[0]
    columns = {"question": first, "passage": second} if pair else {"text": first}
    columns |= {"id": [f"u{i}" for i in range(n)]} if ids else {}
    return pd.DataFrame(columns | {"other": [1] * (n - 1) + ["a text at last"]})


def write(folder, suffix, table):
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        table.drop(columns="other").to_parquet(path, row_group_size=40)
    elif suffix in (".csv", ".tsv"):
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")), encoding="utf-8")
    else:
        arrow = pa.Table.from_pandas(table.drop(columns="other"), preserve_index=False)
        make = pa.ipc.new_stream if suffix == ".arrow" else pa.ipc.new_file  # both kinds go by either name
        with pa.OSFile(str(path), "wb") as file, make(file, arrow.schema) as writer:
            writer.write_table(arrow, max_chunksize=40)
    return path


@pytest.mark.parametrize("suffix", files.SUFFIXES)
@pytest.mark.parametrize("pair", [False, True])
def test_a_file_gives_the_same_pool_as_the_split(tmp_path, suffix, pair, monkeypatch):
    monkeypatch.setattr(files, "ROWS", 7)
    prepared = prepare(unlabelled(make_pair_task() if pair else make_text_task()), "scratch-1x32", vocab=200)
    path = write(tmp_path, suffix, frame(pair=pair, ids=True))
    assert len(attach(prepared, "file", path)) == N
    attach(prepared, "split")
    one, other = prepared.data("file"), prepared.data("split")
    for number in range(len(one.folders)):
        a, b = one.shard(number), other.shard(number)
        assert a.ids == b.ids
        for name in ("tokens", "types", "offsets"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
    assert str(prepared.pools["file"]) == f"pool of 150 rows of {str(path)!r} in 12 shards"


def test_a_folder_of_files_in_the_order_of_their_names(texts, tmp_path):
    whole = frame(ids=True)
    write(tmp_path, ".csv", whole[:50])
    (tmp_path / "rows.csv").rename(tmp_path / "a.csv")
    write(tmp_path, ".parquet", whole[50:])
    (tmp_path / "notes.txt").write_text("not a table")
    assert len(attach(texts, "pool", tmp_path)) == N
    ids = [i for k in range(12) for i in texts.data("pool").shard(k).ids]
    assert ids == [f"u{i}" for i in range(N)]


def test_without_an_id_a_row_goes_by_its_text(texts, tmp_path):
    attach(texts, "pool", write(tmp_path, ".jsonl", frame(20)))
    shard = texts.data("pool").shard(0)
    assert len(set(shard.ids)) == 4
    assert all(len(i) == 16 for i in shard.ids)


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=8))
def test_a_cursor_takes_any_ranges(tmp_path_factory, ranges):
    path = tmp_path_factory.getbasetemp() / "cursor.csv"
    if not path.exists():
        path.write_text("text\n" + "".join(f"row {i}\n" for i in range(20)))
    cursor = files.Cursor([path], ("text",), "id")
    for start, stop in ranges:
        assert cursor.take(start, stop) == [(f"row {i}", None) for i in range(20)][start:stop]


def test_texts_that_look_like_missing_values_or_numbers_stay_texts(texts, tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text('\ufefftext,n\nNA,1\nnull,2\n12,x\n"two\nlines, and a ""quote""",3\n', encoding="utf-8")
    rows = pool.file_rows(path, ("text",))(0, 10)
    assert rows.inputs == [("NA",), ("null",), ("12",), ('two\nlines, and a "quote"',)]


def test_a_tsv_has_no_quoting_and_no_row_is_lost(tmp_path):
    """A quotation mark at the start of one text must not swallow the rows up to the next one."""
    texts = [f'"a title {i} that nobody closed' if i % 20 == 5 else f'text {i}, 5" wide' for i in range(50)]
    path = tmp_path / "pairs.tsv"
    path.write_text("question\tn\tpassage\n" + "".join(f"{t}\t{i}\tp {i}\n" for i, t in enumerate(texts)), encoding="utf-8")
    rows = pool.file_rows(path, ("question", "passage"))(0, 100)
    assert rows.inputs == [(t, f"p {i}") for i, t in enumerate(texts)]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert pool.file_rows(path, ("question", "passage"))(0, 100).inputs == rows.inputs
    path.write_text("question\tpassage\na\tb\na\tb\tc\n")
    with pytest.raises(KitError, match="cannot be read as TSV: line 3 has 3 values and the header 2"):
        pool.file_rows(path, ("question", "passage"))(0, 100)


def test_a_csv_with_an_open_quotation_mark_is_refused(tmp_path):
    texts = [f'row {i}\nsays "{i}", and 5"' if i % 3 else f'5" wide {i}' for i in range(50)]
    path = tmp_path / "rows.csv"
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        pd.DataFrame({"text": texts, "n": "x"}).to_csv(path, index=False, quoting=quoting)
        assert pool.file_rows(path, ("text",))(0, 100).inputs == [(t,) for t in texts]
    path.write_text('n,text\n1,5" wide\n\n2,so "quoted" inside\n')  # marks within a value mean nothing
    assert pool.file_rows(path, ("text",))(0, 9).inputs == [('5" wide',), ('so "quoted" inside',)]
    for lines in ('"open\na "b" c\n', "a\n\"open\nb\n", '"a" b\n'):
        path.write_text("text\n" + lines)
        with pytest.raises(KitError, match=r"cannot be read as CSV: line \d: .* must end with one") as caught:
            pool.file_rows(path, ("text",))(0, 9)
        assert "\n" not in str(caught.value)
    path.write_text("text\n" + "x" * 500_000 + "\n")
    assert len(pool.file_rows(path, ("text",))(0, 9).inputs[0][0]) == 500_000


def test_sizes_take_the_first_rows_and_ask_for_no_more_than_there_are(texts, tmp_path):
    path = write(tmp_path, ".parquet", frame(ids=True))
    for source in (None, path):
        assert len(attach(texts, "pool", source, size=20)) == 20
        shard = texts.data("pool").shard(3)
        assert shard.ids == ["u16", "u17", "u18", "u19"]
        with pytest.raises(KitError, match=r"has 150 rows, and a pool of 151 was asked for"):
            attach(texts, "pool", source, size=151)


def refused(prepared, said, *arguments, **more):
    with pytest.raises(KitError, match=said) as caught:
        attach(prepared, *arguments, **more)
    assert "\n" not in str(caught.value)
    assert not prepared.pools


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".csv", ".jsonl"])
def test_files_that_are_not_right(texts, tmp_path, suffix):
    table = frame(20)
    refused(texts, "has no column 'body'; its columns are 'text'", "pool", write(tmp_path, suffix, table), columns=("body",))
    table.loc[13, "text"] = "   "
    refused(texts, r"has an empty text in column 'text', row 14 \(the first row of data is row 1\)", "pool",
            write(tmp_path, suffix, table))
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(b"\xff\xfe\x00 this is no table" * 50)
    refused(texts, f"cannot be read as {suffix[1:].upper()}", "pool", broken)
    cut = tmp_path / f"cut{suffix}"
    if suffix in (".parquet", ".feather"):
        cut.write_bytes((tmp_path / f"rows{suffix}").read_bytes()[:-300])
        refused(texts, f"cannot be read as {suffix[1:].upper()}", "pool", cut)
    empty = tmp_path / f"empty{suffix}"
    empty.write_bytes(b"")
    refused(texts, "cannot be read as|has no rows", "pool", empty)


def test_arguments_that_are_not_right(texts, tmp_path):
    refused(texts, "there is no file or folder '.*nowhere.csv'", "pool", tmp_path / "nowhere.csv")
    (tmp_path / "rows.txt").write_text("text")
    refused(texts, "rows.txt' is not a .parquet", "pool", tmp_path / "rows.txt")
    refused(texts, "has no .parquet", "pool", tmp_path)
    refused(texts, "cannot be called 'train'", "train")
    refused(texts, "cannot be called 'augmented/1'", "augmented/1")
    for size in (0, -3, 1.5, True, "20"):
        refused(texts, "size of a pool must be a whole number", size=size)
    (tmp_path / "n.jsonl").write_text('{"text": 5}\n')
    refused(texts, "has 5, which is not text, in column 'text', row 1", "pool", tmp_path / "n.jsonl")
    (tmp_path / "l.jsonl").write_text('{"text": "a"}\n[1]\n')
    refused(texts, "line 2 is not an object", "pool", tmp_path / "l.jsonl")
    (tmp_path / "head.csv").write_text("text\n")
    refused(texts, "has no rows to make a pool of|cannot be read", "pool", tmp_path / "head.csv")
    refused(texts, r"reads 1 text\(s\) per sample", "pool", tmp_path / "l.jsonl", columns=("a", "b"))
    refused(prepare(make_text_task(), "scratch-1x32", vocab=200), "has no split 'unlabelled'")
    refused(prepare(make_image_task(), "resnet-8w8"), "one of kind 'image'")


# ---- faults ----

def leftovers(prepared):
    return list((prepared.store.folder / ".making").glob("*"))


def test_an_interrupted_pool_leaves_nothing_half_made(texts, monkeypatch):
    attach(texts)
    asked = []

    def encode(split, *arguments):
        asked.append(split.ids[0])
        if len(asked) == 4:
            raise KeyboardInterrupt
        return data.encode(split, *arguments)

    monkeypatch.setattr(pool, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        texts.data("pool")
    assert not leftovers(texts)
    assert kinds(texts)["pool-tokens"] == 3
    assert len(texts.data("pool")) == N
    assert asked == ["u0", "u4", "u8", "u16", "u16", *(f"u{i}" for i in range(32, N, 16))]  # three shards were there


def test_interrupted_scores_go_on_where_they_stopped(texts, monkeypatch):
    attach(texts)
    [teacher] = pool_of_teachers(texts, 1)
    before, scored = kinds(texts).get("logits", 0), []

    def evaluate(network, shard, device, view=0):
        scored.append(len(shard))
        if len(scored) == 3:
            raise KeyboardInterrupt
        return outputs.evaluate_logits(network, shard, device)

    monkeypatch.setattr(poolscores, "outputs", type("Fake", (), {"evaluate_logits": staticmethod(evaluate)}))
    with pytest.raises(KeyboardInterrupt):
        teachers.score(texts, teacher, "pool")
    assert not leftovers(texts)
    assert kinds(texts)["logits"] == before + 2
    teachers.score(texts, teacher, "pool")
    assert scored == [4, 4, 8, 8, *[16] * 8, 6]


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)


@pytest.mark.parametrize("kind", ["pool-tokens", "logits"])
def test_a_damaged_shard_is_detected_and_made_again(texts, kind):
    attach(texts)
    [teacher] = pool_of_teachers(texts, 1)

    def all_files():
        tokens = [folder / "tokens.npy" for folder in texts.data("pool").folders]
        return {"pool-tokens": tokens, "logits": teachers.score(texts, teacher, "pool").files}[kind]

    teachers.score(texts, teacher, "pool")
    victim = all_files()[5]
    sound = victim.read_bytes()
    flip(victim)
    store._checked.clear()  # as a new process
    texts._cache.clear()
    with pytest.warns(UserWarning, match=f"A stored {kind} is damaged .* made again"):
        files = all_files()
    assert files[5].read_bytes() == sound
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store._checked.clear()
        all_files()


def test_a_shard_that_is_gone(texts):
    attach(texts)
    found = texts.data("pool")
    (found.folders[2] / "tokens.npy").unlink()
    with pytest.raises(KitError, match=r"the shard .* cannot be read"):
        found.batch(np.array([9]))


# ---- ready logits ----

def table(n=N, ids=None):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"id": ids or [f"u{i}" for i in range(n)], **{c: rng.normal(size=n) for c in ("sea", "farm", "city")}})


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_of_logits_is_read_in_the_pool_s_order(texts, tmp_path, suffix):
    attach(texts)
    path, rows = tmp_path / f"logits{suffix}", table(N + 20)
    rows.to_parquet(path) if suffix == ".parquet" else rows.to_csv(path, index=False)
    teacher = teachers.teacher_from_table(path)
    said = teachers.gather(texts, [teacher], recipe("pool"), recipe("pool").stages[0], "pool", {}, CPU)
    index = np.array([149, 2, 64])
    expected = rows[["sea", "farm", "city"]].to_numpy(np.float32)[index]
    assert_close(said.batch(texts.data("pool").batch(index)).logits[:, 0], torch.from_numpy(expected))


@pytest.mark.parametrize(("rows", "said"), [
    (table(N - 1), "ends after 149 rows, and the pool has 150"),
    (table(3), "ends after 3 rows, and the pool has 150"),
    (table(ids=[f"{'u' if i < 20 else 'v'}{i}" for i in range(N)]), "has the id 'v20' in row 21 where the pool has 'u20'"),
    (table().rename(columns={"farm": "barn"}), "has the columns sea, barn, city, and the task's classes are sea, farm, city"),
    (table().assign(farm=np.inf), "holds values that are not numbers"),
    (table().assign(farm="x"), "holds values that are not numbers"),
])
def test_tables_that_do_not_fit(texts, tmp_path, rows, said):
    attach(texts)
    rows.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(KitError, match=said):
        teachers.score(texts, teachers.teacher_from_table(tmp_path / "t.parquet"), "pool")


def test_a_teacher_of_other_classes(texts):
    attach(texts)
    other = prepare(make_pair_task(), "scratch-1x32", vocab=200)
    other.tokenizer = texts.tokenizer
    [teacher] = distil.finetune(other, "scratch-1x32", [0], replace(OPT, epochs=1))
    with pytest.raises(KitError, match="has 2 outputs and the task tiny/text has 3"):
        teachers.score(texts, teacher, "pool")
