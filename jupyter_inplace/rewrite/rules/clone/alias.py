"""Copy where a name was bound: ``a = p.detach()`` becomes ``a = p.detach().clone()``, ``.numpy()`` gets ``.copy()``.

The write then goes to separate memory, and everything saved before keeps its values.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.saves import saving_nodes
from jupyter_inplace.rewrite.syntax.scope import Use
from jupyter_inplace.rewrite.syntax.tensors import base_of, dotted, last_name, peel
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["binding_of", "copy_of", "propose"]

_SEVERAL = frozenset({"chunk", "split", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split"})


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Copy at the binding of the written variable, at those of the variables that it aliases, and at the numpy boundary."""
    code = write.code
    if not write.inside:
        return
    seen: set[str] = set()
    name = write.name
    depth = 0
    while name is not None and name not in seen:
        seen.add(name)
        found = binding_of(write, name)
        if found is None:
            break
        value, method = found, copy_of(found)
        aliases = peel(value) is not None or isinstance(value, cst.Name)
        if last_name(getattr(value, "func", value)) in _SEVERAL:
            piece = code.fresh("piece")
            several = f"({piece}.clone() for {piece} in {code.get(value)})"
            yield Proposal("clone", short(several), (code.replace(value, several),), 39, write.reading)
        elif aliases or any(node is value for node, _ in saving_nodes(write)):
            edits = tuple(code.append(value, f".{method}()"))
            title = short(f"{name} = {code.receiver(value)}.{method}()")
            yield Proposal("clone", title, edits, (15 if aliases else 42) + depth, write.reading)
        base = base_of(value)
        name = base.value if isinstance(base, cst.Name) else None
        depth += 1
    yield from _borders(write, seen)


def binding_of(write: WriteSyntax, name: str) -> cst.BaseExpression | None:
    """The value last assigned to a plain variable above the write (for a variable of the cell: anywhere above)."""
    code = write.code
    binder = code.scopes.binder(name, write.scope)
    stores: list[Use] = [u for u in code.scopes.of(name, binder) if u.stores and not u.augmented]
    above = [u for u in stores if u.start < write.start] or (stores if binder is not write.function else [])
    for use in reversed(above):
        for node in code.nodes:
            if isinstance(node, cst.Assign) and any(code.span(t.target)[0] == use.start for t in node.targets):
                value = node.value
                inside = code.span(node)[0] <= write.start < code.span(node)[1]
                return None if inside or isinstance(value, cst.Tuple | cst.List | cst.Dict | cst.Integer) else value
    return None


def copy_of(value: cst.BaseExpression) -> str:
    """The name of the method that copies this value: ``copy`` if the value is a numpy array, else ``clone``."""
    for step in _steps(value):
        if isinstance(step, cst.Call):
            name = last_name(step.func)
            root = (dotted(step.func) or "").split(".")[0]
            if name == "numpy" or root in {"np", "numpy"}:
                return "copy"
            if name in {"from_numpy", "as_tensor", "from_dlpack", "frombuffer", "clone", "detach"}:
                return "clone"
    return "clone"


def _steps(value: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """A value and, from the outside in, the expressions on which it is called or accessed."""
    step: cst.BaseExpression | None = value
    while step is not None:
        yield step
        if isinstance(step, cst.Call):
            inner = step.func.value if isinstance(step.func, cst.Attribute) else None
            step = peel(step) or inner
        else:
            step = step.value if isinstance(step, cst.Attribute | cst.Subscript) else None


def _borders(write: WriteSyntax, seen: set[str]) -> Iterator[Proposal]:
    """Copies where memory enters or leaves torch: ``from_numpy(a)`` gets ``a.copy()``, ``h.numpy()`` a ``.copy()``."""
    code = write.code
    known = {*seen, *(m.tensor for m in write.mutations), *(c.tensor for c in write.conflicts)}
    for node in code.nodes:
        if not isinstance(node, cst.Call):
            continue
        name = last_name(node.func)
        if name in {"from_numpy", "as_tensor", "from_dlpack", "frombuffer", "asarray"} and node.args:
            inner = node.args[0].value
            related = base_of(inner)
            if isinstance(related, cst.Name) and related.value in known:
                method = "clone" if name == "from_dlpack" else "copy"
                title = short(f"{code.get(node.func)}({code.receiver(inner)}.{method}())")
                yield Proposal("clone", title, tuple(code.append(inner, f".{method}()")), 38, write.reading)
        elif name == "numpy" and isinstance(node.func, cst.Attribute):
            related = base_of(node)
            if isinstance(related, cst.Name) and related.value in known:
                title = short(f"{code.receiver(node)}.copy()")
                yield Proposal("clone", title, tuple(code.append(node, ".copy()")), 16, write.reading)
