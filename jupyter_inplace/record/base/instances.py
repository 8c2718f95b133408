"""Whether any instance of a class is alive, told from the number of references to the class: each instance holds one."""

from __future__ import annotations

import sys
from sys import getrefcount
from typing import Any


class _Unused:
    """A class without instances, to compare with."""


def may_have_instances(module: Any, name: str) -> bool:
    """Whether an instance of the class of this name may be alive, where nothing but its module refers to the class otherwise.

    False is certain. True may only mean that something else refers to the class, or that this Python does not count.
    """
    own = sys.modules[__name__]
    without = _references(own, "_Unused")
    one = _Unused()
    counted = _references(own, "_Unused") == without + 1
    del one
    return not counted or _references(module, name) != without


def _references(module: Any, name: str) -> int:
    """The references to a class, less those of its own descriptors. By name: a variable would be one more."""
    descriptors = [value for value in vars(getattr(module, name)).values() if hasattr(value, "__objclass__")]
    return getrefcount(getattr(module, name)) - sum(
        value.__objclass__ is getattr(module, name) for value in descriptors
    )
