"""Where our mode stands on this thread's stack of dispatch modes: put on, lifted for a while, put back, taken off."""

from __future__ import annotations

from typing import Any

from jupyter_inplace.record import torch_private as private


class ModeStack:
    """Moves one mode; modes of the program's own, above or below, stay as they are and notice nothing."""

    def __init__(self, mode: Any) -> None:
        self._mode = mode

    def put_on(self) -> None:
        private.push_dispatch_mode(self._mode)

    def lift(self) -> int | None:
        """Take the mode off where it is on top; returns its place for `put_back`, None where it is not on top."""
        if private.top_dispatch_mode() is not self._mode:
            return None
        private.pop_dispatch_mode(None)
        return int(private.len_dispatch_stack())

    def put_back(self, place: int) -> None:
        """Put the mode where it was, under whatever the program has put on since."""
        if private.len_dispatch_stack() == place:
            private.push_dispatch_mode(self._mode)
            return
        above = self._pop_down_to(place)
        private.push_dispatch_mode(self._mode)
        self._push_again(above)

    def take_off(self) -> None:
        """Take the mode off, wherever it stands."""
        for place in range(private.len_dispatch_stack()):
            if private.dispatch_stack_at(place) is self._mode:
                above = self._pop_down_to(place + 1)
                private.pop_dispatch_mode(None)
                self._push_again(above)
                return

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
