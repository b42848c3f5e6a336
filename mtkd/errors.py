"""The one error a user of the kit should ever see, and the nearest name, which most of its sentences end with."""

import difflib
from collections.abc import Iterable


class KitError(Exception):
    """Something a person can act on, said in one clear sentence.

    The command line prints the sentence without a traceback and exits with status 2; a notebook shows it as the
    last line of the error. Everything else that reaches a user is a defect of the kit.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist: the one that was probably meant, else all there are."""
    names = list(names)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.4):
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(names)}." if names else "."
