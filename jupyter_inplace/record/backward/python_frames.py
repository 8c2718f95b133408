"""Whether an operation in backward comes from a C++ node or from Python that the engine runs."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from jupyter_inplace._package import FOLDER

Function = TypeVar("Function", bound=Callable[..., Any])

_TORCH = torch.__file__.rpartition("__init__")[0]
_entrances: set[types.CodeType] = set()


def enters_engine(function: Function) -> Function:
    """Mark a function of ours from which the engine is called."""
    _entrances.add(function.__code__)
    return function


def made_by_engine() -> bool:
    """Whether the operation being dispatched comes from a C++ node: between it and the engine stand only torch and we."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code in _entrances:
            return True
        if not code.co_filename.startswith((FOLDER, _TORCH)):
            return False
        frame = frame.f_back
    return False
