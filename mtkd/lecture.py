"""What the notebooks need to teach: source shown where it is discussed, claims as a table, exercises that check."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pandas as pd

from mtkd import papers, report


def show(*functions: Callable) -> None:
    """Display the source of functions and rules as they stand in mtkd now, so that text and code cannot drift apart."""
    from IPython.display import Markdown, display

    for function in (getattr(f, "function", f) for f in functions):  # of a registered rule the function behind it
        where = f"mtkd/{function.__module__.removeprefix('mtkd.').replace('.', '/')}.py"
        display(Markdown(f"`{where}`\n```python\n{inspect.getsource(function).rstrip()}\n```"))


def claims_frame(paper: str) -> pd.DataFrame:
    """What a paper claims, in this kit's words."""
    data = papers.load(paper)
    return table(pd.DataFrame({"id": [c.id for c in data.claims], "the paper says": [c.statement for c in data.claims]}))


def verdicts_frame(verdicts: list) -> pd.DataFrame:
    """Verdicts as a table: on average, as stated, what stands beside, and what the verdict stands on."""
    return table(pd.DataFrame([{
        "claim": v.claim, "tier": v.tier, "on average": v.words, "what came out here": report.outcome(v),
        "as stated": report.stated(v), "beside": "; ".join(report.beside(v, 2)), "test": v.test, "note": v.note}
        for v in verdicts]))


def table(frame: pd.DataFrame):
    """A DataFrame shown with its texts whole and wrapped, without row numbers."""
    wrap = {"text-align": "left", "white-space": "normal", "vertical-align": "top", "max-width": "36em"}
    return frame.style.hide(axis="index").set_properties(**wrap).set_table_styles(
        [{"selector": "th", "props": [("text-align", "left")]}]).format(precision=3)


class Exercises:
    """Checks for a notebook's exercises. Unanswered (None) is no error, so that Run All goes through.

    >>> ex = Exercises({"1": lambda answer: answer == 4})
    >>> ex.check("1", None), ex.check("1", 5), ex.check("1", 4)
    ('exercise 1: not answered yet', 'exercise 1: not yet', 'exercise 1: correct')
    """

    def __init__(self, checks: dict[str, Callable[[object], bool]]):
        self.checks = checks

    def check(self, name: str, answer: object) -> str:
        if answer is None:
            return f"exercise {name}: not answered yet"
        try:
            good = bool(self.checks[name](answer))
        except Exception as error:  # an answer of the wrong kind is a wrong answer, not a crash
            return f"exercise {name}: not yet ({type(error).__name__}: {error})"
        return f"exercise {name}: {'correct' if good else 'not yet'}"
