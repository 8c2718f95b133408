"""torch's own error for an overwritten saved tensor, word for word, with what we know about it added."""

from __future__ import annotations

from collections.abc import Callable

import torch

from jupyter_inplace.record import torch_private as private
from jupyter_inplace.record.saved import Saved

# Words the explanation for a saved tensor; set by the session in force, None where nobody knows more than torch.
explain: Callable[[Saved], str] | None = None


def version_error(saved: Saved) -> RuntimeError:
    """The error that torch raises when a node reads `saved`, whose version moved."""
    text = torch_text(saved)
    more = ""
    if explain is not None:
        try:
            more = explain(saved)
        except Exception:  # the program's own error must come out whatever happens to our addition
            more = ""
    return RuntimeError(f"{text}\n\n{more}" if more else text)


def torch_text(saved: Saved) -> str:
    t = saved.tensor
    size = t._nested_tensor_size() if t.is_nested else list(t.shape)
    of = ""
    if saved.made_by is not None:
        of = f", which is output {saved.output_nr} of {_forward_name(saved.made_by.__name__)},"
    else:
        node = t.grad_fn
        if node is not None:
            of = f", which is output {t.output_nr} of {_forward_name(node.name())},"
    hint = (
        "the backtrace further above shows the operation that failed to compute its gradient. The variable in question was "
        "changed in there or anywhere later. Good luck!"
        if torch.is_anomaly_enabled()
        else "enable anomaly detection to find the operation that failed to compute its gradient, with "
        "torch.autograd.set_detect_anomaly(True, check_nan=False)."
    )
    return (
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{t.type()} {size}]{of} is at version {private.version(t)}; expected version {saved.version} instead. Hint: {hint}"
    )


def _forward_name(node: str) -> str:
    """`SigmoidBackward0` -> `Sigmoid`, `UnsqueezeBackward1` -> `Unsqueeze1`, as torch's message has it."""
    head, found, tail = node.rpartition("Backward")
    return head + ("" if tail == "0" else tail) if found else node
