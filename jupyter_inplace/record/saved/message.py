"""torch's own error for an overwritten saved tensor, word for word, with what we know about it added."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.saved.saved import Saved

# Words the explanation for a saved tensor; set by the trace in force, None where nobody knows more than torch.
explain: Callable[[Saved], str] | None = None


def version_error(saved: Saved) -> RuntimeError:
    """The error that torch raises when a node reads `saved`, whose version moved."""
    with private.Unfollowed():  # torch asks from C++
        text = torch_text(saved)
    more = ""
    if explain is not None:
        try:
            more = explain(saved)
        except Exception:  # the program's own error must come out whatever happens to our addition
            more = ""
    return RuntimeError(f"{text}\n\n{more}" if more else text)


def detached_error() -> RuntimeError:
    """The error that torch raises for a saved input that was a non-leaf when it was saved and is a leaf by `detach_()` now."""
    return RuntimeError(
        "Trying to use a saved tensor that has been detached in-place, i.e. with .detach_()."
        "This is not supported, please use out-of-place `.detach()` instead"
    )


def torch_text(saved: Saved) -> str:
    """Torch's own message about `saved`."""
    t = saved.tensor
    size = _nested_size(t._nested_tensor_size()) if t.is_nested else list(t.shape)
    of = ""
    if saved.made_by is not None:
        of = f", which is output {saved.output_nr} of {_forward_name(saved.made_by.__name__)},"
    else:
        node = t.grad_fn
        if node is not None:  # torch keeps no output number of an input and says 0 of each
            of = f", which is output 0 of {_forward_name(node.name())},"
    hint = (
        "the backtrace further above shows the operation that failed to compute its gradient. "
        "The variable in question was changed in there or anywhere later. Good luck!"
        if torch.is_anomaly_enabled()
        else "enable anomaly detection to find the operation that failed to compute its gradient, with "
        "torch.autograd.set_detect_anomaly(True, check_nan=False)."
    )
    found = private.version(t)
    return (
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{_type_name(t)} {size}]{of} is at version {found}; expected version {saved.version} instead. Hint: {hint}"
    )


# C++ names of the types whose Python name is another one.
_SCALARS = {
    torch.uint8: "Byte", torch.int8: "Char", torch.int16: "Short", torch.int32: "Int", torch.int64: "Long",
    torch.float16: "Half", torch.float32: "Float", torch.float64: "Double", torch.bfloat16: "BFloat16",
    torch.complex32: "ComplexHalf", torch.complex64: "ComplexFloat", torch.complex128: "ComplexDouble",
    torch.uint16: "UInt16", torch.uint32: "UInt32", torch.uint64: "UInt64",
    torch.qint8: "QInt8", torch.quint8: "QUInt8", torch.qint32: "QInt32",
}  # fmt: skip
_LAYOUTS = {torch.sparse_coo: "Sparse", torch.strided: "", torch.jagged: ""}
_OLD_NAMES = re.compile(r"(Sparse)?(CPU|CUDA)(Byte|Char|Double|Float|Int|Long|Short|Half)Type")


def _type_name(t: torch.Tensor) -> str:
    """`torch.FloatTensor`, `CPUBoolType`: torch writes backend and C++ type, then puts Python's name for the oldest ones."""
    device = t.device.type
    backend = device.capitalize() if device == "meta" else device.upper()
    layout = "Quantized" if t.is_quantized else _LAYOUTS.get(t.layout, "SparseCsr")
    scalar = _SCALARS.get(t.dtype) or str(t.dtype).removeprefix("torch.").capitalize()

    def python_name(found: re.Match[str]) -> str:
        sparse, place, kind = found.groups()
        return f"torch.{'cuda.' if place == 'CUDA' else ''}{'sparse.' if sparse else ''}{kind}Tensor"

    return _OLD_NAMES.sub(python_name, f"{layout}{backend}{scalar}Type")


def _nested_size(sizes: torch.Tensor) -> str:
    """The sizes of the parts of a nested tensor as torch's C++ side prints a matrix of integers."""
    rows = sizes.tolist()
    width = 1 + max((len(str(n)) for row in rows for n in row), default=0)
    lines = "".join(" ".join(f"{n:>{width}}" for n in row) + "\n" for row in rows)
    return f"{lines}[ torch.LongTensor{{{sizes.size(0)},{sizes.size(1)}}} ]"


def _forward_name(node: str) -> str:
    """`SigmoidBackward0` -> `Sigmoid`, `UnsqueezeBackward1` -> `Unsqueeze1`, as torch's message has it."""
    head, found, tail = node.rpartition("Backward")
    if found and not (tail == "" or tail.isdigit()):  # torch::autograd::CopyBackwards keeps its whole name
        return node
    return head + ("" if tail == "0" else tail) if found else node
