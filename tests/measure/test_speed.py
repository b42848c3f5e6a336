"""The ruler for speed: the same texts for every network, every head at work, batches of the sizes asked for."""

import time

import pytest
import torch
from torch import nn

from mtkd.errors import KitError
from mtkd.measure.speed import ask
from mtkd.models.heads import predicting
from mtkd.models.names import build, count_parameters
from mtkd.models.networks import Outputs
from mtkd.train.prepare import prepare

KEYS = {"samples_per_second", "best_batch", "best_latency_ms", "latency_p50_ms", "latency_p95_ms", "per_batch", "parameters",
        "weights_mib", "peak_memory_mib", "samples", "repeats", "device", "threads"}


class Slow(nn.Module):
    """Takes 2 ms a call, whatever the batch."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(1, 3), []

    def forward(self, inputs, want=frozenset()):
        ids = inputs["input_ids"]
        self.seen.append((tuple(ids.shape), int(inputs["attention_mask"].sum()), self.training, torch.is_grad_enabled()))
        time.sleep(0.002)
        return Outputs(self.linear(ids[:, :1].float()))


def test_a_known_delay(text_task):
    data = prepare(text_task, "scratch-1x32", vocab=200).data("test")
    network = Slow().train()
    got = ask(network, data, sizes=(1, 4, 10), texts=20, singles=5, repeats=3)
    assert set(got) == KEYS
    sizes = [shape[0] for shape, *_ in network.seen]
    assert sizes == [1] * 20 + [4] * 20 + [10] * 8  # a warm-up and 3 passes over 5 texts alone, 5 batches of 4, 2 of 10
    assert all(shape[1] == real for shape, real, *_ in network.seen[:20])  # a text alone is not padded
    assert not any(training or grad for *_, training, grad in network.seen)
    assert network.training
    assert 2.0 <= got["latency_p50_ms"] <= got["latency_p95_ms"]
    assert got["samples_per_second"] == got["per_batch"][str(got["best_batch"])] == max(got["per_batch"].values())
    assert got["per_batch"]["1"] <= 1 / 0.002
    assert (got["parameters"], got["weights_mib"]) == (6, 6 * 4 / 2**20)
    assert (got["samples"], got["repeats"], got["device"]) == (20, 3, "cpu")


def test_every_network_of_an_ensemble_is_asked_and_counted(text_task):
    data = prepare(text_task, "scratch-1x32", vocab=200).data("test")
    pair = [Slow(), Slow()]
    both = ask(pair, data, sizes=(8,), texts=16, singles=4, repeats=3)
    assert pair[0].seen == pair[1].seen
    assert both["parameters"] == 12
    assert both["latency_p50_ms"] >= 4.0


@pytest.mark.parametrize("name", ["scratch-2x32", "scratch-1x32 + heads-3", "bilstm-1x16e16v200", "scratch-1x32 + attentive"])
def test_any_network_is_measured_the_same_way(text_task, name):
    prepared = prepare(text_task, name, vocab=200)
    network = build(name, 3, seed=0, vocab=prepared.vocab, tokens=prepared.special_ids)
    if "heads" in name:
        network.predictor, asked = "heads", []
        network.soft[2].register_forward_hook(lambda *_: asked.append(1))
    got = ask(predicting(network), prepared.data("test"), sizes=(8,), texts=16, singles=4, repeats=2)
    assert set(got) == KEYS
    assert got["parameters"] == count_parameters(network)
    assert got["peak_memory_mib"] > got["weights_mib"] > 0
    if "heads" in name:
        assert len(asked) == 3 * (4 + 2)


def test_nothing_to_measure(text_task):
    data = prepare(text_task, "scratch-1x32", vocab=200).data("test")
    for arguments in ({"sizes": (0,)}, {"texts": 0}, {"singles": 0}, {"repeats": 0}):
        with pytest.raises(KitError, match="Speed needs a network"):
            ask(Slow(), data, **arguments)
    with pytest.raises(KitError, match="Speed needs a network"):
        ask([], data)
