"""How fast a network answers questions: one ruler for teachers, students with any heads, Bi-LSTMs and ensembles.

tmkd counts queries per second without saying at which batch size. Here the same texts are asked one at a time, as a user
would, and in batches of several sizes, as a queue would; the fastest size is the one reported. Texts are in random order and
padded to the longest of their batch, and a batch of one is not padded at all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from mtkd.errors import KitError
from mtkd.measure.meter import MIB, Meter

SIZES = (1, 8, 32, 128)


def ask(networks: nn.Module | Sequence[nn.Module], data, *, sizes: Sequence[int] = SIZES, texts: int = 256, singles: int = 64,
        repeats: int = 5, seed: int = 0, device: str | torch.device = "cpu") -> dict:
    """Speed and size of a network, or of several that all answer every question (m-o-m: their mean costs them all).

    Args:
        networks: network(batch.inputs).logits is their answer; one with soft heads comes as it answers when it is asked
            (`mtkd.models.heads.predicting`), all heads at work.
        data: a tokenised split (`prepared.data("test")`); for teachers with another tokeniser their own (`prepared.of`).
        sizes: batch sizes to try; 1 is always measured, with the first `singles` texts.
        texts: how many texts of the split, drawn by `seed`: the same ones for every network.
        repeats: passes over them after one that warms up; rates are medians over passes, latencies over batches.

    Returns:
        samples_per_second (queries per second at the best batch size), best_batch, best_latency_ms (median time of one such
        batch), latency_p50_ms and latency_p95_ms (a batch of one), per_batch {"8": queries per second, ...}, parameters,
        weights_mib (parameters and buffers), peak_memory_mib (see `mtkd.measure.meter.Meter`: on a CPU that of the process),
        samples, repeats, device, threads.

    Raises KitError where there is nothing to ask, or a size or number is below 1.
    """
    networks = [networks] if isinstance(networks, nn.Module) else list(networks)
    if not networks or not len(data) or min([*sizes, texts, singles, repeats], default=0) < 1:
        raise KitError("Speed needs a network, a text, batch sizes, and a number of texts and repeats of at least 1.")
    device, modes = torch.device(device), [network.training for network in networks]
    rows = np.random.default_rng(seed).permutation(len(data))[:texts]
    times = {}
    try:
        for network in networks:
            network.to(device).eval()
        with torch.inference_mode(), Meter(device, energy=False) as meter:
            for size in sorted({1, *sizes}):
                own = rows[:singles] if size == 1 else rows
                batches = [data.batch(part).to(device) for part in np.split(own, range(size, len(own), size))]
                times[size] = np.array([[timed(networks, batch) for batch in batches] for _ in range(repeats + 1)])[1:]
    finally:
        for network, mode in zip(networks, modes):
            network.train(mode)
    rates = {size: (min(singles, len(rows)) if size == 1 else len(rows)) / float(np.median(found.sum(axis=1)))
             for size, found in times.items()}
    best = max(rates, key=rates.__getitem__)
    parameters = [p for network in networks for p in network.parameters()]
    tensors = [*parameters, *(b for network in networks for b in network.buffers())]
    return {
        "samples_per_second": rates[best],
        "best_batch": best,
        "best_latency_ms": 1000 * float(np.median(times[best])),
        "latency_p50_ms": 1000 * float(np.percentile(times[1], 50)),
        "latency_p95_ms": 1000 * float(np.percentile(times[1], 95)),
        "per_batch": {str(size): rate for size, rate in rates.items()},
        "parameters": sum(p.numel() for p in parameters),
        "weights_mib": sum(t.numel() * t.element_size() for t in tensors) / MIB,
        "peak_memory_mib": meter.peak_memory_mib,
        "samples": len(rows),
        "repeats": repeats,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def timed(networks: Sequence[nn.Module], batch) -> float:
    started = time.perf_counter()
    answers = [network(batch.inputs).logits for network in networks]
    torch.stack(answers).mean(0).cpu()  # on an accelerator this waits for the answer
    return time.perf_counter() - started
