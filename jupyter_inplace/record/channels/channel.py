"""What a channel is: one silent way of writing, of which torch keeps no count or says nothing.

A channel is one class in a file of its own beside this one, and one line in `registry`. The recorder asks it at the moments below; each
has a default that does nothing, so a channel defines those that it needs. A channel that follows nothing costs nothing: before a
write only those are asked that said `trace.follow(self)`, at an operation only those that said `trace.attend(self)`.

What it finds becomes rows of the table of writes, and entries of the buckets of overwritten saved tensors. The common explanation
works from these alone. A channel that needs another one has it in `jupyter_inplace/explain/channels/`, under the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_inplace.record.backward.call import Backward
    from jupyter_inplace.record.write_table import WriteRow
    from jupyter_inplace.record.writes.pending import PendingWrite


class Operation:
    """An operation that is about to run. `plan` says what it writes; None if nothing."""

    __slots__ = ("args", "func", "kwargs", "plan")

    def __init__(self, func: Any, plan: Any, args: Any, kwargs: Any) -> None:
        self.func, self.plan, self.args, self.kwargs = func, plan, args, kwargs


class Channel:
    """One silent way of writing. Made once for each trace, with the trace as its only argument."""

    #: Whether it is asked before every write on the long path, and not only while it follows something.
    standing = False

    def install(self) -> None:
        """The watch begins: replace what has to be replaced."""

    def remove(self) -> None:
        """The watch is over: undo `install`."""

    def clear(self) -> None:
        """Between watches: forget everything."""

    # --- writes -----------------------------------------------------------------------------------------------------

    @property
    def follows(self) -> bool:
        """Whether there is any memory that it follows."""
        return False

    def concerns(self, storage: int) -> bool:  # noqa: ARG002
        """Whether a write to this storage is more than an ordinary write of a loop."""
        return False

    def before_write(self, write: PendingWrite) -> Any:  # noqa: ARG002
        """A tensor is about to be written; what is returned is kept until it was, None is nothing."""
        return None

    def after_write(self, kept: Any, write: PendingWrite, row: WriteRow) -> None:
        """The write has happened, and stands in `row`; `kept` is what `before_write` returned."""

    def leaf_written(self, storage: int) -> None:
        """A leaf was given a new value outside of an optimizer."""

    # --- reads ------------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> bool:
        """Whether it has to see operations now."""
        return False

    def read(self, operation: Operation) -> Any:  # noqa: ARG002
        """An operation is about to run; what is returned comes back with its result, None is nothing."""
        return None

    def gave(self, out: Any, noted: Any) -> None:
        """The operation gave `out`; `noted` is what `read` returned."""

    # --- backward ---------------------------------------------------------------------------------------------------

    def backward_ended(self, call: Backward) -> None:
        """An outermost backward call is over."""

    def graph_freed(self, sequence: int) -> None:
        """A graph was used up: nodes with a lower number will not be read again."""
