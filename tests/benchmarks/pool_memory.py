"""Peak memory of a first stage over a pool of pairs, small and ten times as big: python tests/benchmarks/pool_memory.py

    python tests/benchmarks/pool_memory.py                       100,000 and 1,000,000 pairs; fails above a ratio of 1.10
    python tests/benchmarks/pool_memory.py --control             the same pairs as a split in memory, to see the difference

Every size runs in a process of its own, on one thread: made-up question-passage pairs in a Parquet file are attached as a
pool, tokenised, scored by two teachers, and distilled into a student with one soft head per teacher, one epoch.

What is measured is the peak resident set size of the whole process (mtkd.measure.meter.Meter), from before the pool is attached
to after the student is saved: interpreter, libraries, the pages of mapped files that are resident, everything. That is what
an out-of-memory killer counts, and a peak that only lasts a moment is in it. Of it, "at the start" was there before: the
interpreter and the libraries, the teachers already trained.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SMALL, BIG, ALLOWED = 100_000, 1_000_000, 1.10
CHUNK = 10_000


def pairs(n: int, seed: int = 0):
    """Chunks of made-up questions (2 to 4 words) and passages (4 to 6): each passage has one of its question's words or not."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnoprstuvw"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 7))) for _ in range(800)])
    for start in range(0, n, CHUNK):
        size = min(CHUNK, n - start)
        asked, said = words[rng.integers(0, len(words), (size, 4))], words[rng.integers(0, len(words), (size, 6))]
        shared = rng.integers(0, 2, size)
        said[:, 2] = np.where(shared, asked[:, 0], said[:, 2])
        longs, long = rng.integers(2, 5, size), rng.integers(4, 7, size)
        yield ([" ".join(row[:k]) for row, k in zip(asked, longs)], [" ".join(row[:k]) for row, k in zip(said, long)], shared)


def run(n: int, in_memory: bool) -> dict:
    """One first stage over n pairs; peak memory in MiB and seconds by part."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from mtkd.data.tasks import Split, Task
    from mtkd.measure.meter import Meter
    from mtkd.rules.selection import Uniform
    from mtkd.store.artifacts import Store
    from mtkd.tokens import pool
    from mtkd.train import distil, teachers
    from mtkd.train.prepare import prepare
    from mtkd.train.recipes import Optimisation, Recipe, Stage, Term

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path, schema = Path(folder) / "pairs.parquet", pa.schema([("question", pa.string()), ("passage", pa.string())])
        with pq.ParquetWriter(path, schema) as writer:
            for questions, passages, _ in pairs(n):
                writer.write_table(pa.table([questions, passages], schema))
        splits = {}
        for seed, (name, rows) in enumerate({"train": 1000, "validation": 200, "test": 200}.items(), start=1):
            questions, passages, labels = next(iter(pairs(rows, seed)))
            splits[name] = Split([f"{name}/{i}" for i in range(rows)], list(zip(questions, passages)), labels.astype(np.int64))
        task = Task("made-up", "pair", ("no", "yes"), splits, "accuracy", ("accuracy",))
        prepared = prepare(task, "scratch-1x32h2", store=Store(folder), vocab=1500, max_length=32)
        opt = Optimisation(epochs=1, batch_size=128, lr=1e-3, keep="last")
        followed = distil.finetune(prepared, "scratch-1x32h2", range(2), opt)
        stage = Stage("stage 1", (Term("logit_mse", Uniform(), combine="heads"),), opt, data="pool")
        with Meter(energy=False) as start:
            pass
        with Meter(energy=False) as meter:
            parts, clock = {}, time.perf_counter()

            def lap(name: str) -> None:
                nonlocal clock
                parts[name], clock = time.perf_counter() - clock, time.perf_counter()

            if in_memory:  # the control: a split like any other
                table = pq.read_table(path)
                rows = list(zip(table["question"].to_pylist(), table["passage"].to_pylist()))
                task.splits["pool"] = Split([f"pool/{i}" for i in range(n)], rows, np.full(n, -1))
                del table, rows
            else:
                pool.attach(prepared, "pool", path, size=n)
            lap("attached")
            prepared.data("pool")
            lap("tokenised")
            for teacher in followed:
                teachers.score(prepared, teacher, "pool")
            lap("scored by two teachers")
            student = distil.distill(prepared, followed, "scratch-1x32h2 + heads-2",
                                     Recipe("stage 1", (stage,), predictor="soft_heads"))
            lap("distilled")
        disk = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
        return {"pairs": n, "peak": meter.peak_memory_mib, "start": start.peak_memory_mib, "parts": parts, "disk": disk / 2**20,
                "steps": student.info["history"]["steps"], "loss": student.info["history"]["losses"]["logit_mse"]}


def fresh(n: int, in_memory: bool = False) -> dict:
    """`run` in a process of its own; prints what it found."""
    command = [sys.executable, __file__, "--run", str(n), *(["--in-memory"] if in_memory else [])]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found["parts"].items())
    print(f"{n:>9,} pairs {'in memory' if in_memory else 'streamed '}: peak {found['peak']:,.0f} MiB "
          f"({found['start']:,.0f} at the start); {found['steps']:,} steps, loss {found['loss'][0]:.3f} to "
          f"{found['loss'][1]:.3f}; {parts}; {found['disk']:,.0f} MiB on disk", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=2, default=(SMALL, BIG))
    parser.add_argument("--control", action="store_true", help="with the pairs as a split in memory")
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--in-memory", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        print(json.dumps(run(asked.run, asked.in_memory)))
        return
    small, big = (fresh(n, asked.control) for n in asked.sizes)
    ratio = big["peak"] / small["peak"]
    print(f"peak resident memory, {big['pairs']:,} against {small['pairs']:,} pairs: ratio {ratio:.3f} "
          f"({'within' if ratio <= ALLOWED else 'NOT within'} {ALLOWED - 1:.0%})")
    sys.exit(ratio > ALLOWED and not asked.control)


if __name__ == "__main__":
    main()
