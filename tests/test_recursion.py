"""Nothing of ours recurses over the user's graph, expressions or data: programs are as deep as they run long.

Every function that calls itself, directly or by way of others in its file, is found from the syntax. Those that may are listed with what
bounds them.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jupyter_inplace"

LIMIT = "a limit of its own"
ARGUMENTS = "arguments of an operator: lists of tensors, no deeper than schemas allow"
SYNTAX = "statements and brackets of a source that Python has parsed; expressions deeper than `is_deep` are left out"
WRAPPERS = "wrapper tensors inside of wrapper tensors, down to `wrappers._DEPTH`"
ONCE = "calls itself once, or another function of its name"

ALLOWED = {
    "explain/errors/rejected.py": {"_op_of": ONCE},
    "explain/graph/held.py": {"apart_from": ONCE},
    "explain/graph/repair.py": {"replayed": LIMIT, "put": ARGUMENTS},
    "explain/graph/numbers.py": {"_flat": WRAPPERS, "same_values": WRAPPERS, "_same_parts": WRAPPERS},
    "explain/names/bindings.py": {"_bound": SYNTAX, "parts_of": SYNTAX},
    "explain/names/cell_code.py": {"statement_of": ONCE},
    "explain/names/names.py": {"_scan": LIMIT, "_scan_container": LIMIT, "_scan_module": LIMIT},
    "explain/names/roots.py": {
        **dict.fromkeys(("_tasks_of", "_named", "_named_parts", "_from_callers", "_container"), LIMIT),
        **dict.fromkeys(("_summed", "_container_of"), SYNTAX),
    },
    "explain/names/safe_eval.py": {
        "tensors_in": LIMIT,
        **dict.fromkeys(("_look_up", "_behind_call", "_index"), SYNTAX),
    },
    "explain/names/source.py": {"_asked_for": LIMIT},
    "frameworks/import_hook.py": {"find_spec": ONCE},
    "record/base/arguments.py": {"tensors_in": ARGUMENTS},
    "record/base/dynamo.py": {"_codes_of": "our own classes", "_nested": "our own functions"},
    "record/base/memory.py": {"copy_of": WRAPPERS, "is_gone": WRAPPERS, "storages_of": WRAPPERS},
    "record/base/wrappers.py": {"innermost": WRAPPERS},
    "record/base/reachable.py": {"_global_names": SYNTAX, "_collect": LIMIT},
    "record/base/schema.py": {"_flat": ARGUMENTS},
    "record/channels/alias_values.py": {"_knows": ARGUMENTS, "_keep": ARGUMENTS},
    "record/channels/checkpoints.py": {"take": ARGUMENTS},
    "record/channels/detached.py": {"_look": ARGUMENTS},
    "record/channels/discarded_grads.py": {"_read": ARGUMENTS},
    "record/channels/grad_aliases.py": {"_read": ARGUMENTS, "_holds": LIMIT},
    "record/channels/grad_results.py": {"_read": ARGUMENTS},
    "record/channels/untracked_writes.py": {"keep": ARGUMENTS},
    "record/source/expressions.py": {"is_path": SYNTAX, "_plain_index": SYNTAX, "_target_names": SYNTAX},
    "record/source/resolver.py": {"assigned_names": ONCE},
    "record/source/source_text.py": {"_child_around": "nodes without a place in the source, which do not nest"},
    "record/writes/fast_path.py": {"_apart": ARGUMENTS},
}


def recursive(path):
    """The names of the functions of a file that may call themselves."""
    functions = {}

    def collect(node, owner):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                functions[owner, child.name] = child
            collect(child, child.name if isinstance(child, ast.ClassDef) else owner)

    collect(ast.parse(path.read_text("utf-8")), None)
    calls = {}
    for (owner, name), function in functions.items():
        found = calls[owner, name] = set()
        for node in ast.walk(function):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Name):
                found |= {key for key in functions if key[1] == called.id}
            elif isinstance(called, ast.Attribute) and getattr(called.value, "id", None) in ("self", "cls"):
                found |= {(owner, called.attr)} & functions.keys()
    out = set()
    for start, called in calls.items():
        seen, todo = set(), list(called)
        while todo:
            key = todo.pop()
            if key not in seen:
                seen.add(key)
                todo += calls[key]
        if start in seen:
            out.add(start[1])
    return out


def test_recursion_is_seen(tmp_path):
    source = tmp_path / "a.py"
    source.write_text("def f(): g()\ndef g(): f()\ndef h(): f()\nclass C:\n    def m(self): self.m()\n")
    assert recursive(source) == {"f", "g", "m"}


@pytest.mark.parametrize("room", ["record", "explain", "frameworks"])
def test_only_what_is_bounded_recurses(room):
    found = {}
    for path in sorted((PACKAGE / room).rglob("*.py")):
        if names := recursive(path):
            found[path.relative_to(PACKAGE).as_posix()] = names
    assert found == {name: set(bounds) for name, bounds in ALLOWED.items() if name.startswith(room)}
