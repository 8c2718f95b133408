"""Serialises the names that a cell reads, for another process."""

from __future__ import annotations

import ast
import io
import pickle
import random
import re
import sys
import types
from dataclasses import dataclass
from typing import Any

from jupyter_inplace._syntax import parse
from jupyter_inplace.rewrite.sandbox.outcome import SandboxUnavailableError
from jupyter_inplace.rewrite.sandbox.reach import bytes_held, grad_of, is_of_session, namespace_of, walk

_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Payload:
    """A copy of some names.

    :param content: made by `torch.save`, so that tensors that share memory still do.
    :param path: `sys.path`.
    :param modules: modules already imported here that are slow to import.
    :param in_shell: whether an IPython shell ran the cell.
    """

    content: bytes
    path: tuple[str, ...]
    modules: tuple[str, ...]
    in_shell: bool

    def load(self) -> dict[str, Any]:
        """The names, with the random generators in the same states."""
        import torch

        loaded = torch.load(io.BytesIO(self.content), weights_only=False, pickle_module=pickle)
        # Functions of one namespace share one dictionary of globals, which becomes the namespace of the cell.
        namespace: dict[str, Any] = loaded["marker"].__globals__
        namespace.update(loaded["names"])
        for tensor, gradient in loaded["gradients"]:
            tensor.grad = gradient
        random.setstate(loaded["random"])
        torch.set_rng_state(loaded["torch_random"])
        if loaded["devices_random"]:
            torch.cuda.set_rng_state_all(loaded["devices_random"])
        if loaded["numpy_random"] is not None:
            import numpy as np

            np.random.set_state(loaded["numpy_random"])  # noqa: NPY002  the global one is what the cell uses
        return namespace


def pack(state: Any, source: str, limit_bytes: int) -> Payload:
    """Copy the names that a cell reads, and everything that they reach.

    :param source: of the cell.
    :param limit_bytes: of tensors and arrays.
    :raises SandboxUnavailableError: they are too large, or one of the names cannot be copied.
    """
    namespace = namespace_of(state)
    wanted = names_read(state, source)
    names = {
        name: namespace[name]
        for name in wanted
        if name in namespace and not is_of_session(name) and not _is_handle(namespace[name])
    }
    size = bytes_held(names)
    if size > limit_bytes:
        raise SandboxUnavailableError(
            f"what the cell reads holds {size >> 20} MiB, more than the {limit_bytes >> 20} MiB that are copied"
        )
    import torch

    gradients = []
    for path, value in walk(names):
        if isinstance(value, torch.Tensor):
            if not value.is_leaf and value.requires_grad:
                raise SandboxUnavailableError(f"`{path}` belongs to an autograd graph from before the cell")
            if (gradient := grad_of(value)) is not None:
                gradients.append((value, gradient))
    numpy_random: Any = sys.modules.get("numpy.random")
    on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    content = {
        "names": names,
        "marker": types.FunctionType(_nothing.__code__, namespace, "marker"),
        "gradients": gradients,
        "random": random.getstate(),
        "torch_random": torch.get_rng_state(),
        "devices_random": torch.cuda.get_rng_state_all() if on_cuda else [],
        "numpy_random": numpy_random.get_state() if numpy_random is not None else None,
    }
    return Payload(_dump(content), tuple(sys.path), _slow_modules(), not isinstance(state, dict))


def names_read(state: Any, source: str) -> list[str]:
    """The names that occur in a cell, however they are used."""
    text = source if isinstance(state, dict) else state.transform_cell(source)
    try:
        tree = parse(text)
    except SyntaxError as error:
        raise SandboxUnavailableError(f"the cell is no Python (line {error.lineno})") from None
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found[node.id] = None
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _calls_shell(node.func):
            # The code of a magic is text: `%time h.mul_(2)`.
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            found.update(dict.fromkeys(word for text in texts for word in _WORD.findall(text)))
    return list(found)


def _calls_shell(function: ast.Attribute) -> bool:
    owner = function.value
    return isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "get_ipython"


def _is_handle(value: Any) -> bool:
    """Whether it is what `--result` binds: a handle of a watch, which holds the shell."""
    return type(value).__module__ == "jupyter_inplace.watch"


def _slow_modules() -> tuple[str, ...]:
    return tuple(n for n in list(sys.modules) if n == "torch._dynamo" or n.startswith("jupyter_inplace.rewrite.proof."))


def _nothing() -> None:
    return None


def _dump(content: dict[str, Any]) -> bytes:
    import cloudpickle
    import torch

    def dump(value: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, pickle_module=cloudpickle)
        return buffer.getvalue()

    try:
        return dump(content)
    except Exception as error:  # noqa: BLE001  any object may refuse in any way
        culprits = _refusing(content["names"], dump)
        what = f"`{culprits[0]}`" if culprits else "what the cell reads"
        raise SandboxUnavailableError(f"{what} cannot be copied ({_first_line(error)})") from None


def _refusing(names: dict[str, Any], dump: Any) -> list[str]:
    found = []
    for name, value in names.items():
        try:
            dump(value)
        except Exception:  # noqa: BLE001
            found.append(name)
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:120] or type(error).__name__
