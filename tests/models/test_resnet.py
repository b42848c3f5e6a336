"""The ResNets against published parameter counts and hand-made cases."""

import json

import pytest
import torch

from mtkd.errors import KitError
from mtkd.models.resnet import Block, CifarResNet


@pytest.mark.parametrize(("depth", "shortcut", "exact"), [
    (20, "A", 269_722), (110, "A", 1_727_962), (20, "B", 272_474), (110, "B", 1_730_714)])  # published: 0.27 M and 1.7 M
def test_parameter_counts_are_the_published_ones(depth, shortcut, exact):
    model = CifarResNet(depth, shortcut=shortcut)
    assert sum(p.numel() for p in model.parameters()) == exact
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth + (2 if shortcut == "B" else 0)


@pytest.mark.parametrize("wrong", [*({"depth": d} for d in (0, 2, 18, 21, 112)), {"width": 0}, {"channels": 0}, {"classes": 0},
                                   {"shortcut": "C"}])
def test_other_values_are_refused(wrong):
    with pytest.raises(KitError, match=r"6n\+2" if "depth" in wrong else next(iter(wrong))):
        CifarResNet(**{"depth": 8, **wrong})


def test_sizes_of_the_paper_and_of_digits():
    assert CifarResNet()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert CifarResNet(8, width=5, channels=1, classes=7)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    assert CifarResNet(8, width=4)(torch.zeros(2, 3, 9, 7)).shape == (2, 10)  # odd sizes: shortcut and block agree
    with pytest.raises(KitError, match="images of shape"):
        CifarResNet()(torch.zeros(2, 1, 8, 8))


def test_shortcut_a_takes_every_second_pixel_and_pads_channels_with_zeros():
    block = Block(2, 4, 2, "A").eval()
    torch.nn.init.zeros_(block.conv2.weight)  # the residual is zero, only the shortcut is left
    x = torch.arange(2 * 4 * 4, dtype=torch.float).reshape(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[0, 1:3], x[0, :, ::2, ::2])
    assert not out[0, [0, 3]].any()


def test_channels_last_gives_the_same_logits():
    torch.manual_seed(0)
    model, images = CifarResNet(8, width=4).eval(), torch.randn(3, 3, 16, 16)
    plain, last = model(images), images.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(model.to(memory_format=torch.channels_last)(last), plain, atol=1e-5)


def test_saved_and_loaded_model_is_the_same(tmp_path):
    torch.manual_seed(0)
    model, images = CifarResNet(8, width=4, channels=1, classes=3, shortcut="B"), torch.randn(4, 1, 8, 8)
    model(images)  # moves the running statistics, which must be saved too
    again = CifarResNet.load(model.save(tmp_path / "new" / "folder"))
    assert torch.equal(again(images), model.eval()(images))
    assert again.config == model.config
    assert not again.training
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["config.json", "model.safetensors"]


def test_damaged_folders_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(KitError, match=r"config\.json"):
        CifarResNet.load(tmp_path)
    folder = CifarResNet(8, width=2).save(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    for change in ({"width": 3}, {"depth": 9}, {"architecture": "bert"}, {"colour": "blue"}):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(KitError, match="cannot be loaded" if "architecture" not in change else "of another kind"):
            CifarResNet.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(KitError, match="cannot be loaded"):
        CifarResNet.load(folder)
