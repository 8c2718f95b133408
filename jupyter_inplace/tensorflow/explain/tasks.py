"""The names of the targets and sources of a call of `tape.gradient`."""

from __future__ import annotations

from typing import Any

from jupyter_inplace.report.data import Site
from jupyter_inplace.tensorflow.explain import asked
from jupyter_inplace.tensorflow.explain.names import TapeNames
from jupyter_inplace.tensorflow.record.calls import Request
from jupyter_inplace.tensorflow.record.handles import number_of
from jupyter_inplace.tensorflow.record.trace import TapeTrace

TapeTask = tuple[str, Any, Any]  # its name, its target, and the gradient that the call gives the target


def leaf_names(request: Request, names: TapeNames, site: Site | None) -> list[str]:
    """The name of each source."""
    texts = asked.source_texts(site)
    found: list[str] = []
    for i, source in enumerate(request.sources):
        name = names.of(number_of(source))
        if name is None and len(texts) == len(request.sources):
            name = texts[i]
        found.append(name or str(getattr(source, "name", f"t{i}")).removesuffix(":0"))
    return found


def tasks_of(trace: TapeTrace, request: Request, names: TapeNames, site: Site | None) -> list[TapeTask]:
    """Each target, or the addends of a target that is a sum, with its name."""
    texts = asked.target_texts(site)
    pairs = list(zip(request.targets, request.outputs, strict=True))
    if len(pairs) == 1:
        target, output = pairs[0]
        parts = _addends(trace, names, target)
        if len(parts) > 1 and not request.jacobian:
            return [(name, t, output) for name, t in parts]
        text = " + ".join(texts) if texts else "target"
        return [(names.of(number_of(target)) or text, target, output)]
    found: list[TapeTask] = []
    for i, (target, output) in enumerate(pairs):
        own = names.of(number_of(target))
        found.append((own or (texts[i] if len(texts) == len(pairs) else f"target[{i}]"), target, output))
    return found


def _addends(trace: TapeTrace, names: TapeNames, target: Any) -> list[tuple[str, Any]]:
    """The named scalars that a target is the sum of; empty if an addend has no name."""
    sums = trace.track.sums
    if getattr(target, "shape", None) != () or getattr(target, "_id", None) not in sums:
        return []
    found: list[tuple[str, Any]] = []
    waiting = [*reversed(sums[target._id])]
    while waiting:
        number = waiting.pop()
        name, tensor = names.of(number), names.tensor(number)
        if name is not None and tensor is not None and tensor.shape == ():
            found.append((name, tensor))
        elif number in sums:
            waiting.extend(reversed(sums[number]))
        else:
            return []
    return found if len({name for name, _ in found}) == len(found) else []
