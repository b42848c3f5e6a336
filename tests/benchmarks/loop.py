"""What the loop saves, as ratios within one run (machines are noisy): python tests/benchmarks/loop.py

    padding   share of computed token positions that are padding, batches by length against random batches
    stored    seconds of a TinyBERT intermediate stage with stored teacher states against a teacher that runs along
"""

import tempfile
import time
from dataclasses import replace

import numpy as np
import torch

from mtkd.models import names as models
from mtkd.papers.seed_ensemble_study import from_parameters
from mtkd.rules import matching as terms
from mtkd.runs.parameters import notebook_path, read_parameters
from mtkd.store.artifacts import Store
from mtkd.tokens.batches import padding_share, plan
from mtkd.train import loop as train
from mtkd.train import teachers


def main() -> None:
    torch.set_num_threads(1)
    defaults = {name: p.default for name, p in read_parameters(notebook_path("seed_ensemble")).items()}
    experiment = from_parameters({**defaults, "n_teachers": 1, "pools": [0], "teacher_epochs": 1, "max_length": 64})
    with tempfile.TemporaryDirectory() as folder:
        prepared = experiment.prepared
        prepared.store = Store(folder)
        data, rng = prepared.data("train"), np.random.default_rng(0)
        order = rng.permutation(len(data))
        chance = np.split(order, range(32, len(data), 32))
        computed = sum(len(b) * int(data.lengths[b].max()) for b in chance)
        print(f"padding: {padding_share(data, 32, rng):.1%} by length, {1 - data.lengths.sum() / computed:.1%} at random, "
              f"in {len(plan(data, 32, rng))} batches")
        stage = experiment.recipe(experiment.own(0)).stages[0]
        stage = replace(stage, optimisation=replace(stage.optimisation, epochs=6))
        teacher = experiment.teacher_set(0)
        took = {}
        for name, budget in (("running along", 0), ("stored", 1 << 30)):
            teachers.STATES_BUDGET = budget
            student = models.build(experiment.student, prepared.task.outputs, seed=0, vocab=prepared.vocab)
            modules, needs, want = terms.prepare_stage(stage, terms.Setting(student.shape, [t.shape for t in teacher]))
            start = time.perf_counter()
            said = teachers.gather(prepared, teacher, experiment.recipe(experiment.own(0)), stage, "train", needs,
                                   torch.device("cpu"))
            train.fit(student, data, stage, modules, said, want=want, seed=0, device=torch.device("cpu"))
            took[name] = time.perf_counter() - start
        ratio = took["running along"] / took["stored"]
        print(f"6 epochs of the first stage: {took['stored']:.1f} s from stored states (making them included), "
              f"{took['running along']:.1f} s with the teacher running along, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
