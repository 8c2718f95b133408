"""The private names of TensorFlow that this package uses: why, and what happens if one is missing.

``NAMES`` lists them. `found` tells which exist; the recorder replaces a missing one by public means and says in
``blind_spots`` what it no longer sees.
"""

from __future__ import annotations

import importlib
from typing import Any

#: What is used, by a short name: (module, attribute, what is no longer seen without it).
NAMES: dict[str, tuple[str, str, str]] = {
    # Reports every eager operation with its inputs and outputs.
    "op_callbacks": (
        "tensorflow.python.framework.op_callbacks",
        "add_op_callback",
        "assigns are seen through patched methods of tf.Variable only, and what they were computed from is not",
    ),
    # A variable that is passed directly to an operation (`c * m`) is read in C++, without a callback.
    "fast_path": (
        "tensorflow.python.pywrap_tfe",
        "TFE_Py_FastPathExecute",
        "reads that TensorFlow makes in C++ (`c * m` with a variable m) are out of sight",
    ),
    # Called when a tape begins to record; the C++ tape is made persistent, so that it can be asked again.
    "push_tape": (
        "tensorflow.python.eager.backprop",
        "GradientTape._push_tape",
        "a tape can be asked once only: the gradient per version is not worked out",
    ),
    # The gradient of a recorded computation, of any sources, without the checks of GradientTape.
    "imperative_grad": (
        "tensorflow.python.eager.imperative_grad",
        "imperative_grad",
        "the gradient per version is not worked out",
    ),
    # Memory that is exported or imported through DLPack.
    "to_dlpack": (
        "tensorflow.python.pywrap_tfe",
        "TFE_ToDlpackCapsule",
        "memory shared through DLPack is not compared",
    ),
    "from_dlpack": (
        "tensorflow.python.pywrap_tfe",
        "TFE_FromDlpackCapsule",
        "memory shared through DLPack is not compared",
    ),
    # The graph of a traced function, for the order of its reads and assigns.
    "call_flat": (
        "tensorflow.python.eager.polymorphic_function.atomic_function",
        "AtomicFunction.call_flat",
        "the assigns inside of a tf.function are out of sight",
    ),
}


def owner_of(name: str) -> tuple[Any, str] | None:
    """The object and attribute that a name of `NAMES` stands for; None if this version of TensorFlow does not have it."""
    module, path, _ = NAMES[name]
    try:
        owner: Any = importlib.import_module(module)
    except ImportError:
        return None
    *holders, attribute = path.split(".")
    for holder in holders:
        owner = getattr(owner, holder, None)
    return None if getattr(owner, attribute, None) is None else (owner, attribute)


def get(name: str) -> Any:
    """What a name of `NAMES` stands for, or None."""
    found = owner_of(name)
    return None if found is None else getattr(*found)


def missing(name: str) -> str:
    """What is no longer seen if a name is missing, as a clause."""
    return NAMES[name][2]
