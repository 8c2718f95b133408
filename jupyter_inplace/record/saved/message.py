"""torch's own error for an overwritten saved tensor, word for word, with what we know about it added.

Versions of torch word it differently, name nodes differently, and write types in ways of their own. So torch is asked: a node that saves
a tensor like the one in question, overwritten as often, is made to read it back.
"""

from __future__ import annotations

import _thread
import functools
from collections.abc import Callable
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.saved.saved import Saved

_Read = Callable[[], object]

# Words the explanation for a saved tensor; set by the session in force, None where nobody knows more than torch.
explain: Callable[[Saved], str] | None = None


def version_error(saved: Saved) -> RuntimeError:
    """The error that torch raises when a node reads `saved`, whose version moved."""
    with private.Unfollowed():  # torch asks from C++
        text = torch_text(saved)
    more = ""
    if explain is not None:
        try:
            more = explain(saved)
        except Exception:  # the program's own error must come out whatever happens to our addition
            more = ""
    return RuntimeError(f"{text}\n\n{more}" if more else text)


def detached_error() -> RuntimeError:
    """The error that torch raises for a saved input that was a non-leaf when it was saved and is a leaf by `detach_()` now."""
    return RuntimeError(_detached_text() or "a saved tensor has been detached in place, by .detach_()")


def torch_text(saved: Saved) -> str:
    """Torch's own message about `saved`."""
    t, found, expected = saved.tensor, private.version(saved.tensor), saved.version
    name, number = None, 0
    if saved.made_by is not None:
        name, number = saved.made_by.__name__, saved.output_nr
        reader = private.current_autograd_node()
        if (
            type(reader).__name__ == "CopySlices"
        ):  # of an operation on a view, which had a node of its own when this was saved
            name, number = _name_inside(reader, saved.cell[0] if saved.cell else None) or name, 0
    elif t.grad_fn is not None:  # torch keeps no output number of an input and says 0 of each
        name = t.grad_fn.name()
    if t.is_nested and private.is_python_tensor(t):
        t._nested_tensor_size()  # torch asks its class, which may refuse
    text = None
    if found is not None and expected is not None:
        ask = _nested_text if t.is_nested else _text
        text = ask(t, (expected, found), name, number)
    return text or (
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{t.dtype}] is at version {found}; expected version {expected} instead."
    )


def _text(t: torch.Tensor, versions: tuple[int, int], name: str | None, number: int) -> str | None:
    """What torch says of a tensor like `t` that was saved at the first of two versions and is at the second.

    :param name: of the node whose output `number` the tensor is; None if it is a leaf.
    """

    def overwritten() -> _Read:
        alias = private.alias_apart(t)  # None if its class alone can make one
        like = torch.empty_strided(t.shape, [0] * t.dim(), dtype=t.dtype, device=t.device) if alias is None else alias

        class Saver(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, root: Any, *leaf: Any) -> Any:
                outputs = [] if leaf else [torch.empty_like(root) for _ in range(number)] + [like]
                ctx.save_for_backward(*leaf, *outputs[number:])
                return torch.empty_like(root) if leaf else tuple(outputs)

        if name is not None:
            private.name_node(Saver, name)
        _bump(like, versions[0])
        root = torch.empty(0, requires_grad=True)
        out: Any = Saver.apply(root, like) if name is None else Saver.apply(root)[-1]
        _bump(like, versions[1])
        return lambda: out.grad_fn.saved_tensors

    return _asked(overwritten)


def _nested_text(t: torch.Tensor, versions: tuple[int, int], name: str | None, number: int) -> str | None:
    """The same of a nested tensor, which a custom Function cannot save: as a leaf, and what torch adds if a plain tensor has a node."""

    def overwritten() -> _Read:
        like = private.alias_apart(t)
        if like is None:
            raise TypeError
        like.requires_grad_()
        _bump(like, versions[0])
        out = like.sin()
        _bump(like, versions[1])
        return functools.partial(_run, out.grad_fn, out.detach())

    leaf, plain = _asked(overwritten), torch.empty(0)
    without, with_node = _text(plain, versions, None, 0), _text(plain, versions, name, number)
    if leaf is None or without is None or with_node is None:
        return None
    start = next((i for i, (a, b) in enumerate(zip(without, with_node, strict=False)) if a != b), len(without))
    rest = without[start:]
    return leaf.removesuffix(rest) + with_node[start:]


def _name_inside(node: Any, operator: Any) -> str | None:
    """The name of the node of an operation on a view: by the node around it, or by the node that the operator makes elsewhere."""
    inside = private.node_inside(node)
    if inside is not None:
        return str(inside.name())

    def made() -> _Read:
        required = [argument for argument in operator._schema.arguments if not argument.has_default_value()]
        values = [torch.ones(1, requires_grad=True) * 1 if "Tensor" in str(a.type) else 1 for a in required]
        out = operator(*values)

        def tell() -> None:
            raise RuntimeError(out.grad_fn.name())

        return tell

    return _asked(made)


def _bump(t: torch.Tensor, version: int) -> None:
    for _ in range(version - t._version):
        private.increment_version(t)


def _run(node: Any, grad: torch.Tensor) -> None:
    node(grad)


@functools.cache
def _detached_text() -> str | None:
    def detached() -> _Read:
        like = torch.empty(0, requires_grad=True).clone()
        out = like.sin()
        like.detach_()
        return functools.partial(_run, out.grad_fn, out.detach())

    return _asked(detached)


def _asked(make: Callable[[], _Read]) -> str | None:
    """What torch says where a saved tensor is read; None if that cannot be found out.

    On a thread of its own, where no hook, mode or guard of ours or of the program's is active.
    """
    said: list[str] = []
    done = _thread.allocate_lock()

    def ask() -> None:
        try:
            with private.Unfollowed():  # what is read of the program's tensor is nobody's business, on this thread too
                read = make()
                try:
                    read()
                except RuntimeError as error:
                    said.append(str(error))
        except BaseException:
            pass  # there is a plain wording for that
        finally:
            done.release()

    done.acquire()
    try:
        _thread.start_new_thread(ask, ())
    except RuntimeError:  # Python is about to end
        return None
    done.acquire(timeout=10)
    return said[0] if said else None
