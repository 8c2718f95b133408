"""torch.func transforms, which refuse to run while saved-tensor hooks are in force: the hooks are lifted around them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class TransformPatch:
    """Wraps `torch.autograd.graph.disable_saved_tensors_hooks`, through which every refusal goes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._original: Any = None

    def install(self) -> None:
        original = self._original = torch.autograd.graph.disable_saved_tensors_hooks
        session = self._session

        @contextlib.contextmanager
        def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
            lifted = session.installed and session.hooks.lift()
            try:
                with original(error_message):
                    yield
            finally:
                if lifted:
                    session.hooks.restore()

        torch.autograd.graph.disable_saved_tensors_hooks = disable_saved_tensors_hooks

    def remove(self) -> None:
        if self._original is not None:
            torch.autograd.graph.disable_saved_tensors_hooks = self._original
            self._original = None
