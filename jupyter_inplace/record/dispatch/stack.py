"""Where our mode stands on this thread's stack of dispatch modes: put on, lifted for a while, put back, taken off.

Tripwires may stand in for it: then the mode is on the stack only during the operations that trip one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.own_mode import CONSTRUCTORS
from jupyter_inplace.record.base.patching import Held
from jupyter_inplace.record.dispatch import tripwires
from jupyter_inplace.record.dispatch.aliases import Aliases


class Place(NamedTuple):
    """Where a lifted mode belongs: how many modes lie under it, and whether tripwires stood in for it."""

    height: int
    wired: bool = False


class ModeStack:
    """Moves one mode; modes of the program's own, above or below, stay as they are and notice nothing.

    :param may_wire: whether tripwires would do, asked before they are put in place of the mode; never without it.
    """

    def __init__(self, mode: Any, may_wire: Callable[[], bool] | None = None) -> None:
        self._mode = mode
        self._may_wire = may_wire
        self._height = 0
        self._tripped = False  # whether the mode is on for one operation
        self._rewire = False  # whether a lifted place is to get its tripwires again
        self._aliases = Aliases()
        self._constructors = Held()
        self.wired = False  # whether tripwires stand in for the mode

    @property
    def bare(self) -> bool:
        """Whether what runs now runs without the mode, by tripwires alone."""
        return self.wired and not self._tripped

    def put_on(self, *, wire: bool = False) -> None:
        """Put the mode on top of the stack, or tripwires in its place where `wire` says so and they would do."""
        self._constructors.acquire((CONSTRUCTORS,))
        if wire and self._may_wire is not None and self._may_wire():
            self._wire(private.len_dispatch_stack())
        else:
            private.push_dispatch_mode(self._mode)

    def lift(self) -> Place | None:
        """Take the mode off where it is on top; returns its place for `put_back`, None where it is not on top."""
        if self.wired:
            if self._tripped or private.len_dispatch_stack() != self._height:
                return None
            self._unwire()
            self._rewire = True
            return Place(self._height, wired=True)
        if private.top_dispatch_mode() is not self._mode:
            return None
        private.pop_dispatch_mode(None)
        return Place(private.len_dispatch_stack())

    def put_back(self, place: Place, *, wire: bool = False) -> None:
        """Put the mode where it was, under whatever the program has put on since.

        :param wire: whether tripwires may take its place now; they do where they had it before, unless `attend` was called since.
        """
        if private.len_dispatch_stack() == place.height:
            if self._rewire if place.wired else wire and self._may_wire is not None and self._may_wire():
                self._wire(place.height)
            else:
                private.push_dispatch_mode(self._mode)
            return
        above = self._pop_down_to(place.height)
        private.push_dispatch_mode(self._mode)
        self._push_again(above)

    def attend(self) -> None:
        """Have the mode see every operation from now on, if it does not."""
        self._rewire = False
        self._aliases.leave()
        if self.wired:
            self._unwire()
            if not self._tripped:  # else it is on, and stays
                self.put_back(Place(self._height))

    def with_mode(self, call: Any, args: Any, kwargs: Any) -> Any:
        """Run one operation that tripped a wire."""
        __tracebackhide__ = True
        height = private.len_dispatch_stack()
        private.push_dispatch_mode(self._mode)
        self._tripped = True
        try:
            return call(*args, **kwargs)
        finally:
            self._tripped = False
            if self.wired and private.len_dispatch_stack() == height + 1:
                private.pop_dispatch_mode(None)

    def take_off(self) -> None:
        """Take the mode off, wherever it stands."""
        self._constructors.release()
        self._aliases.leave()
        if self.wired:
            self._unwire()
        for place in range(private.len_dispatch_stack()):
            if private.dispatch_stack_at(place) is self._mode:
                above = self._pop_down_to(place + 1)
                private.pop_dispatch_mode(None)
                self._push_again(above)
                return

    def _wire(self, height: int) -> None:
        self._height, self.wired = height, True
        self._aliases.see()
        tripwires.switch(on=True)

    def _unwire(self) -> None:
        self.wired = False
        tripwires.switch(on=False)

    @staticmethod
    def _pop_down_to(height: int) -> list[Any]:
        above = []
        while private.len_dispatch_stack() > height:
            above.append(private.pop_dispatch_mode(None))
        return above

    @staticmethod
    def _push_again(above: list[Any]) -> None:
        for mode in reversed(above):
            private.push_dispatch_mode(mode)
