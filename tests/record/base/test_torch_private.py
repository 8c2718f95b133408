"""Every private name of torch that the recorder uses: it is there in this torch, and without it the watch still runs."""

from __future__ import annotations

import ast
import importlib
import pathlib
import pkgutil
import subprocess
import sys

import pytest
import torch
import torch.utils.checkpoint

from jupyter_inplace.record.base.torch_attributes import ATTRIBUTES

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


# --- the rest of the package ------------------------------------------------------------------------------------------

# Private names that are not torch's, and whose they are.
OTHERS = {
    "_getframe": "sys",
    "_exit": "os",
    "_excinfo": "pytest",
    "_spec": "our own import of a program",
    "_allow_stdin": "ipykernel",
    "_showtraceback": "IPython",
    "_filename_map": "IPython",
    "_repr_mimebundle_": "IPython",
    "_amp_": "the beginning of names of operators",
    "_fused_": "the same",
    "_ReLU": "letters, not a name",
    "_new": "the same",
}


def _used() -> dict[str, set[str]]:
    """Every private name in the package that is read of something else than `self`, by name: where."""
    defined: set[str] = set()
    used: dict[str, set[str]] = {}
    trees = {
        path: ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != SOURCE and path.name != "torch_attributes.py" and "tensorflow" not in path.parts
    }
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                defined.add(node.id if isinstance(node, ast.Name) else node.attr)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [part for a in node.names if a.name.startswith("torch") for part in a.name.split(".")]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isascii():
                words = node.value.split(".")
                if all(not word or word.isidentifier() for word in words):
                    names = words if words[0] == "torch" else words[:1]
            elif isinstance(node, ast.FunctionDef) and node.name in ATTRIBUTES:  # overridden
                names = [node.name]
            for name in names:
                private = name.startswith("_") and not name.startswith("__") and name != "_"
                if private and (name not in defined or name in ATTRIBUTES or name in _TORCH_HAS):
                    used.setdefault(name, set()).add(path.name)
    return used


def _names_of_torch() -> set[str]:
    node = torch.ones(1, requires_grad=True).exp().grad_fn
    places = (
        torch,
        torch._C,
        torch._C._autograd,
        torch.Tensor,
        torch.UntypedStorage,
        torch.nn.Module,
        torch.optim.Optimizer,
        torch.autograd,
        torch.autograd.graph,
        torch.autograd.Function,
        torch.library,
        torch.ops.aten.add.Tensor,
        torch.ops.aten.add.Tensor._schema,
        torch.utils.checkpoint,
        node,
    )
    return {name for place in places for name in dir(place) if name.startswith("_") and not name.startswith("__")}


_TORCH_HAS = _names_of_torch()


def test_every_private_name_of_torch_that_the_package_uses_is_declared():
    room = {node.attr for node in ast.walk(ast.parse(SOURCE.read_text())) if isinstance(node, ast.Attribute)}
    declared = {*ATTRIBUTES, *OTHERS, *room, *(path.rpartition(".")[2] for path in _optional())}
    assert {name: sorted(where) for name, where in _used().items() if name not in declared} == {}


def test_nothing_is_declared_that_nobody_uses():
    assert set(ATTRIBUTES) - {"TensorBase"} == set(_used()) & (set(ATTRIBUTES) - {"TensorBase"})


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_this_torch_has_what_is_declared(name):
    of = ATTRIBUTES[name].of
    leaf = torch.ones(1, requires_grad=True)
    objects = {
        "a node": leaf.exp().grad_fn,
        "a custom Function's node": _Twice.apply(leaf).grad_fn,
        "torch.Tensor": leaf,
        "torch.nn.Module": torch.nn.Module(),
        "torch._ops.OpOverload": torch.ops.aten.add.Tensor,
        "torch.ops.aten": torch.ops.aten,
    }
    owner = objects[of] if of in objects else pkgutil.resolve_name(of)
    if name.endswith("_") and of == "a node":
        assert [found for found in dir(owner) if found.startswith(name)]
    elif not hasattr(owner, name):
        importlib.import_module(f"{of}.{name}")  # a module that torch imports late


def test_private_names_stand_in_one_file():
    """Nobody else reaches into `torch._C`, but for what is declared."""
    elsewhere: set[tuple[str, str]] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != SOURCE:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("torch._C", "_C"):
                    elsewhere.add((path.name, node.attr))
    assert {name for _, name in elsewhere} <= {name for name, a in ATTRIBUTES.items() if a.of == "torch._C"}, elsewhere
