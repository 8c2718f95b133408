"""Every private name of torch that the recorder uses: it is there in this torch, and without it the watch still runs."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest
import torch

PACKAGE = pathlib.Path(__file__).parents[3] / "jupyter_inplace"
SOURCE = PACKAGE / "record" / "base" / "torch_private.py"

# Without these the watch cannot be: they are imported plainly, and a torch that lacks one fails here.
REQUIRED = (
    "_autograd._get_sequence_nr",
    "_DisableTorchDispatch",
    "_autograd._push_saved_tensors_default_hooks",
    "_autograd._pop_saved_tensors_default_hooks",
    "_len_torch_dispatch_stack",
    "_get_dispatch_stack_at",
    "_push_on_torch_dispatch_stack",
    "_pop_torch_dispatch_stack",
)


def _optional() -> list[str]:
    """The names under `torch._C` that are looked up with `getattr` and a default, as paths."""
    bases = {"_C": "", "_autograd": "_autograd.", "_functorch": "_functorch."}
    found = []
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            base, name = node.args[0], node.args[1]
            if isinstance(base, ast.Name) and base.id in bases and isinstance(name, ast.Constant):
                found.append(bases[base.id] + str(name.value))
    return sorted(set(found))


def _look_up(path: str) -> object:
    value: object = torch._C
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_the_list_is_not_empty():
    assert {"_storage_id", "_autograd._top_saved_tensors_default_hooks", "_ForceDispatchKeyGuard"} <= set(_optional())


@pytest.mark.parametrize("path", [*REQUIRED, *_optional()])
def test_this_torch_has_it(path):
    _look_up(path)


def test_without_any_one_of_them_the_watch_still_runs():
    """A program that breaks is still told of, where a name is gone before the package is imported: a process for each."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *_optional()], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == _optional()


_PROGRAM = """
import importlib, os, sys, traceback, warnings
import torch

BASES = {
    "": "_C: Any = torch._C",
    "_autograd": "_autograd: Any = torch._C._autograd",
    "_functorch": '_functorch: Any = getattr(_C, "_functorch", None)',
}

def without(path):
    # Torch's own Python keeps what it has; only the package must not find the name.
    place, _, name = path.rpartition(".")
    real = getattr(torch._C, place) if place else torch._C

    class Without:
        def __getattr__(self, key):
            if key == name:
                raise AttributeError(key)
            return getattr(real, key)

    private = importlib.import_module("jupyter_inplace.record.base.torch_private")
    source = open(private.__file__).read()
    line = BASES[place]
    assert line in source, line
    source = source.replace(line, line.partition("=")[0] + "= _STAND_IN")
    private._STAND_IN = Without()
    exec(compile(source, private.__file__, "exec"), private.__dict__)

def try_it():
    from jupyter_inplace import watch
    w = torch.randn(3, requires_grad=True)
    try:
        with watch(verify=False) as report:
            h = w.sigmoid()
            loss = h.sum()
            h.mul_(2)
            loss.backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error), error
    else:
        raise AssertionError("torch's error is gone")
    assert report.verdict == "breaks", (report.verdict, report.blind_spots)
    assert not [note for note in report.blind_spots if "recorder failed" in note], report.blind_spots

for path in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            without(path)
            try_it()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(path, flush=True)
"""


def test_private_names_stand_in_one_file():
    """Nobody else reaches into `torch._C`, but for the class of tensors that Python's own is made from."""
    elsewhere: set[tuple[str, str]] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != SOURCE:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch._C":
                    elsewhere.add((path.name, node.attr))
    assert {name for _, name in elsewhere} <= {"TensorBase"}, elsewhere
