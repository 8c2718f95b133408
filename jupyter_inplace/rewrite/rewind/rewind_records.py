"""What `rewind` needs to know about a state: recorded in the snapshot from before the cell, and in this process after it.

A forked process has its objects at the same addresses, so an address identifies an object in both, as long as the object
stays alive.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from jupyter_inplace.rewrite.sandbox.reach import grad_of, is_looked_into, is_of_session, namespace_of, walk
from jupyter_inplace.rewrite.sandbox.worker import Sender

_NODES = 200
_ATTRIBUTES = "its attributes"
_NO_STATE = (type, types.FunctionType, types.MethodType, types.ModuleType)
_PLAIN = (str, bytes, int, float, complex, type(None))

#: A value in a container: ``("is", value)`` for plain data, ``("at", address, type)`` for an object.
Recorded = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One tensor: which object it is, and its geometry.

    :param storage: the address of the memory of its storage.
    :param grad: the address of the tensor in its `.grad`; None without one.
    :param node: the name and sequence number of its grad_fn; None for a leaf.
    """

    path: str
    address: int
    kind: str
    dtype: torch.dtype
    storage: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    requires_grad: bool
    grad: int | None
    node: tuple[str, int, bool] | None


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """The contents of a dictionary, list or set, or the attributes of an object."""

    path: str
    address: int
    kind: str
    items: tuple[Any, ...]

    @property
    def of_attributes(self) -> bool:
        """Whether these are the attributes of an object."""
        return self.kind == _ATTRIBUTES


@dataclass(slots=True)
class StateRecord:
    """A whole state.

    :param names: the names of the namespace with their values.
    :param storages: by address, the digest of the memory and, if requested, the memory.
    :param opaque: paths of tensors whose memory cannot be read.
    """

    names: dict[str, Recorded] = field(default_factory=dict)
    tensors: list[TensorRecord] = field(default_factory=list)
    storages: dict[int, tuple[bytes, bytes | None]] = field(default_factory=dict)
    containers: list[ContainerRecord] = field(default_factory=list)
    arrays: dict[int, tuple[str, str, tuple[int, ...], Any]] = field(default_factory=dict)
    generators: dict[int, tuple[str, Any]] = field(default_factory=dict)
    random: Any = None
    opaque: list[str] = field(default_factory=list)


def describe(state: Any, send: Sender, *, known: Mapping[int, bytes]) -> None:
    """In a worker: send the record of the state, with the memory of each storage whose digest differs from the known one."""
    send(record(namespace_of(state), known))


def record(namespace: Mapping[str, Any], known: Mapping[int, bytes] | None = None) -> StateRecord:
    """The record of a state.

    :param known: digests by address; memory is included if its digest differs. None: include no memory.
    """
    found = StateRecord({name: recorded(value) for name, value in namespace.items() if not is_of_session(name)})
    numpy: Any = sys.modules.get("numpy")
    for path, value in reachable(namespace):
        if isinstance(value, torch.Tensor):
            _add_tensor(found, path, value, known)
            gradient = grad_of(value)
            if gradient is not None:
                _add_tensor(found, f"{path}.grad", gradient, known)
        elif isinstance(value, torch.Generator):
            found.generators[id(value)] = (path, value.get_state())
        elif numpy is not None and isinstance(value, numpy.ndarray):
            if value.dtype != object:
                found.arrays[id(value)] = (path, str(value.dtype), value.shape, value.copy())
        elif type(value).__module__.startswith("numpy.random") and hasattr(value, "bit_generator"):
            found.generators[id(value)] = (path, value.bit_generator.state)
        else:
            container = container_record(path, value)
            if container is not None:
                found.containers.append(container)
    found.random = random_state()
    return found


def reachable(namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The objects from `walk`, and the registries of modules."""
    for path, value in walk(namespace):
        yield path, value
        if isinstance(value, torch.nn.Module):
            for room in ("_parameters", "_buffers", "_modules"):
                yield f"{path}.{room}", vars(value)[room]


def _add_tensor(found: StateRecord, path: str, tensor: torch.Tensor, known: Mapping[int, bytes] | None) -> None:
    if (
        tensor.layout is not torch.strided
        or tensor.device.type != "cpu"
        or type(tensor).__torch_dispatch__ is not _NONE
    ):
        found.opaque.append(path)
        return
    storage = tensor.untyped_storage()
    pointer = storage.data_ptr()
    if pointer and pointer not in found.storages:
        memory = memory_at(pointer, storage.nbytes())
        digest = hashlib.blake2b(memory, digest_size=16).digest()
        changed = known is not None and known.get(pointer) != digest
        found.storages[pointer] = (digest, bytes(memory) if changed else None)
    gradient = grad_of(tensor)
    found.tensors.append(
        TensorRecord(
            path,
            id(tensor),
            type(tensor).__name__,
            tensor.dtype,
            pointer,
            tuple(tensor.shape),
            tensor.stride(),
            int(tensor.storage_offset()),
            tensor.requires_grad,
            id(gradient) if gradient is not None else None,
            _node_of(tensor),
        )
    )


_NONE = torch.Tensor.__torch_dispatch__


def _node_of(tensor: torch.Tensor) -> tuple[str, int, bool] | None:
    try:
        node = tensor.grad_fn
    except RuntimeError:  # a view of a base that was written: torch refuses to say
        return ("", -1, False)
    return None if node is None else (node.name(), node._sequence_nr(), _is_used_up(node))


def _is_used_up(root: Any) -> bool:
    """Whether a backward has freed the saved tensors of a graph, as far as its first nodes tell."""
    queue, seen = deque([root]), {root}
    while queue and len(seen) < _NODES:
        node = queue.popleft()
        for name in dir(node):
            if name.startswith("_saved_"):
                try:
                    getattr(node, name)
                except RuntimeError as error:
                    if "freed" in str(error):
                        return True
        below = [inner for inner, _ in node.next_functions if inner is not None and inner not in seen]
        seen.update(below)
        queue.extend(below)
    return False


def memory_at(pointer: int, size: int) -> ctypes.Array[ctypes.c_ubyte]:
    """The bytes at an address. Numpy is avoided, since torch would never again resize the storage."""
    return (ctypes.c_ubyte * size).from_address(pointer)


def container_record(path: str, value: Any) -> ContainerRecord | None:
    """The contents of a mutable container, or the attributes of an object; None for anything else."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return ContainerRecord(
            path, id(value), kind, tuple((recorded(key), recorded(inner)) for key, inner in value.items())
        )
    if isinstance(value, list | deque | set):
        return ContainerRecord(path, id(value), kind, tuple(recorded(inner) for inner in value))
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and not isinstance(value, _NO_STATE) and is_looked_into(value):
        contents = tuple((recorded(key), recorded(inner)) for key, inner in attributes.items())
        return ContainerRecord(path, id(value), _ATTRIBUTES, contents)
    return None


def recorded(value: Any) -> Recorded:
    """A value as an item of a container record."""
    if isinstance(value, _PLAIN):
        return ("is", value)
    if isinstance(value, tuple) and all(recorded(inner)[0] == "is" for inner in value):
        return ("is", value)
    return ("at", id(value), type(value).__name__)


def random_state() -> dict[str, Any]:
    """The states of the global generators."""
    state: dict[str, Any] = {"random": random.getstate(), "torch": torch.get_rng_state()}
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        state["numpy"] = numpy_random.get_state()
    return state
