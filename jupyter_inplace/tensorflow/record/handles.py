"""How a tape knows a variable or a tensor."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def handle_of(source: Any) -> Any:
    """What a tape knows a source by: a variable, one of Keras too, by its handle."""
    variable = isinstance(source, tf.Variable) or hasattr(source, "_should_act_as_resource_variable")
    return getattr(source, "handle", source) if variable else source


def number_of(source: Any) -> int:
    """The number by which a tape knows a source or a target; -1 where it has none."""
    number: int = getattr(handle_of(source), "_id", -1)
    return number
