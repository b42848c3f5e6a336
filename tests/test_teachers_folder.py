"""Teachers made elsewhere: a folder's key says what is in it, whatever the format of its weights."""

import shutil

import pytest
import torch

from mtkd.errors import KitError
from mtkd.models import names as models
from mtkd.models.finished import model_files
from mtkd.store.artifacts import Store
from mtkd.train import teachers
from mtkd.train.cofinetune import cofinetune
from mtkd.train.prepare import prepare
from mtkd.train.recipes import CoFinetuned, Optimisation
from mtkd.train.teachers import teacher_from_folder

NAME = "scratch-1x32"


@pytest.fixture
def prepared(text_task, tmp_path):
    return prepare(text_task, NAME, max_length=32, vocab=60, store=Store(tmp_path / "store"))


def saved(prepared, folder, seed, how="safetensors"):
    """A classifier in plain transformers layout; how: the format of its weights."""
    network = models.build(NAME, 3, seed=seed, vocab=prepared.vocab, tokens=prepared.special_ids)
    network.save(folder, prepared.tokenizer)
    if how == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(network.hf.state_dict(), folder / "pytorch_model.bin")
    if how == "sharded":
        (folder / "model.safetensors").unlink()
        network.hf.save_pretrained(folder, max_shard_size="20KB")
        assert (folder / "model.safetensors.index.json").is_file()
    return folder


@pytest.mark.parametrize("how", ["safetensors", "bin", "sharded"])
def test_two_teachers_never_share_a_key_nor_their_logits(prepared, tmp_path, how):
    one, other = (teacher_from_folder(prepared, saved(prepared, tmp_path / name, seed, how))
                  for seed, name in enumerate(("one", "other")))
    assert one.key != other.key
    said = [teachers.logits_of(prepared, model, "test") for model in (one, other)]
    assert not torch.allclose(*said)
    again = teacher_from_folder(prepared, shutil.copytree(one.folder, tmp_path / "again"))
    assert again.key == one.key  # the key is of what is in the folder, not of where it lies


def test_every_file_that_matters_is_in_the_key(prepared, tmp_path):
    folder = saved(prepared, tmp_path / "teacher", 0)
    keys = {teacher_from_folder(prepared, folder).key}
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    keys.add(teacher_from_folder(prepared, folder).key)
    (folder / "model.safetensors.index.json").write_text("{}")
    keys.add(teacher_from_folder(prepared, folder).key)
    torch.save({"x": torch.ones(1)}, folder / "more.pt")
    keys.add(teacher_from_folder(prepared, folder).key)
    assert len(keys) == 4
    (folder / "README.md").write_text("a model card changes nothing")
    assert teacher_from_folder(prepared, folder).key in keys


def test_the_head_that_a_set_shares_is_in_the_key(prepared, tmp_path):
    made = cofinetune(prepared, [NAME, "roberta-scratch-1x32"], CoFinetuned(query=8), 0, Optimisation(epochs=1))
    copy = shutil.copytree(made[0].folder.parent, tmp_path / "set")
    assert set(model_files(copy / "teacher-0")) >= {"model.safetensors", "config.json", "head.json", "../head.safetensors"}
    before = teacher_from_folder(prepared, copy / "teacher-0").key
    shutil.copy(cofinetune(prepared, [NAME, "roberta-scratch-1x32"], CoFinetuned(query=8), 5, Optimisation(epochs=1))[0]
                .folder.parent / "head.safetensors", copy / "head.safetensors")
    assert teacher_from_folder(prepared, copy / "teacher-0").key != before


def test_a_folder_without_weights_is_refused(prepared, tmp_path):
    folder = saved(prepared, tmp_path / "teacher", 0)
    (folder / "model.safetensors").unlink()
    with pytest.raises(KitError, match=r"has no weights: there is no \*.safetensors, \*.bin, \*.pt or \*.pth\."):
        teacher_from_folder(prepared, folder)
    with pytest.raises(KitError, match=r"there is no model in .*: config.json is missing"):
        teacher_from_folder(prepared, tmp_path / "nowhere")
