"""Every private name of torch that the recorder leans on, each with its reason and what happens where it is missing.

A new torch that renames one of them fails in ``tests/record/test_torch_private.py``, which lists them, and nowhere else:
the rest of the package imports from here.
"""

from __future__ import annotations

from typing import Any

import torch

_C: Any = torch._C
_autograd: Any = torch._C._autograd

# The number that the next autograd node of this thread will get. Less one it is the number of the node that is being
# made right now, which joins a saved tensor and an operation to their node. Required.
peek_sequence_nr = _autograd._get_sequence_nr

# Identity of the StorageImpl under a tensor, in one call instead of the two of `untyped_storage()._cdata`. Raises for
# tensors without storage (sparse, opaque); see `storage_of`. Falls back to the two calls.
_storage_id = getattr(_C, "_storage_id", None)

# Takes every Python dispatch (modes and subclasses) out of force, so that our own detach() is not seen by any mode. Required.
DisableTorchDispatch = _C._DisableTorchDispatch

# The stack of default saved-tensor hooks of this thread. The public context manager pushes the same pair, but cannot say
# whether somebody else's pair is on top. Required.
push_saved_tensors_hooks = _autograd._push_saved_tensors_default_hooks
pop_saved_tensors_hooks = _autograd._pop_saved_tensors_default_hooks


def top_saved_tensors_hooks() -> Any:
    """The pair of default hooks in force on this thread, or None."""
    top = getattr(_autograd, "_top_saved_tensors_default_hooks", None)
    return top(True) if top is not None else None


# Bumps a version counter as an in-place operation does; public as torch.autograd.graph.increment_version.
increment_version = torch.autograd.graph.increment_version

# Custom operators run their body below the mode with ADInplaceOrView switched off, so writes inside of the body would
# not bump versions as they do without a mode. Both guards together give the body the state that it has unwatched.
# Where they are missing the body runs under the mode's state: a version counter may then be lower than unwatched.
RestorePythonTLSSnapshot = getattr(_C, "_RestorePythonTLSSnapshot", None)
AutoDispatchBelowAutograd = getattr(_C, "_AutoDispatchBelowAutograd", None)
after_ADInplaceOrView_keyset = getattr(_C, "_after_ADInplaceOrView_keyset", None)
dispatch_keys = getattr(_C, "_dispatch_keys", None)

# The node that the engine (or a direct call of a node) executes on this thread. Names the reader in an error.
current_autograd_node = getattr(_C, "_current_autograd_node", lambda: None)

# The stack of dispatch modes of this thread: the watch lifts its mode only while it is on top.
_len_dispatch_stack = getattr(_C, "_len_torch_dispatch_stack", None)
_dispatch_stack_at = getattr(_C, "_get_dispatch_stack_at", None)


def top_dispatch_mode() -> Any:
    """The innermost dispatch mode of this thread, or None."""
    if _len_dispatch_stack is None or _dispatch_stack_at is None:
        return None
    n = _len_dispatch_stack()
    return _dispatch_stack_at(n - 1) if n else None


def storage_id(t: torch.Tensor) -> int:
    """A number for the storage under `t`, unique while that storage lives; 0 where `t` has none."""
    try:
        return int(_storage_id(t)) if _storage_id is not None else int(t.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError, ValueError):
        return 0


def version(t: torch.Tensor) -> int | None:
    """The version counter of `t`; None for inference tensors, which have none."""
    try:
        return t._version
    except RuntimeError:
        return None
