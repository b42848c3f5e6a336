"""Prose from the docstrings of installed packages, found and parsed without importing or running any of them.

A package is found with `importlib.util.find_spec`, its files are parsed with `ast`, and each docstring is cut into
paragraphs of plain prose: parameter lists, code, tables and field lists are dropped, markup is stripped, and the names
of the eight libraries are replaced by the word "library", so that "which library is this from?" cannot be answered by
reading the name. Module names and vocabulary stay: they are what the question is about. The parameter lists that are
dropped here are read by `parameters`, for libraries that write numpydoc.

    >>> paragraphs("Sum of array elements over an axis.\\n\\nParameters\\n----------\\na : array_like\\n    Elements.")
    ['Sum of array elements over an axis.']

The module uses the standard library alone, so that a child process (`python -m mtkd.data.docstrings numpy prose`) starts
at once.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

# class name -> (package to find, distribution whose version goes into the cache's key); None = the standard library
LIBRARIES: dict[str, tuple[str, str] | None] = {
    "python": None,
    "numpy": ("numpy", "numpy"),
    "scipy": ("scipy", "scipy"),
    "scikit-learn": ("sklearn", "scikit-learn"),
    "pandas": ("pandas", "pandas"),
    "matplotlib": ("matplotlib", "matplotlib"),
    "torch": ("torch", "torch"),
    "transformers": ("transformers", "transformers"),
}
NUMPYDOC = ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib")  # those whose parameters are lists `name : type`
# Parsing everything takes a core half a minute, nearly all of it in torch and transformers. The files are taken in the
# order of their names' hashes, so a cap is a fixed random sample.
MAX_FILES = 550
# Not prose of the library itself (tests, vendored code), or present on some systems only (tkinter and its programs).
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "testing", "_vendor", "externals", "vendored", "idlelib",
           "lib2to3", "turtledemo", "tkinter", "ensurepip", "distutils", "msilib", "lib-dynload", "__pycache__"}


def find(library: str) -> tuple[Path, str] | None:
    """Folder and version of a library, or None where it is not installed. Imports nothing."""
    entry = LIBRARIES[library]
    if entry is None:
        return Path(sysconfig.get_paths()["stdlib"]), platform.python_version()
    package, distribution = entry
    try:
        spec = importlib.util.find_spec(package)
        version = importlib.metadata.version(distribution)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))), version


def extract(library: str, what: str = "prose") -> list[tuple[str, list]]:
    """The documented names of a library with their paragraphs, at least one each, or, for "parameters", with those (see
    `parameters`), two at least; in a fixed order.

    Raises KeyError for a library that is not in LIBRARIES; one that is not installed has no names.
    """
    read, least = {"prose": (paragraphs, 1), "parameters": (parameters, 2)}[what]
    rows = ((qualified, read(docstring)) for qualified, docstring in documented(library))
    return [(qualified, found) for qualified, found in rows if len(found) >= least]


def documented(library: str) -> Iterator[tuple[str, str]]:
    """Every documented name of a library with its docstring as written (dedented), in a fixed order."""
    found = find(library)
    if found is None:
        return
    root = found[0]
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in SKIPPED and not f.startswith("config-")]
        names += [Path(folder, f).relative_to(root).as_posix() for f in files
                  if f.endswith(".py") and not f.startswith("_sysconfigdata")]
    names.sort(key=lambda n: hashlib.sha256(n.encode()).digest())
    prefix = "" if LIBRARIES[library] is None else LIBRARIES[library][0]
    for name in names[:MAX_FILES]:
        source = (root / name).read_bytes()
        if b'"""' not in source and b"'''" not in source:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old escapes in other people's string literals
                tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        module = ".".join([p for p in (prefix, *name.removesuffix(".py").split("/")) if p and p != "__init__"])
        yield from _docstrings(tree, module)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node)
        if text:
            yield name, text
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _docstrings(child, f"{name}.{child.name}")
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _docstrings(child, name)


_PROSE_SECTIONS = {"notes", "note", "description", "summary", "overview", "extended summary", "warning", "warnings"}
_UNDERLINE = re.compile(r"([=\-~^*#+])\1{2,}$")
_GOOGLE = re.compile(r"[A-Z][\w ]{1,30}:$")
_NOT_PROSE = re.compile(r"\s|>>>|\.\.|```|:\w|[-*+|#@<$\[({\\]|\d+[.)]|\w+\s+:|[\w*, ]+:\s*$|---|===|\w+ *\([^)]*\):")
_LETTER = re.compile(r"[A-Za-z ]")
MIN_WORDS, MAX_WORDS = 4, 60


def paragraphs(docstring: str) -> list[str]:
    """The paragraphs of prose in a docstring (already dedented), cleaned, each of 4 to 60 words.

    A longer paragraph is cut after its last sentence that fits. Sections with an underlined heading are skipped unless
    they hold prose (Notes), and so is every paragraph that looks like code, a list, a table or a field list.
    """
    prose, keep = [], True
    for block in re.split(r"\n[ \t]*\n", docstring):
        lines = block.rstrip().split("\n")
        if len(lines) >= 2 and _UNDERLINE.match(lines[1].strip()) and not lines[0].startswith(" "):
            keep = lines[0].strip().lower() in _PROSE_SECTIONS
            lines = lines[2:]
        heading = next((i for i, line in enumerate(lines) if _GOOGLE.match(line)), None)
        lines = lines[:heading]
        if not keep or not lines or any(_NOT_PROSE.match(line) or not line for line in lines):
            continue
        text = _fit(strip_markup(" ".join(lines)))
        if text and text not in prose:
            prose.append(text)
    return prose


_PARAMETERS = re.compile(r"^Parameters\n-{3,}\n(.*?)(?=\n\S[^\n]*\n-{3,}|\Z)", re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"([A-Za-z_]\w*) ?: ?(\S.*)")


def parameters(docstring: str) -> list[tuple[str, str, str]]:
    """Name, type and first sentence (cleaned, without its full stop) of each parameter in a numpydoc docstring.

    Left out: entries of several names at once, those without a type, and those with fewer than 3 words to them.

    >>> parameters("Sums.\\n\\nParameters\\n----------\\na : array_like\\n    Elements to *sum* up. Can be any.\\nb, c : int")
    [('a', 'array_like', 'Elements to sum up')]
    """
    section = _PARAMETERS.search(docstring)
    entries: list[tuple[str, str, list[str]]] = []
    lines: list[str] = []  # of the entry that is being read
    for line in section[1].split("\n") if section else ():
        if line.startswith(" "):
            lines.append(line.strip())
        elif line:
            entry, lines = _ENTRY.fullmatch(line), []
            if entry:
                entries.append((entry[1], entry[2], lines))
        else:
            lines.append("")
    described = ((name, kind, strip_markup("\n".join(lines).split("\n\n")[0])) for name, kind, lines in entries)
    firsts = ((name, kind, sentences(text)[0].rstrip(".:, ")) for name, kind, text in described)
    return [(name, kind, text) for name, kind, text in firsts if len(text.split()) >= 3]


_MARKUP = [(re.compile(pattern), replacement) for pattern, replacement in (
    (r"!?\[([^\]]*)\]\([^)]*\)", r"\1"),                 # [text](address)
    (r"https?://\S+|www\.\S+", ""),
    (r":[\w:+-]+:`~?([^`<]*?)\s*(?:<[^`]*>)?`", r"\1"),  # :class:`~a.b.C`
    (r"\[\d+\]_?|\[#?\w+\]_", ""),                       # [1]_
    (r"\[?`+[~.!]*([^`]*?)\s*(?:<[^`]*>)?`+_*\]?", r"\1"),
    (r"(?<!\w)(\*{1,3})([^\s*](?:[^*]*[^\s*])?)\1(?!\w)", r"\2"),  # *a*, **a**
    (r"\|(\w+)\|", r"\1"),
    (r"::", ":"),
)]
_NAMES = re.compile(
    r"(?<![A-Za-z])(?:c?python\d?|numpy|np|scipy|sklearn|sci-?kit[- ]?learn|scikits?|pandas|pd|matplotlib|mpl|pyplot"
    r"|plt|(?:py|lib)?torch|transformers|hugging ?face)(?![A-Za-z])", re.IGNORECASE)


def strip_markup(text: str) -> str:
    """Plain text of reStructuredText, numpydoc or Markdown, with the libraries' own names replaced by "library".

    >>> strip_markup("Like :class:`~torch.Tensor`, but a *NumPy* ``ndarray`` [1]_.")
    'Like library.Tensor, but a library ndarray.'
    """
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\s+", " ", _NAMES.sub("library", text)).strip()
    return re.sub(r"\s+([.,;:)])", r"\1", text)


def sentences(text: str) -> list[str]:
    """Split at full stops, question and exclamation marks that are followed by a capital letter."""
    return re.split(r"(?<=[a-z)\]\"'0-9][.!?])\s+(?=[A-Z])", text)


def _fit(text: str) -> str | None:
    if len(text.split()) > MAX_WORDS:
        kept: list[str] = []
        for sentence in sentences(text):
            if len(" ".join([*kept, sentence]).split()) > MAX_WORDS:
                break
            kept.append(sentence)
        text = " ".join(kept)
    letters = len(_LETTER.findall(text))
    enough = len(text.split()) >= MIN_WORDS and letters >= 0.85 * len(text)
    return text if enough and text[0].isalpha() else None


if __name__ == "__main__":
    gc.disable()  # syntax trees hold no cycles, and looking for some in them takes a sixth of the time
    json.dump(extract(*sys.argv[1:]), sys.stdout)
