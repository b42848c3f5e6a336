"""Rows and records of seed_ensemble as its notebook writes them, with known scores, for more than one file of tests."""

import itertools

import numpy as np


def row(members=(), score=0.5, *, arm="tinybert", task="pydocs/topic", pool=0, kind="student", primary=None, repeat=0,
        variant=None, metric="accuracy", train=10.0, score_s=1.0, middle=2.0, teachers=100.0):  # fmt: skip
    """One row as a notebook writes it; score_s and teachers are per member."""
    k = len(members)
    return {
        "arm": arm, "task": task, "pool": pool, "kind": kind, "members": list(members), "k": k, "primary": primary,
        "repeat": repeat, "variant": variant, "metric": metric, "score": score, "metrics": {metric: score},
        "split": "test", "validation": score, "n_test": 10_000, "parameters": 1000, "energy_kwh": None, "folder": None,
        "time": {"train_s": train, "score_s": score_s * k, "intermediate_s": middle, "teachers_s": teachers * k},
    }  # fmt: skip


def record(rows, tier="demo", data=(), **more):
    hardware = {"cpu": "Test CPU", "cores": 2, "memory_gib": 8.0, "gpu": None}
    return {
        "schema": 1, "run": "r1", "paper": "seed_ensemble", "tier": tier, "parameters": {}, "rows": list(rows),
        "provenance": {"command": "mtkd run", "hardware": hardware, "seeds": [0]}, "timing": {"wall_s": 1.0},
        "data": list(data),
    } | more  # fmt: skip


def made(pools=8, teachers=3, *, worst_gain=0.03, best_gain=0.0, arm="tinybert", task="pydocs/topic", seed=0, **more):
    """Rows in which multi-teacher students have a known worst and best score, nearly the same in every pool."""
    rng = np.random.default_rng(seed)
    rows = []
    for pool in range(pools):
        one = 0.6 + 0.05 * np.arange(teachers) + rng.normal(0, 0.001, teachers)
        for k in range(1, teachers + 1):
            for members in itertools.combinations(range(teachers), k):
                scores = one[list(members)]
                if k > 1:
                    scores = np.linspace(scores.min() + worst_gain, scores.max() + best_gain, k)
                    scores += rng.normal(0, 0.0005, k)
                for i, (member, score) in enumerate(zip(members, scores)):
                    who = {"repeat": i} if arm == "resnet" else {"primary": member}
                    rows.append(row(members, float(score), arm=arm, task=task, pool=pool, **who, **more))
    return rows


def everything():
    extra = [row([i], 0.8 + i / 100, kind="teacher") for i in range(3)]
    extra += [row([], 0.55, kind="undistilled", repeat=i) for i in range(2)]
    for pool in range(4):
        extra += [row([0, 1, 2], 0.5 + pool / 1000, kind="control", variant="shuffled_teacher", pool=pool, primary=0)]
    data = [{"task": "glue/cola", "split": s, "samples": n, "tokens_mean": t, "metric": "mcc"}
            for s, n, t in (("train", 8551, 8.94), ("validation", 1043, None))]  # fmt: skip
    rows = [*made(), *made(arm="distilbert"), *made(arm="resnet", task="cifar10"), *extra]
    return [record(rows, data=data)]
