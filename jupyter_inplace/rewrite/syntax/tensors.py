"""What the names of torch functions, methods and modules tell about writing and aliasing."""

from __future__ import annotations

import re

import libcst as cst

__all__ = [
    "ALIAS_ATTRIBUTES",
    "ALIAS_METHODS",
    "FILLS",
    "FLAG_FUNCTIONS",
    "FLAG_MODULES",
    "NUMPY_EXITS",
    "base_of",
    "dotted",
    "is_inplace_name",
    "is_namespace",
    "is_true",
    "keyword",
    "last_name",
    "outofplace_name",
    "peel",
    "positional",
    "same_tensor",
]

#: Modules with an `inplace` argument, and its position.
FLAG_MODULES = {
    "AlphaDropout": 1, "CELU": 1, "Dropout": 1, "Dropout1d": 1, "Dropout2d": 1, "Dropout3d": 1, "ELU": 1,
    "FeatureAlphaDropout": 1, "Hardsigmoid": 0, "Hardswish": 0, "Hardtanh": 2, "LeakyReLU": 1, "Mish": 0, "RReLU": 2,
    "ReLU": 0, "ReLU6": 0, "SELU": 0, "SiLU": 0, "Threshold": 2,
}  # fmt: skip

#: Functions of ``torch.nn.functional`` with an `inplace` argument, and its position.
FLAG_FUNCTIONS = {
    "alpha_dropout": 3, "celu": 2, "dropout": 3, "dropout1d": 3, "dropout2d": 3, "dropout3d": 3, "elu": 2,
    "feature_alpha_dropout": 3, "hardsigmoid": 1, "hardswish": 1, "hardtanh": 3, "leaky_relu": 2, "mish": 1, "relu": 1,
    "relu6": 1, "rrelu": 4, "selu": 1, "silu": 1, "threshold": 3,
}  # fmt: skip

#: In-place methods that do not use the old values, so that the new tensor can be made empty.
FILLS = frozenset({
    "bernoulli_", "cauchy_", "copy_", "exponential_", "fill_", "geometric_", "log_normal_", "normal_", "random_",
    "uniform_", "zero_",
})  # fmt: skip

#: In-place methods without an equivalent out-of-place form.
_ONLY_INPLACE = frozenset({
    "apply_", "fill_diagonal_", "index_reduce_", "map_", "map2_", "rename_", "requires_grad_", "resize_", "resize_as_",
    "resize_as_sparse_", "retain_grad_", "set_", "share_memory_", "sparse_resize_", "sparse_resize_and_clear_",
})  # fmt: skip

#: Methods whose result shares the memory of the tensor they are called on.
ALIAS_METHODS = frozenset({
    "as_strided", "chunk", "contiguous", "cpu", "detach", "diagonal", "expand", "expand_as", "flatten", "movedim",
    "moveaxis", "narrow", "numpy", "permute", "ravel", "reshape", "reshape_as", "select", "split", "squeeze",
    "swapaxes", "swapdims", "t", "tensor_split", "transpose", "unbind", "unflatten", "unfold", "unsafe_chunk",
    "unsafe_split", "unsqueeze", "view", "view_as",
})  # fmt: skip
ALIAS_ATTRIBUTES = frozenset({"H", "T", "data", "imag", "mH", "mT", "real"})

#: Functions and methods that share memory between torch and numpy.
NUMPY_EXITS = frozenset({"numpy", "asarray", "from_numpy", "as_tensor", "frombuffer", "from_dlpack"})


def is_inplace_name(name: str) -> bool:
    """Whether a function with this name writes its first tensor, by torch's convention."""
    return name.endswith("_") and not name.endswith("__") and len(name) > 1


def outofplace_name(name: str) -> str | None:
    """``mul`` for ``mul_``; None if torch has no such form."""
    if not is_inplace_name(name) or name in _ONLY_INPLACE or name in FILLS:
        return None
    return name[:-1]


def dotted(node: cst.CSTNode) -> str | None:
    """``self.net.h`` for a plain chain of names, else None."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute) and (inner := dotted(node.value)):
        return f"{inner}.{node.attr.value}"
    return None


def same_tensor(path: str | None, name: str) -> bool:
    """Whether a path in the source can be the tensor of a report: ``self.bank`` is ``net.bank``."""
    if path is None:
        return False
    return path == name or (path.startswith("self.") and f".{name}".endswith(f".{path[5:]}"))


def last_name(node: cst.CSTNode) -> str:
    """The last name of a callee: ``relu_`` of ``F.relu_``; empty if it has none."""
    if isinstance(node, cst.Name):
        return node.value
    return node.attr.value if isinstance(node, cst.Attribute) else ""


def keyword(call: cst.Call, name: str) -> cst.Arg | None:
    """The argument given by this keyword."""
    return next((a for a in call.args if a.keyword is not None and a.keyword.value == name), None)


def positional(call: cst.Call, index: int) -> cst.Arg | None:
    """The positional argument at this position; None if stars make the position unknown."""
    args = call.args[: index + 1]
    if len(args) <= index or any(a.star or a.keyword for a in args):
        return None
    return args[index]


def is_true(node: cst.BaseExpression) -> bool:
    """Whether an argument may be true: anything but a literal false value."""
    return not (isinstance(node, cst.Name) and node.value in {"False", "None"}) and not (
        isinstance(node, cst.Integer) and re.fullmatch(r"0+", node.value)
    )


def is_namespace(func: cst.BaseExpression) -> bool:
    """Whether a callee is an attribute of a module (``F.relu_``, ``nn.init.normal_``) and not of a tensor."""
    if not isinstance(func, cst.Attribute):
        return False
    names = (dotted(func.value) or "").split(".")
    return names[0] in {"F", "functional", "init", "nn", "np", "numpy", "th", "torch"} or names[-1] == "Tensor"


def peel(node: cst.BaseExpression) -> cst.BaseExpression | None:
    """The expression that `node` is one alias step away from: ``h`` for ``h[0]``, ``h.view(-1)``, ``h.data``."""
    if isinstance(node, cst.Subscript):
        return node.value
    if isinstance(node, cst.Attribute) and node.attr.value in ALIAS_ATTRIBUTES:
        return node.value
    if not isinstance(node, cst.Call):
        return None
    name = last_name(node.func)
    if is_namespace(node.func) or isinstance(node.func, cst.Name):
        first = positional(node, 0) if name in ALIAS_METHODS | NUMPY_EXITS else None
        return None if first is None else first.value
    if isinstance(node.func, cst.Attribute) and name in ALIAS_METHODS:
        return node.func.value
    return None


def base_of(node: cst.BaseExpression) -> cst.BaseExpression:
    """`node` without all of its alias steps: the variable whose memory it is."""
    inner = peel(node)
    return node if inner is None else base_of(inner)
