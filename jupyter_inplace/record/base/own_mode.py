"""What our dispatch modes have in common, and that constructors of tensor classes do not meet them.

`T(t)` asks torch for an alias of `t`, and makes an object of the class `T` for it. An alias that came through a mode, which is Python,
has an object already: a plain tensor, and torch refuses to make it anything else. So our modes are off while a constructor runs.
It writes to nothing, and the program meets no alias but the one it asked for.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Replacement


class OwnMode(TorchDispatchMode):
    """A dispatch mode that the program is not to notice."""

    # Higher-order operators (cond, flex_attention ...) are called through, not refused.
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else torch wraps the handler such that the first operation imports torch._dynamo (over a second) and every
        # operation costs half as much again.
        return False


def _unseen(original: Any) -> Any:
    @functools.wraps(original)
    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        __tracebackhide__ = True
        lifted = []
        while isinstance(private.top_dispatch_mode(), OwnMode):
            lifted.append(private.pop_dispatch_mode(None))
        try:
            return original(cls, *args, **kwargs)
        finally:
            for mode in reversed(lifted):
                private.push_dispatch_mode(mode)

    return staticmethod(__new__)


#: In force wherever a mode of ours may be.
CONSTRUCTORS = Replacement(torch.Tensor, "__new__", _unseen)
