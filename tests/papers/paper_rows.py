"""Rows and records as notebooks write them, for tests that say what came out without training anything."""


def row(score: float, metric: str = "accuracy", **own) -> dict:
    """One row: what those of all papers have, and what a paper's have besides or say otherwise."""
    return {
        "metric": metric, "score": score, "metrics": {metric: score}, "split": "test", "validation": score, "n_test": 10_000,
        "parameters": 100_000, "energy_kwh": None, "folder": None, "peak_memory_mib": None, "samples_per_second": None,
        "time": {"train_s": 3.0, "score_s": 0.5, "intermediate_s": 1.0, "teachers_s": 10.0},
    } | own  # fmt: skip


def record(paper: str, rows, tier: str = "demo", data=(), parameters: dict | None = None, **more) -> dict:
    hardware = {"cpu": "Test CPU", "cores": 2, "memory_gib": 8.0, "gpu": None}
    return {
        "schema": 1, "run": "r1", "paper": paper, "tier": tier, "parameters": parameters or {}, "rows": list(rows),
        "provenance": {"command": "mtkd run", "hardware": hardware, "seeds": [0]}, "timing": {"wall_s": 1.0},
        "data": list(data),
    } | more  # fmt: skip
