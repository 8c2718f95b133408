"""What a program of this folder is: a function that ends with `return locals()`.

Its body is a notebook cell as it stands. A comment `# differences: NAMES` says where a difference quotient may move the leaves that
these names hold: after whatever must not depend on them, before the forward pass.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

HEAD = """\
import copy, itertools, math
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
"""
MARK = re.compile(r"# differences: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Idiom:
    """A program, and what is to be said of it.

    :param library: whose idiom it is.
    :param verdict: `harmless`, or `mixes` where one accumulated gradient holds two versions of a leaf.
    :param says: a word of the one note that `blind_spots` should have; empty: there is none.
    :param no_differences: why a difference quotient is no judge here; empty: it is one.
    :param false_alarm: what is said today and should not be.
    """

    run: Callable[[], dict[str, Any]]
    source: str
    library: str
    what: str
    verdict: str = "harmless"
    says: str = ""
    no_differences: str = ""
    false_alarm: str = ""

    @property
    def name(self) -> str:
        return f"{self.library}: {self.what}"


class Idioms(list[Idiom]):
    """The programs of one file."""

    def __call__(self, library: str, what: str, **said: str) -> Callable[[Any], Any]:
        def add(function: Any) -> Any:
            self.append(Idiom(function, _body(function), library, what, **said))
            assert bool(MARK.search(self[-1].source)) != bool(self[-1].no_differences), self[-1].name
            return function

        return add


def _body(function: Any) -> str:
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    tree = ast.parse("\n".join(lines)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    last = tree.body[-1]
    assert lines[last.lineno - 1].strip() == "return locals()", tree.name
    first = next(i for i, line in enumerate(lines) if line.startswith("def ")) + 1
    return textwrap.dedent("\n".join(lines[first : last.lineno - 1])) + "\n"


def seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  (what such programs use)


@contextlib.contextmanager
def quiet():
    """No warnings, nothing printed."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def run_source(source: str, **names: Any) -> dict[str, Any]:
    """The names that the source leaves behind, in a namespace of its own."""
    space: dict[str, Any] = {"__name__": "__main__", **names}
    seed()
    with quiet():
        exec(compile(HEAD + source, "<program>", "exec"), space)
    return space


def numbers(space: dict[str, Any]) -> dict[str, Any]:
    """Every tensor, gradient, version and number that the names hold, and where the random numbers stand."""
    drawn = np.random.get_state()[1].copy()  # noqa: NPY002
    found: dict[str, Any] = {"random": torch.random.get_rng_state(), "numpy": drawn}
    seen: dict[int, Any] = {}  # the objects themselves: an id may be used again

    def add(name: str, value: Any) -> None:
        if isinstance(value, (bool, int, float)):
            found[name] = value
            return
        if isinstance(value, (np.ndarray, np.generic)):
            found[name] = np.array(value)
            return
        if isinstance(value, torch.Tensor) and not value.is_meta:
            found[name] = value.detach().clone()
            found[f"{name}._version"] = value._version
            # A view made under no_grad refuses `is_leaf` once its base was written.
            if value._base is None and value.is_leaf and value.grad is not None:
                found[f"{name}.grad"] = value.grad.detach().clone()
            return
        if id(value) in seen or isinstance(value, type):
            return
        seen[id(value)] = value
        if isinstance(value, torch.nn.Module):
            add(name, {**dict(value.named_parameters()), **dict(value.named_buffers())})
        elif isinstance(value, torch.optim.Optimizer):
            add(f"{name}.state", list(value.state.values()))
        elif isinstance(value, dict):
            for key, item in value.items():
                if not str(key).startswith("_"):
                    add(f"{name}[{key}]", item)
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                add(f"{name}[{i}]", item)
        elif type(value).__module__ == "__main__" or type(value).__module__.startswith("idioms."):
            add(name, vars(value))

    for name, value in space.items():
        if not name.startswith("_") and name not in ("In", "Out"):  # those are IPython's
            add(name, value)
    return found


def unequal(alone: dict[str, Any], watched: dict[str, Any]) -> list[str]:
    """The names whose numbers differ by a bit, or that only the run alone has."""
    return [name for name, value in alone.items() if name not in watched or not _equal(value, watched[name])]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    return bool(np.array_equal(a, b, equal_nan=isinstance(a, (float, np.ndarray)) and np.asarray(a).dtype.kind == "f"))
