"""One backward call, as the recorder sees it."""

from __future__ import annotations

import types
from typing import Any


class Backward:
    """One call of the engine.

    `roots`, `grads` and `inputs` hold the user's tensors and are dropped when the call ends; `facts` is what explain made of
    it before the engine ran. `accumulate` tells `backward()` from `autograd.grad()`, `nested` a call made from inside
    another one (re-entrant checkpoint), `batched` one whose gradients cannot be read (a dimension of vmap's, tensors without data),
    `transformed` one that belongs to a torch.func transform or to a program being traced, where nothing is saved in our sight,
    `folded` one whose `facts` are those of an earlier call, so that it is not kept, `python` one in which the engine may run the
    program's own Python.
    """

    __slots__ = (
        "accumulate",
        "batched",
        "create_graph",
        "error",
        "facts",
        "finished",
        "folded",
        "frame",
        "given",
        "grads",
        "inputs",
        "leaves",
        "nested",
        "order",
        "python",
        "results",
        "retain",
        "roots",
        "sequence",
        "site",
        "time",
        "transformed",
    )

    def __init__(self, order: int, time: float, site: Any) -> None:
        self.order, self.time, self.site = order, time, site
        self.roots: tuple[Any, ...] = ()
        self.grads: tuple[Any, ...] = ()
        self.inputs: tuple[Any, ...] = ()
        self.frame: types.FrameType | None = None
        self.accumulate = self.batched = self.retain = self.create_graph = self.nested = self.transformed = (
            self.finished
        ) = self.folded = self.python = False
        self.error: str | None = None
        self.facts: Any = None
        self.leaves: list[tuple[str, Any]] = []
        self.results: tuple[Any, ...] = ()  # of a `grad` call
        self.given: Any = None  # of unread.Given: what is followed of the gradients
        self.sequence = 0

    def release(self) -> None:
        self.roots = self.grads = self.inputs = ()
        self.frame = self.given = None
        self.results = ()
        self.leaves = []
