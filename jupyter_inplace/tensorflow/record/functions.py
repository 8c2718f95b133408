"""What a traced `tf.function` reads and assigns at each call, in the order of its graph.

There are no callbacks inside a graph, so only the static order is known: for straight-line code which variables are written
at which lines and how often, but not to which version a gradient belongs.
"""

from __future__ import annotations

import dataclasses
import linecache
from typing import Any

from jupyter_inplace.record.source.sites import is_user_code
from jupyter_inplace.tensorflow.record import events
from jupyter_inplace.tensorflow.record.trace import TapeTrace

NOT_SPLIT = (
    "inside of a tf.function the order of reads and assigns is the graph's, and gradients are not split by version: "
    "--run-eagerly (watch(run_eagerly=True)) sees it whole"
)
_INNER = ("PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf")


@dataclasses.dataclass(frozen=True, slots=True)
class GraphAccess:
    """One read or write in a graph: the index of the input, and the place in the source."""

    input: int
    op_type: str
    place: tuple[str, int, str, str] | None  # file, line, the line's text, function

    @property
    def writes(self) -> bool:
        return self.op_type not in events.READS


def remember(trace: TapeTrace, function: Any) -> None:
    """Read the graph of a function that is about to run, if it is new."""
    name = getattr(function, "name", None)
    key = name.decode() if isinstance(name, bytes) else name
    if key is None or key in trace.functions:
        return
    try:
        trace.functions[key] = accesses_of(function.graph)
    except Exception as fault:
        trace.functions[key] = []
        trace.blind_spots.setdefault(f"the graph of {key} could not be read: {type(fault).__name__}")


def accesses_of(graph: Any, depth: int = 0) -> list[GraphAccess]:
    """The reads and writes of the graph's inputs, in the order in which they were traced."""
    places = {id(t): i for i, t in enumerate(graph.inputs)}
    found: list[GraphAccess] = []
    for op in graph.get_operations():
        kind = op.type
        if not op.inputs:
            continue
        if kind in _INNER:
            found.extend(_inner(op, places, depth))
            continue
        place = places.get(id(op.inputs[0]))
        if place is not None and (kind in events.READS or kind in events.WRITES or kind.startswith(events.APPLY)):
            found.append(GraphAccess(place, kind, _place(op)))
    return found


def _inner(op: Any, places: dict[int, int], depth: int) -> list[GraphAccess]:
    """The accesses in the functions that an operation calls, in terms of the inputs of the outer graph."""
    if depth > 3:
        return []
    offset = 1 if "If" in op.type else 0
    outer = [places.get(id(t)) for t in list(op.inputs)[offset:]]
    found: list[GraphAccess] = []
    for attribute in ("f", "then_branch", "else_branch", "cond", "body"):
        graph = _graph_of(op, attribute)
        for access in [] if graph is None else accesses_of(graph, depth + 1):
            place = outer[access.input] if access.input < len(outer) else None
            if place is not None:
                found.append(dataclasses.replace(access, input=place))
    return found


def _graph_of(op: Any, attribute: str) -> Any:
    """The graph of the function that an operation names, None if there is none."""
    try:
        return op.graph._get_function(op.get_attr(attribute).name).graph
    except Exception:
        return None


def _place(op: Any) -> tuple[str, int, str, str] | None:
    """The innermost user line that made an operation; autograph's frames have the original lines."""
    trace = getattr(op, "traceback", None)
    if trace is None:
        return None
    for frame in reversed(list(trace)):
        file, line, function = frame[0], frame[1], frame[2]
        if "__autograph_generated_file" not in file and is_user_code(file):
            return file, line, linecache.getline(file, line).strip(), function
    return None


def called(trace: TapeTrace, op_type: Any, inputs: Any, outputs: Any) -> None:
    """A function has run: its writes make new versions, its outputs depend on everything that it read."""
    name = op_type.decode() if isinstance(op_type, bytes) else str(op_type)
    track = trace.track
    mask = track.mask_of(inputs) if track.tapes else 0
    accesses = trace.functions.get(name, ())
    first: dict[int, int] = {}
    for access in accesses:
        if access.input >= len(inputs):
            continue
        variable = trace.variable(inputs[access.input])
        first.setdefault(variable.handle, variable.version)
        if track.tapes and variable.floating:
            mask |= track.bit((variable.handle, first[variable.handle]))
        if access.writes:
            trace.blind_spots.setdefault(NOT_SPLIT)
            trace.wrote(variable, access.op_type, (), (), ("graph", access.place))
    if mask:
        for t in outputs:
            number = getattr(t, "_id", None)
            if number is not None:
                track.masks[number] = mask
