"""Tripwires: what stands in for the dispatch mode where plain operations have nothing to tell.

A dispatch mode is Python code for each operation of the program, most of which write to nothing. Of the keys by which
torch dispatches, one belongs to nobody but tests of the dispatcher. Operators that write, those that make an alias
which autograd does not connect (but `detach`), and those that are defined in Python, whose bodies run in a state of the dispatcher that
the mode takes care of, get a kernel at that key; all others fall through it without a cost. While the key is
switched on for a thread, those kernels put the mode on for the one operation that they are called for, so that what the
mode sees of it is what it sees without them. A write like the one before it needs no mode, see `repeated`.

Kernels are registered once for the process, and stay: without the key nobody calls them. Those of operators that are defined in Python
go with the last watch and when an operator is defined: a notebook may define its own anew, and one that still had a kernel of ours
would keep what torch knew of the old one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.schema import Plan, is_custom, make_plan, may_need_a_plan
from jupyter_inplace.record.here import trace_here
from jupyter_inplace.record.writes.fast_path import enter, repeated

_libraries: dict[str, Any] = {}  # by namespace: a registration lasts as long as its library
_for_python: dict[str, Any] = {}  # likewise, of operators that are defined in Python
_seen: set[str] = set()  # the operators that were asked for
_packets: set[str] = set()  # and their names without the overload
_running: list[None] = []  # one for each of those that is at work: its kernel must not go meanwhile
_users = 0  # how many watches may have tripwires
_lock = threading.RLock()


def ready() -> bool:
    """Whether this torch can have tripwires; gives them to the operators that have come since the last call.

    The first call takes about 30 ms, each later one 3 ms.
    """
    defined = defined_in_python()
    if private.TRIPWIRE is None or defined is None:
        return False
    with _lock:
        if not _libraries:
            _library("_").fallback(private.tripwire_name, torch.library.fallthrough_kernel, False)
        new = set(private.operator_names()) - _seen
        _seen.update(new)
        _packets.update(full.partition(".")[0] for full in new)
        for full in new - defined:
            _register(full)
        _wire_python(defined)
    return True


def defined_in_python() -> set[str] | None:
    """The operators whose bodies are Python and run in a state of their own; None where that cannot be found out."""
    names = private.defined_in_python()
    return None if names is None else {full for full in names if is_custom(full.partition("::")[0])}


def acquire() -> None:
    """A watch begins that may have tripwires."""
    global _users
    with _lock:
        _users += 1
        if _users == 1 and _libraries:
            _wire_python(defined_in_python() or ())


def release() -> None:
    """It ends."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _unwire_python()


@contextlib.contextmanager
def defining() -> Iterator[None]:
    """While an operator is being defined, none that is defined in Python has a tripwire: it may be one of them."""
    with _lock:
        had = bool(_for_python)
        _unwire_python()
        try:
            yield
        finally:
            if had:
                _wire_python(defined_in_python() or ())


def made() -> bool:
    """Whether operators have their tripwires."""
    return bool(_libraries)


def knows(packet: str) -> bool:
    """Whether an operator (`aten::add_`) was there when tripwires were given out last."""
    return packet in _packets


def switch(*, on: bool) -> None:
    """Put the tripwires of this thread in force, or out of it."""
    private.include_key(private.TRIPWIRE, on)


def _library(namespace: str) -> Any:
    library = _libraries.get(namespace)
    if library is None:
        library = _libraries[namespace] = private.dispatch_library("IMPL", namespace, "", __file__, 0)
    return library


def _register(full: str) -> None:
    # A composite operator comes here once more by what it is made of.
    if private.has_kernel(full, "CompositeImplicitAutograd"):
        return
    namespace, _, name = full.partition("::")
    base, _, overload = full.partition(".")
    # What `detach` makes would get a Python object on its way through Python, and C++ code that asks for an alias to
    # turn it into a parameter refuses one that has: see `aliases`.
    if base == "aten::detach":
        return
    if may_need_a_plan(private.schema_of(base, overload)):
        _library(namespace).impl(name, private.tripwire_name, _kernel(base, overload), False)


def _wire_python(defined: Iterable[str]) -> None:
    _unwire_python()
    if _for_python:
        return
    for full in defined:
        namespace, _, name = full.partition("::")
        if not private.has_kernel(full, "CompositeImplicitAutograd"):
            library = _for_python.get(namespace)
            if library is None:
                library = _for_python[namespace] = private.dispatch_library("IMPL", namespace, "", __file__, 0)
            library.impl(
                name, private.tripwire_name, _kernel_for_python(full.partition(".")[0], full.partition(".")[2]), False
            )


def _unwire_python() -> None:
    if _running:
        return
    for library in _for_python.values():
        library.reset()
    _for_python.clear()


def _kernel_for_python(base: str, overload: str) -> Callable[..., Any]:
    """For an operator that is defined in Python."""
    include, key = private.include_key, private.TRIPWIRE

    def tripwire(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        trace = trace_here()
        wired = trace is not None and trace.stack.wired
        _running.append(None)
        try:
            include(key, False)
            call = private.operation(base, overload)
            if not wired or private.key_excluded(private.BELOW_AUTOGRAD) or trace.muted or private.dispatch_is_off():  # type: ignore[union-attr]
                return call(*args, **kwargs)
            trace.drop_fresh()  # type: ignore[union-attr]
            return trace.stack.with_mode(call, args, kwargs)  # type: ignore[union-attr]
        finally:
            _running.pop()
            if wired and trace.stack.wired:  # type: ignore[union-attr]
                include(key, True)

    return tripwire


def _kernel(base: str, overload: str) -> Callable[..., Any]:
    call: Any = None
    func: Any = None
    plan: Any = None
    tensors: tuple[int, ...] = ()

    include, key, excluded, below = private.include_key, private.TRIPWIRE, private.key_excluded, private.BELOW_AUTOGRAD
    peek = private.peek_sequence_nr

    def tripwire(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal call, func, plan, tensors
        if call is None:
            tensors = _where_numbers_are_refused(base, overload)
            func, plan = _plan(base, overload)
            call = private.operation(base, overload)
        inside = excluded(below)  # what an operator does inside of itself is its own: a kernel runs below autograd
        if inside and not tensors:  # most often
            try:
                include(key, False)
                return call(*args, **kwargs)
            finally:
                include(key, True)
        trace = trace_here()
        wired = trace is not None and trace.stack.wired  # if not, a guard of somebody's put the key back
        try:
            include(key, False)
            for i in tensors:
                if i < len(args) and not isinstance(args[i], torch.Tensor):
                    args = _numbers_as_tensors(args, tensors)
                    break
            if inside or not wired or trace.muted or private.dispatch_is_off():  # type: ignore[union-attr]
                return call(*args, **kwargs)
            trace.drop_fresh()  # type: ignore[union-attr]
            if plan is not None:
                known = repeated(trace, plan, args, kwargs)  # type: ignore[arg-type]
                if known is not None:
                    trace.last_op, order = func, trace.order  # type: ignore[union-attr]
                    if known:  # the node that is made now saves at the same place
                        trace.place, trace.place_of = trace.written_at, peek()  # type: ignore[union-attr]
                    try:
                        out = call(*args, **kwargs)
                    finally:
                        trace.place_of = -1  # type: ignore[union-attr]
                    trace.packed_by(func)  # type: ignore[union-attr]
                    enter(trace, plan, known, order)  # type: ignore[arg-type]
                    return out
            return trace.stack.with_mode(call, args, kwargs)  # type: ignore[union-attr]
        finally:
            if wired and trace.stack.wired:  # type: ignore[union-attr]
                include(key, True)

    return tripwire


def _plan(base: str, overload: str) -> tuple[Any, Plan | None]:
    """The operator, and what to do around it where that can be done without the mode."""
    namespace, _, name = base.partition("::")
    func = getattr(getattr(getattr(torch.ops, namespace), name), overload or "default")
    plan = make_plan(func)
    return func, plan if isinstance(plan, Plan) and plan.ordinary else None


def _where_numbers_are_refused(base: str, overload: str) -> tuple[int, ...]:
    """The positions of an operator's tensors, where torch does not take numbers in their place from Python.

    A kernel that has a number for an operand makes a tensor of it and calls the operator for tensors (`2 ** x` does). On
    its way through Python such a tensor becomes a number again.
    """
    if private.takes_numbers(base.partition("::")[2]):
        return ()
    arguments = private.schema_of(base, overload).arguments
    places = tuple(i for i, a in enumerate(arguments) if str(a.type) == "Tensor" and not a.kwarg_only)
    return places if len(places) > 1 else ()


def _numbers_as_tensors(args: tuple[Any, ...], places: tuple[int, ...]) -> tuple[Any, ...]:
    others = [args[i] for i in places if i < len(args) and isinstance(args[i], torch.Tensor)]
    numbers = [i for i in places if i < len(args) and isinstance(args[i], (bool, int, float, complex))]
    changed = list(args)
    with torch.utils._python_dispatch._disable_current_modes():
        for i in numbers:
            # A number counts less than any tensor where the type of the result is found: its own must not be seen.
            dtype = torch.result_type(others[0], args[i]) if others else None
            changed[i] = torch.scalar_tensor(args[i], dtype=dtype)
    return tuple(changed)
