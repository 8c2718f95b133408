"""The peak bytes of the tensors that a program holds."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.own_mode import CONSTRUCTORS, OwnMode


class LiveBytes(OwnMode):
    """Counts the memory that operations allocate, as long as it is alive.

    Unlike the size of the process, this is the same in every run of the same program.
    """

    @classmethod
    def is_infra_mode(cls) -> bool:
        """See `TorchDispatchMode`."""
        return True  # otherwise torch.compile gives up

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """See `TorchDispatchMode`."""
        return True

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, int] = {}
        self.now = 0
        self.peak = 0

    def put_below(self) -> None:
        """Activate this mode for the rest of the process, below all modes that are already active.

        It must be below: a watch does not pack saved tensors if other modes are on when it begins, and it removes its own
        mode for a while only if that is on top.
        """
        CONSTRUCTORS.acquire()
        above = [private.pop_dispatch_mode(None) for _ in range(private.len_dispatch_stack())]
        for mode in (self, *reversed(above)):
            private.push_dispatch_mode(mode)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs) if kwargs else func(*args)
        if isinstance(out, torch.Tensor):
            self._meet(out, args)
        elif isinstance(out, list | tuple):
            for item in out:
                if isinstance(item, torch.Tensor):
                    self._meet(item, args)
        return out

    def _meet(self, tensor: torch.Tensor, args: Any) -> None:
        try:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._live or any(_has_storage(argument, key) for argument in args):
                return
            size = self._live[key] = storage.nbytes()
            weakref.finalize(storage, self._gone, key)
        except (RuntimeError, NotImplementedError):  # no storage
            return
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._live.pop(key, 0)


def _has_storage(argument: Any, key: int) -> bool:
    if isinstance(argument, torch.Tensor):
        try:
            return int(argument.untyped_storage()._cdata) == key
        except (RuntimeError, NotImplementedError):
            return False
    return isinstance(argument, list | tuple) and any(_has_storage(item, key) for item in argument)
