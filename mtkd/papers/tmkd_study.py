"""TMKD's study: teachers, stage 1 once per pool, students on every task, controls, speed.

Which students there are and what they learn by is in tmkd_students.py; here is how each one is made, and what a row holds. The
student is called "NAME + heads-1" where one soft head learns (1-o-1, 1avg-o-1) and "NAME + heads-N" with a head per teacher.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

from torch import Tensor

from mtkd.data import wikiqa
from mtkd.data.tasks import Task, hash_order, subset
from mtkd.errors import KitError
from mtkd.measure import speed
from mtkd.models.grammar import root, tokenizer_kind
from mtkd.models.heads import predicting
from mtkd.papers.tmkd import SECTIONS, is_bilstm
from mtkd.papers.tmkd_students import Student, heads, pool_names, stage_1, stage_2, students
from mtkd.study import CONTROLS, Study, known, one_of, read_task
from mtkd.study.rows import SPLITS, best, floor_rows, sizes
from mtkd.tokens import pool
from mtkd.train import distil, teachers
from mtkd.train import loop as train
from mtkd.train.answers import answers, finished_teacher, is_finished, sound
from mtkd.train.prepare import Prepared
from mtkd.train.recipes import Optimisation
from mtkd.train.teachers import Model

SECOND = "mismatched"  # a test split beside the first: MNLI's
LOOK = 2000  # rows of a pool that are counted for its mean lengths


class Experiment(Study):
    """The parameters of notebooks/tmkd.ipynb, and the models they ask for."""

    students_of = staticmethod(students)
    joined_by = "probabilities"

    def __init__(self, parameters: dict):
        super().__init__(parameters)
        self.whole_of, self.task_of, self.reading = cache(self.whole_of), cache(self.task_of), cache(self.reading)

    def check(self) -> None:
        p = self.p
        known("section", (*p.sections, *p.transfer_sections, *p.ranking), SECTIONS)
        if not p.teachers or (p.teacher_lrs and len(p.teachers) != len(p.teacher_lrs)):
            raise KitError("there must be a learning rate per teacher, or none at all, and there are "
                           f"{len(p.teachers)} teachers and {len(p.teacher_lrs)} teacher_lrs.")
        if p.transfer and any(map(is_finished, p.teachers)):
            raise KitError("a finished teacher knows one task only: leave transfer empty, or fine-tune teachers here.")
        self.tasks = (p.task, *p.transfer)
        if len(set(self.tasks)) < len(self.tasks):
            raise KitError("task and transfer must name different tasks.")
        one_of(p, heads_after_pool=("kept", "new"))
        self.pools = pool_names(p.pool_sizes)
        if "bilstm" in p.sections and p.bilstm and not is_bilstm(p.bilstm):
            raise KitError(f"bilstm is {p.bilstm!r}, which names no Bi-LSTM (bilstm-2x256e300).")

    def whole_of(self, name: str) -> Task:
        """A task, the target with the options that are its own. KitError for a task without classes of texts."""
        task = read_task(name, self.p.protocol, self.p.task_options if name == self.p.task else {})
        if task.regression or task.kind not in ("text", "pair"):
            what = "asks for a number" if task.regression else f"is a task of kind {task.kind!r}"
            raise KitError(f"TMKD needs tasks that sort a text, or a pair of texts, into classes, and {name!r} {what}.")
        return task

    def task_of(self, name: str, replicate: int) -> Task:
        """A task with the training subset of a replicate; a second test split (MNLI's) is cut as the first is."""
        limits = sizes(self.p, "" if name == self.p.task else "transfer_")
        whole = self.whole_of(name)
        task = subset(whole, limits or None, seed=self.p.seed, replicate=replicate)
        if "test" in limits and (second := whole.splits.get(SECOND)):
            kept = second.take(hash_order(second.ids, salt=str(self.p.seed))[:limits["test"]])
            task = replace(task, splits={**task.splits, SECOND: kept})
        return task

    def drawn(self, replicate: int) -> Task:
        return self.task_of(self.p.task, replicate)

    def read_by(self, task: Task) -> Prepared:
        """The target task in the student's tokens, with its pools, which are the same in all replicates."""
        made = self.prepare(task, self.p.student)
        for size in self.pools.values():
            pool.attach(made, f"pool-{size}", self.p.pool_source or None, size, self.p.pool_columns or None)
        return made

    def reading(self, task: str, replicate: int, student: str = "") -> Prepared:
        """A task as a student reads it: by the tokeniser that it had in stage 1 already, or a Bi-LSTM by its words."""
        if task != self.p.task:
            return self.reading(self.p.task, replicate, student).with_task(self.task_of(task, replicate))
        own = self.prepared_for(replicate)
        return own.of(student) if is_bilstm(student) else own

    def reads(self, s: Student) -> Prepared:
        return self.reading(s.task, s.replicate)

    # --- teachers ----------------------------------------------------------------------------------------------------------

    def teacher(self, replicate: int, position: int, task: str = "") -> Model:
        p, name, prepared = self.p, self.p.teachers[position], self.reading(task or self.p.task, replicate)
        if is_finished(name):
            model = finished_teacher(prepared, name)
            found = {part: distil.metrics(prepared, part, answers(prepared, model, part)) for part in ("validation", "test")}
            return replace(model, info={**model.info, "metrics": found})
        shared = root(name) is None and root(p.student) is None and tokenizer_kind(name) == tokenizer_kind(p.student)
        own = prepared if shared else prepared.of(name)  # models from scratch learn from the target's vocabulary
        optimisation = self.optimisation("teacher", **({"lr": p.teacher_lrs[position]} if p.teacher_lrs else {}))
        return distil.finetune(own, name, [self.seed_of(replicate, position)], optimisation)[0]

    def teacher_set(self, replicate: int, task: str = "") -> list[Model]:
        """The teachers of a task (the target): the same in all stages and for all students of a replicate."""
        made = [self.teacher(replicate, position, task) for position in self.everyone]
        return sound(self.reading(task or self.p.task, replicate), made, self.p.weak_teachers)

    def best(self, replicate: int, task: str = "") -> int:
        """Position of the teacher that is best on validation, whom 1-o-1 follows."""
        models = self.teacher_set(replicate, task)
        return models.index(best(models, self.reading(task or self.p.task, replicate).task.metric))

    def followed(self, s: Student) -> list[Model]:
        if s.arm == "speed" or not self.taught(s):
            return []
        every = self.teacher_set(s.replicate, s.task)
        return [every[self.best(s.replicate, s.task)]] if s.method == "one" else every

    # --- students ----------------------------------------------------------------------------------------------------------

    def optimised(self, s: Student, prefix: str, **changes) -> Optimisation:
        return self.optimisation(prefix, **({"lr": self.p.bilstm_lr} if is_bilstm(s.student) else {}), **changes)

    def with_heads(self, s: Student) -> str:
        return f"{s.student} + heads-{heads(s.method, len(self.p.teachers))}"

    def pretrained(self, s: Student) -> Model:
        """Stage 1: one student per pool, method, architecture and replicate, whatever task it is for."""
        recipe = stage_1(s.method, f"pool-{self.pools[s.pool]}", self.optimised(s, "pool"), best=self.best(s.replicate),
                         control=CONTROLS.get(s.variant))
        return distil.distill(self.reading(self.p.task, s.replicate, s.student), self.teacher_set(s.replicate),
                              self.with_heads(s), recipe, self.student_seed(s.replicate))

    def make(self, s: Student, follow: int | None = None) -> Model:
        """The student, from the store or trained now. follow: the teacher that a member of m-o-m learns from."""
        prepared, seed = self.reading(s.task, s.replicate, s.student), self.student_seed(s.replicate)
        optimisation = self.optimised(s, "student")
        if s.kind == "undistilled":
            return distil.undistilled(prepared, s.student, optimisation, seed)
        if s.variant == "plain_ce":
            return distil.undistilled(prepared, s.student, replace(optimisation, epochs=self.same_compute(s)), seed)
        start = self.pretrained(s) if s.pool else None
        new = start is not None and (s.task != self.p.task or self.p.heads_after_pool == "new")
        recipe = stage_2("one" if s.method == "each" else s.method, s.alpha, optimisation, new_heads=new,
                         best=self.best(s.replicate, s.task) if follow is None else follow, control=CONTROLS.get(s.variant))
        return distil.distill(prepared, self.teacher_set(s.replicate, s.task), self.with_heads(s), recipe, seed, start=start)

    def models(self, s: Student) -> list[Model]:
        """The models behind a row: one, or for m-o-m one student per teacher."""
        if s.kind == "teacher":
            return [self.teacher_set(s.replicate, s.task)[self.best(s.replicate, s.task)]]
        return [self.make(s, p) for p in self.everyone] if s.method == "each" else [self.make(s)]

    def same_compute(self, s: Student) -> int:
        """Epochs of plain cross-entropy on the task that take at least as many steps as both stages of a student."""
        def steps(n: int) -> int:
            return math.ceil(n / self.p.batch_size)

        own = steps(len(self.reads(s).task.splits["train"]))
        before = self.p.pool_epochs * steps(self.pools[s.pool]) if s.pool else 0
        return self.p.student_epochs + math.ceil(before / own)

    def jobs(self) -> list[list[Callable]]:
        """The teachers of all tasks, then stage 1, then the students."""
        _, *rest = super().jobs()
        every = [s for r in self.p.repeats for s in self.students(r) if s.pool and s.variant != "plain_ce"]
        inner = {(s.method, s.pool, s.student, s.variant, s.replicate): s for s in every}
        first = [partial(self.teacher, r, i, task) for r in self.p.repeats for task in self.tasks for i in self.everyone]
        return [first, [partial(self.pretrained, s) for s in inner.values()], *rest]

    # --- rows ----------------------------------------------------------------------------------------------------------------

    def columns(self, s: Student, model: Model) -> dict:
        return {
            "role": "target" if s.task == self.p.task else "transfer", "method": s.method, "pool": s.pool or None,
            "pool_size": self.pools.get(s.pool), "student": s.student or None, "layers": model.shape.get("layers"),
            "alpha": s.alpha if s.kind == "student" else None, "variant": s.variant or None, "repeat": s.replicate,
            "n": len(self.p.teachers), "speed": None,
        }

    def scores(self, s: Student, model: Model, said: Callable[[str], Tensor], split: str) -> dict[str, float]:
        """The task's metrics on a split; of students of the sections `ranking`, and teachers, also MAP where the task has a
        split to rank. Where the test has two sets (MNLI), each metric is the mean of both, as in the paper's Table 4, and both
        stand beside it."""
        task, ranking = self.reads(s).task, self.p.ranking
        sets = ["test", SECOND] if split == "test" and SECOND in task.splits else [split]
        each = [super(Experiment, self).scores(s, model, said, part) for part in sets]
        found = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
        if len(each) > 1:
            found |= {f"{name}_{part}": value for part, one in zip(("matched", SECOND), each) for name, value in one.items()}
        ranked = s.arm != "speed" and (s.section in ranking or (s.kind in ("teacher", "ensemble") and bool(ranking)))
        if split == "test" and ranked and "ranking" in task.splits:
            found["map"] = wikiqa.ranking_score(task, said("ranking").numpy())
        return found

    def row(self, s: Student, models: Sequence[Model], **known) -> dict:
        """Stage 1 was taught by all teachers of the target task, whose scoring of the pool is on the bill."""
        splits = self.reads(s).task.splits
        found = super().row(s, models, task=s.task, n_test=sum(len(splits.get(part, ())) for part in ("test", SECOND)), **known)
        if s.pool and self.followed(s):
            read, name = self.prepared_for(s.replicate), f"pool-{self.pools[s.pool]}"
            scored = (teachers.score(read, t, name).info["seconds"] for t in self.teacher_set(s.replicate))
            found["time"]["score_s"] += sum(scored)
        return found

    def beside(self, replicate: int, kind: str, variant: str = "", task: str = "", arm: str = "teachers") -> Student:
        """A teacher, or the ensemble of all, in the words of a row."""
        return Student(arm, "", (), variant, kind, replicate, "teachers", task or self.p.task, alpha=self.p.alpha)

    def teacher_rows(self, replicate: int) -> Iterator[dict]:
        """Every teacher of every task, the one that is best on validation marked, and, of several, the mean of their
        probabilities."""
        for task in self.tasks:
            models, best = self.teacher_set(replicate, task), self.best(replicate, task)
            for i, model in enumerate(models):
                yield self.row(self.beside(replicate, "teacher", "best" if i == best else f"number {i}", task), [model])
            if len(models) > 1:
                yield self.row(self.beside(replicate, "ensemble", task=task), models)

    def floor_rows(self, replicate: int) -> list[dict]:
        return [row for task in self.tasks
                for row in floor_rows(self.reading(task, replicate), task, {"repeat": replicate})]

    def speed_rows(self, replicate: int) -> Iterator[dict]:
        """Speed of every kind of network on the target task's texts: the best teacher, all of them if there are several, and
        of the students that the other sections have: without soft heads, with one, with N, N students; Bi-LSTMs; other
        depths. A pool changes a student's weights and not its speed, so these rows name none. A teacher that is a table of
        logits has no speed."""
        if "speed" not in self.p.sections:
            return
        every, seen = self.teacher_set(replicate), set()
        for kind, models in (("teacher", [every[self.best(replicate)]]), ("ensemble", every)):
            if (kind == "teacher" or len(models) > 1) and not any("table" in m.info for m in models):
                one = self.beside(replicate, kind, "best" if kind == "teacher" else "", arm="speed")
                yield self.row(one, models, speed=self.timed(models, self.prepared_for(replicate)))
        for s in self.students(replicate):
            timed = s.section in ("main", "stages", "bilstm", "layers") and s.method != "average"  # it is built like "one"
            if timed and s.task == self.p.task and (s.method, s.student) not in seen:
                seen.add((s.method, s.student))
                models = self.models(s)
                yield self.row(replace(s, arm="speed", pool=""), models,
                               speed=self.timed(models, self.reading(s.task, replicate, s.student)))

    def timed(self, models: list[Model], prepared: Prepared) -> dict:
        """The ruler of mtkd.measure.speed on the test texts in the models' own tokens."""
        texts = self.p.speed_texts
        return speed.ask([predicting(m.network()) for m in models], prepared.of(models[0]).data("test"), texts=texts,
                         singles=min(32, texts), repeats=self.p.speed_repeats, device=train.device_at_hand())

    def data_rows(self) -> list[dict]:
        """Table 3: samples per split and mean lengths of questions and answers, for every task and every pool; both sets of a
        test that has two (MNLI) are its samples, as in the paper."""
        rows = []
        for name in self.tasks:
            task = self.task_of(name, self.first)
            for part in SPLITS:
                inputs = task.splits[part].inputs
                if part == "test" and SECOND in task.splits:
                    inputs = [*inputs, *task.splits[SECOND].inputs]
                rows.append({"task": name, "split": part, "samples": len(inputs), **words(inputs),
                             "classes": len(task.classes), "metric": task.metric})
        for name, size in self.pools.items():
            seen = self.prepared.pool(f"pool-{size}").take(0, min(size, LOOK))
            rows.append({"task": f"{self.p.task} (pool)", "split": f"pool {name}", "samples": size, **words(seen.inputs),
                         "classes": None, "metric": None})
        return rows

    def own(self, replicate: int) -> Student:
        """TMKD on the target task, with the second pool if there is one (TMKD large), else the first, else none (MKD)."""
        pool = ["", *self.pools][:3][-1]
        return Student("methods", "many", (), "", "student", replicate, "main", self.p.task, self.p.student, self.p.alpha, pool)

    def candidates(self) -> list[Student]:
        return super().candidates() if "main" in self.p.sections else []


from_parameters = Experiment


def words(texts: list[tuple[str, ...]]) -> dict[str, float | None]:
    """Mean number of words of the first and, in pairs, of the second text.

    >>> words([("how high is it", "It is high."), ("why", "Nobody knows.")])
    {'words_first': 2.5, 'words_second': 2.5}
    """
    means = [sum(len(re.findall(r"\w+", row[i])) for row in texts) / len(texts) for i in range(len(texts[0]))]
    return {"words_first": means[0], "words_second": means[1] if len(means) > 1 else None}
