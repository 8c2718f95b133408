"""The callback of TensorFlow's operations: what each does to variables, and what its outputs were computed from."""

from __future__ import annotations

from typing import Any

from jupyter_inplace.record.source.sites import find_site
from jupyter_inplace.tensorflow.record import events, functions
from jupyter_inplace.tensorflow.record.memory import SharedMemory
from jupyter_inplace.tensorflow.record.trace import TapeTrace

_NOTHING, _READ, _WRITE, _MAKE, _FUNCTION, _STOP = range(6)


class Operations:
    """Sees the operations of one thread."""

    def __init__(self, trace: TapeTrace, memory: SharedMemory) -> None:
        self._trace, self._memory = trace, memory
        self._kinds: dict[Any, int] = dict.fromkeys(events.READS, _READ) | dict.fromkeys(events.WRITES, _WRITE)
        self._kinds |= {"VarHandleOp": _MAKE, "StopGradient": _STOP}
        self._fresh: set[int] = set()  # the handles of variables that have no value yet

    def seen(self, op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        """The callback of every operation on this thread."""
        trace = self._trace
        if graph is not None or trace.off:
            return
        try:
            kind = self._kinds.get(op_type)
            if kind is None:
                kind = self._learn(op_type)
            if kind != _NOTHING:
                self._resource(kind, op_type, inputs, attrs, outputs)
            elif trace.track.tapes:
                masks = trace.track.masks
                mask = 0
                for t in inputs:
                    mask |= masks.get(t._id, 0)
                if self._memory.pending:
                    mask |= self._memory.arrived(inputs)
                if mask:
                    for t in outputs:
                        masks[t._id] = mask
                    if op_type == "AddV2":
                        trace.track.sums[outputs[0]._id] = (inputs[0]._id, inputs[1]._id)
            trace.used = True
        except Exception as fault:
            trace.fault(fault)

    def _learn(self, op_type: Any) -> int:
        name = op_type.decode() if isinstance(op_type, bytes) else str(op_type)
        kind = self._kinds.get(name, _NOTHING)
        if name.startswith(events.APPLY):
            kind = _WRITE
        elif name.startswith(("__inference_", "__forward_", "__backward_")) or "PartitionedCall" in name:
            kind = _FUNCTION
        self._kinds[op_type] = kind
        return kind

    def _resource(self, kind: int, op_type: Any, inputs: Any, attrs: Any, outputs: Any) -> None:
        if kind == _READ:
            if self._trace.track.tapes:
                self._trace.read(op_type, inputs[0], outputs, find_site(3, self._trace.cell_files))
        elif kind == _WRITE:
            name = op_type.decode() if isinstance(op_type, bytes) else op_type
            self._write(name, inputs, attrs)
        elif kind == _MAKE:
            self._fresh.add(outputs[0]._id)
        elif kind == _FUNCTION:
            functions.called(self._trace, op_type, inputs, outputs)

    def _write(self, op_type: str, inputs: Any, attrs: Any) -> None:
        handle = inputs[0]
        if handle._id in self._fresh:
            self._fresh.discard(handle._id)  # its first value is not a change
            self._trace.variable(handle)
            return
        site = None if self._trace.step is not None else find_site(4, self._trace.cell_files)
        self._trace.wrote(self._trace.variable(handle), op_type, tuple(inputs[1:]), attrs, site)
