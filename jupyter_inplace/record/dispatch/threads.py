"""Threads that the watched thread starts: their writes to what it saved are seen, the graphs that they build are not.

Modes and saved-tensor hooks belong to a thread. A thread that is started during the watch gets a mode of its own for
its life, which enters writes to watched storages into the record of the thread that started it, and touches nothing
else there: what the watched thread is doing meanwhile is its own.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import WHOLE, byte_range, shape_of, view_of
from jupyter_inplace.record.base.memory import storages_of
from jupyter_inplace.record.base.patching import Replacement
from jupyter_inplace.record.base.schema import ALIAS, Plan
from jupyter_inplace.record.channels.untracked_writes import UntrackedWrites
from jupyter_inplace.record.dispatch.mode import CUSTOM, WatchMode, plan_of
from jupyter_inplace.record.dispatch.stack import ModeStack
from jupyter_inplace.record.here import trace_here
from jupyter_inplace.record.saved.copies import Copies
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import CALL_IMPL, Trace
from jupyter_inplace.record.writes.write_entry import WriteEntry

_UNKNOWN: Any = object()


class ThreadMode(WatchMode):
    """Sees the operations of a started thread, and acts on writes to storages on which the watched thread saved."""

    def __init__(self, threads: Threads, name: str) -> None:
        super().__init__(threads.trace, threads.entry, threads.untracked)
        self._threads, self._name = threads, name
        self._told = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plan = self._plans.get(func, _UNKNOWN)
        if plan is _UNKNOWN:
            plan = self._plans[func] = plan_of(func)
        if plan is None:
            if not self._told and torch.is_grad_enabled() and _differentiable(args):
                self._tell(self._trace)
            return func(*args, **kwargs) if kwargs else func(*args)
        if plan is ALIAS:
            return func(*args, **kwargs) if kwargs else func(*args)
        if plan is CUSTOM:
            return self._call_custom(func, args, kwargs or {})
        return self._write(plan, func, args, kwargs or {})

    def _tell(self, trace: Trace) -> None:
        self._told = True
        if trace.installed:
            trace.blind_spots.setdefault(
                f"the thread {self._name!r} built graphs of its own: what they saved is not watched"
            )

    def _write(self, plan: Plan, func: Any, args: Any, kwargs: Any) -> Any:
        trace = self._trace
        targets: list[torch.Tensor] = []
        prepared = None
        try:
            targets = plan.tensors(args, kwargs)
            if trace.installed:
                prepared = self._threads.before_write(targets, plan)
        except Exception as fault:
            trace.fault(fault)
        before = [private.version(t) for t in targets] if plan.foreach else []
        out = self._call_custom(func, args, kwargs) if plan.custom else func(*args, **kwargs)
        if plan.foreach:
            private.bump_unbumped(targets, before)
        if prepared:
            try:
                self._threads.after_write(plan, prepared, self._name)
            except Exception as fault:
                trace.fault(fault)
        return out


def _differentiable(args: Any) -> bool:
    return any(isinstance(a, torch.Tensor) and a.requires_grad for a in args)


class Threads:
    """Puts a mode into each thread that the watched one starts, and enters what those modes see."""

    def __init__(self, trace: Trace, copies: Copies, entry: WriteEntry, untracked: UntrackedWrites) -> None:
        self.trace, self._copies, self.entry, self.untracked = trace, copies, entry, untracked
        self._lock = threading.Lock()  # between started threads; the watched one never waits

    def install(self) -> None:
        _start.acquire()

    def remove(self) -> None:
        _start.release()

    def before_write(self, targets: list[torch.Tensor], plan: Plan) -> list[_Foreign]:
        """The writes to watched storages among these; what was saved there is copied first."""
        trace, prepared = self.trace, []
        for t in targets:
            keys = [key for key in storages_of(t) if trace.index.bucket(key) is not None]
            if keys:
                span = WHOLE if plan.metadata_only else byte_range(t)
                with self._lock:
                    for key in keys:
                        self._copies.on_write(key, span, None)
                prepared.append(_Foreign(t, keys, span))
        return prepared

    def after_write(self, plan: Plan, prepared: list[_Foreign], thread: str) -> None:
        """Enter them. Numbers of nodes are left alone: each thread counts its own."""
        trace = self.trace
        site, module = sites.find_site_and_module(CALL_IMPL, 3, trace.cell_files)
        with self._lock:
            for write in prepared:
                trace.order += 1
                row = trace.row(plan.name, site, module, write.keys[0])
                if not row.count:
                    row.describe(write.tensor, write.shape, write.version)
                    row.thread = thread
                row.happened(trace.order, write.version, bumps=plan.bumps)
                for key in write.keys:
                    bucket = trace.index.bucket(key)
                    if bucket is not None:
                        bucket.log(row, trace.order, *write.span, write.view)


class _Foreign:
    """A write of another thread's, about to happen."""

    __slots__ = ("keys", "shape", "span", "tensor", "version", "view")

    def __init__(self, t: torch.Tensor, keys: list[int], span: tuple[int, int]) -> None:
        self.tensor, self.keys, self.span = t, keys, span
        self.version, self.view, self.shape = private.version(t), view_of(t), shape_of(t)


def _wrap_start(original: Any) -> Any:
    def start(self: threading.Thread) -> None:
        trace = trace_here()
        if trace is None or not trace.installed:
            original(self)
            return
        run, own = self.run, vars(self).get("run")
        # For one call: the new thread takes it away again before anything of the program's runs in it.
        self.run = functools.partial(_run, self, run, own, trace.part(Threads))  # type: ignore[method-assign]
        try:
            original(self)
        except BaseException:
            _restore(self, own)
            raise

    return start


def _restore(thread: threading.Thread, own: Any) -> None:
    if own is None:
        vars(thread).pop("run", None)
    else:
        thread.run = own  # type: ignore[method-assign]


def _run(thread: threading.Thread, run: Any, own: Any, threads: Threads) -> None:
    _restore(thread, own)
    mode = ThreadMode(threads, thread.name)
    stack = ModeStack(mode)
    stack.put_on()
    try:
        run()
    except BaseException as error:
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next  # without this frame
        raise
    finally:
        stack.take_off()


_start = Replacement(threading.Thread, "start", _wrap_start)
