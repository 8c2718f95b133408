"""The numbers by which a tape identifies variables and tensors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def handle_of(source: Any) -> Any:
    """What identifies a source for a tape: for a variable, also of Keras, its handle."""
    variable = isinstance(source, tf.Variable) or hasattr(source, "_should_act_as_resource_variable")
    return getattr(source, "handle", source) if variable else source


def number_of(source: Any) -> int:
    """The number that identifies a source or target for a tape; -1 if it has none."""
    number: int = getattr(handle_of(source), "_id", -1)
    return number
