"""Threads that the watched thread starts: their writes to what it saved are seen, the graphs that they build are not.

Modes and saved-tensor hooks belong to a thread. A thread that is started during the watch gets a mode of its own for
its life, which enters writes to watched storages into the record of the thread that started it, and touches nothing
else there: what the watched thread is doing meanwhile is its own.
"""

from __future__ import annotations

import functools
import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import WHOLE, byte_range, view_of
from jupyter_inplace.record.base.patching import Replacement, session_here
from jupyter_inplace.record.base.schema import ALIAS, Plan
from jupyter_inplace.record.dispatch.mode import CUSTOM, WatchMode, plan_of
from jupyter_inplace.record.dispatch.stack import ModeStack
from jupyter_inplace.record.saved.saved import storages_of
from jupyter_inplace.record.source import sites

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_CALL_IMPL = torch.nn.Module._call_impl.__code__
_UNKNOWN: Any = object()


class ThreadMode(WatchMode):
    """Sees the operations of a started thread, and acts on writes to storages on which the watched thread saved."""

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session)
        self._name = name
        self._told = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plan = self._plans.get(func, _UNKNOWN)
        if plan is _UNKNOWN:
            plan = self._plans[func] = plan_of(func)
        if plan is None:
            if not self._told and torch.is_grad_enabled() and _differentiable(args):
                self._tell(self._session)
            return func(*args, **kwargs) if kwargs else func(*args)
        if plan is ALIAS:
            return func(*args, **kwargs) if kwargs else func(*args)
        if plan is CUSTOM:
            return self._call_custom(func, args, kwargs or {})
        return self._write(plan, func, args, kwargs or {})

    def _tell(self, session: Session) -> None:
        self._told = True
        if session.installed:
            session.blind_spots.setdefault(
                f"the thread {self._name!r} built graphs of its own: what they saved is not watched"
            )

    def _write(self, plan: Plan, func: Any, args: Any, kwargs: Any) -> Any:
        session = self._session
        targets: list[torch.Tensor] = []
        prepared = None
        try:
            targets = plan.tensors(args, kwargs)
            if session.installed:
                prepared = session.threads.before_write(targets, plan)
        except Exception as fault:
            session.fault(fault)
        out = self._call_custom(func, args, kwargs) if plan.custom else func(*args, **kwargs)
        if plan.foreach:
            private.increment_version(targets)
        if prepared:
            try:
                session.threads.after_write(plan, prepared, self._name)
            except Exception as fault:
                session.fault(fault)
        return out


def _differentiable(args: Any) -> bool:
    return any(isinstance(a, torch.Tensor) and a.requires_grad for a in args)


class Threads:
    """Puts a mode into each thread that the watched one starts, and enters what those modes see."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()  # between started threads; the watched one never waits

    def install(self) -> None:
        _start.acquire()

    def remove(self) -> None:
        _start.release()

    def before_write(self, targets: list[torch.Tensor], plan: Plan) -> list[_Foreign]:
        """The writes to watched storages among these; what was saved there is copied first."""
        session, prepared = self._session, []
        for t in targets:
            keys = [key for key in storages_of(t) if session.index.bucket(key) is not None]
            if keys:
                span = WHOLE if plan.metadata_only else byte_range(t)
                with self._lock:
                    for key in keys:
                        session.copies.on_write(key, span, None)
                prepared.append(_Foreign(t, keys, span))
        return prepared

    def after_write(self, plan: Plan, prepared: list[_Foreign], thread: str) -> None:
        """Enter them. Numbers of nodes are left alone: each thread counts its own."""
        session = self._session
        site, module = sites.find_site_and_module(_CALL_IMPL, 3, session.cell_files)
        with self._lock:
            for write in prepared:
                session.order += 1
                row = session.table.row(
                    plan.name,
                    site,
                    None if module is None else weakref.ref(module),
                    id(module),
                    write.keys[0],
                    session.seconds(),
                    session.order,
                )
                if not row.count:
                    row.shape, row.dtype, row.device = write.shape, write.dtype, write.device
                    row.version_before, row.thread = write.version, thread
                row.count += 1
                row.last = session.order
                row.version_after = None if write.version is None else write.version + plan.bumps
                for key in write.keys:
                    bucket = session.index.bucket(key)
                    if bucket is not None:
                        bucket.log(row, session.order, *write.span, write.view)


class _Foreign:
    """A write of another thread's, about to happen."""

    __slots__ = ("device", "dtype", "keys", "shape", "span", "version", "view")

    def __init__(self, t: torch.Tensor, keys: list[int], span: tuple[int, int]) -> None:
        self.keys, self.span = keys, span
        self.version, self.view = private.version(t), view_of(t)
        self.shape, self.device = tuple(t.shape), str(t.device)
        self.dtype = str(t.dtype).removeprefix("torch.")


def _wrap_start(original: Any) -> Any:
    def start(self: threading.Thread) -> None:
        session = session_here()
        if session is None or not session.installed:
            original(self)
            return
        run, own = self.run, vars(self).get("run")
        # For one call: the new thread takes it away again before anything of the program's runs in it.
        self.run = functools.partial(_run, self, run, own, session)  # type: ignore[method-assign]
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


def _run(thread: threading.Thread, run: Any, own: Any, session: Session) -> None:
    _restore(thread, own)
    mode = ThreadMode(session, thread.name)
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
