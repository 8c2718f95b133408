"""Every private name of torch that the recorder leans on, each with its reason and what happens where it is missing.

A new torch that renames one of them fails in ``tests/record/test_torch_private.py``, which lists them, and nowhere else:
the rest of the package imports from here.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from jupyter_inplace.record.base.instances import may_have_instances
from jupyter_inplace.record.base.wrappers import innermost

_C: Any = torch._C
_autograd: Any = torch._C._autograd
_PYTHON_KEY = getattr(getattr(_C, "DispatchKey", None), "Python", None)

# Where torch keeps its switches for saved-tensor hooks. Some of them are replaced during a watch (`transforms`, `hooks`);
# where one is missing, what it announces goes unnoticed.
autograd_bindings = _autograd

# The number that the next autograd node of this thread will get. Less one it is the number of the node that is being
# made right now, which joins a saved tensor and an operation to their node. Required.
peek_sequence_nr = _autograd._get_sequence_nr

# Identity of the StorageImpl under a tensor, in one call instead of the two of `untyped_storage()._cdata`. Raises for
# tensors without storage (sparse, opaque); see `storage_id`. Falls back to the two calls.
_storage_id = getattr(_C, "_storage_id", None) or (lambda t: t.untyped_storage()._cdata)

# The dispatch key that stands before all others and that torch itself leaves to tests of its dispatcher, what it takes to put
# kernels there (one for the operators that are asked for, nothing for all others), and the switch that puts the key in force on
# a thread. Where one of them is missing there are no tripwires, and the dispatch mode stays on all the time.
tripwire_name = "TESTING_ONLY_GenericMode"
_TRIPWIRES = (
    "_dispatch_key_parse",
    "_dispatch_library",
    "_dispatch_get_all_op_names",
    "_dispatch_has_kernel_for_dispatch_key",
    "_dispatch_tls_set_dispatch_key_included",
    "_dispatch_tls_is_dispatch_key_included",
    "_dispatch_tls_is_dispatch_key_excluded",
    "_get_schema",
    "_get_operation_overload",
    "_should_allow_numbers_as_tensors",
    "_ExcludeDispatchKeyGuard",
    "DispatchKeySet",
    "DispatchKey",
)


def _tripwire_key() -> Any:
    if not all(hasattr(_C, name) for name in _TRIPWIRES) or not hasattr(torch.library, "fallthrough_kernel"):
        return None
    try:
        return _C._dispatch_key_parse(tripwire_name)
    except RuntimeError:
        return None


TRIPWIRE = _tripwire_key()
dispatch_library: Any = getattr(_C, "_dispatch_library", None)
include_key: Any = getattr(_C, "_dispatch_tls_set_dispatch_key_included", None)
key_included: Any = getattr(_C, "_dispatch_tls_is_dispatch_key_included", None)
key_excluded: Any = getattr(_C, "_dispatch_tls_is_dispatch_key_excluded", None)
operator_names: Any = getattr(_C, "_dispatch_get_all_op_names", None)
has_kernel: Any = getattr(_C, "_dispatch_has_kernel_for_dispatch_key", None)
schema_of: Any = getattr(_C, "_get_schema", None)
takes_numbers: Any = getattr(_C, "_should_allow_numbers_as_tensors", None)


def defined_in_python() -> set[str] | None:
    """The names of the operators that `torch.library` defined; None where torch keeps none: there are no tripwires then."""
    names = getattr(torch.library, "_defs", None)
    return (
        None if names is None else {"".join(name.split()) for name in list(names)}
    )  # some schemas begin with a line break


def count_defined_in_python() -> int:
    """How many they are."""
    return len(getattr(torch.library, "_defs", ()))


def operation(base: str, overload: str) -> Any:
    """The operator by its names, as something to call."""
    return _C._get_operation_overload(base, overload)[0]


def _disabling() -> Any:
    if TRIPWIRE is None:
        return _C._DisableTorchDispatch
    keys = _C.DispatchKeySet(TRIPWIRE)
    for name in ("Python", "PythonTLSSnapshot", "PreDispatch"):
        keys = keys.add(getattr(_C.DispatchKey, name))
    return functools.partial(_C._ExcludeDispatchKeyGuard, keys)


# Takes every Python dispatch (modes and subclasses) and our tripwires out of force, so that our own detach() is not seen by any mode.
# Required.
DisableTorchDispatch = _disabling()


@contextlib.contextmanager
def without_grad() -> Iterator[None]:
    """As `torch.no_grad()`, which leaves the mode off for good where Ctrl+C comes while it begins."""
    before = torch.is_grad_enabled()
    try:
        _C._set_grad_enabled(False)
        yield
    finally:
        _C._set_grad_enabled(before)


# Not the property of `torch.Tensor`, which is replaced during a watch.
_data: Callable[[torch.Tensor], torch.Tensor] = vars(_C.TensorBase)["data"].__get__


def alias_apart(t: torch.Tensor) -> torch.Tensor | None:
    """An alias of `t` with a version counter of its own, a leaf; None if its class alone could make one."""
    return None if is_python_tensor(t) else _data(t)


#: A context in which no tensor class and no function mode of the program's is asked: what we read of a tensor is no part of it.
Unfollowed: Any = _C.DisableTorchFunction
function_modes: Any = _C._len_torch_function_stack


def dispatch_is_off() -> bool:
    """Whether Python dispatch was taken out of force on this thread: no mode sees what is run now."""
    return bool(key_excluded(_PYTHON_KEY))


def dispatch_as_now() -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Gives contexts in which operations take the way that they take now, even in what is called from within one of them."""
    guard = getattr(_C, "_ForceDispatchKeyGuard", None)
    if guard is None:
        return contextlib.nullcontext
    return functools.partial(guard, _C._dispatch_tls_local_include_set(), _C._dispatch_tls_local_exclude_set())


# Taken out of force on a thread (`key_excluded`) while a kernel is at work that runs below autograd: what is called then is part of it.
BELOW_AUTOGRAD = getattr(getattr(_C, "DispatchKey", None), "ADInplaceOrView", None)


def apply_of(stored: Any) -> Callable[..., Any]:
    """`Function.apply` as it is kept in the class, as a function of the class and the arguments: it is Python's or C's."""
    if isinstance(stored, classmethod):
        return stored.__func__
    bind = stored.__get__

    def apply(cls: Any, /, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return bind(None, cls)(*args, **kwargs)

    return apply


# What a custom Function saves is packed from within a frame of this code, while `Function.apply` is replaced. Required.
APPLY_CODE: Any = apply_of(vars(torch.autograd.Function)["apply"]).__code__


def name_node(function: type, name: str) -> None:
    """Have the nodes of a custom Function bear a name. Where that cannot be, they keep their own."""
    kind = getattr(function, "_backward_cls", None)
    if kind is not None:
        kind.__name__ = name


# The stack of default saved-tensor hooks of this thread. The public context manager pushes the same pair, but cannot say
# whether somebody else's pair is on top. Required.
push_saved_tensors_hooks = _autograd._push_saved_tensors_default_hooks
pop_saved_tensors_hooks = _autograd._pop_saved_tensors_default_hooks


# Tells which pair is on top. Replaced during a watch (`hooks`), so it is kept here. Where missing, nobody else's pair is found.
_top_hooks = getattr(_autograd, "_top_saved_tensors_default_hooks", None)


def top_saved_tensors_hooks() -> Any:
    """The pair of default hooks in force on this thread, or None."""
    return _top_hooks(True) if _top_hooks is not None else None


# Bumps a version counter as an in-place operation does; public as torch.autograd.graph.increment_version.
increment_version = torch.autograd.graph.increment_version

# Custom operators run their body below the mode with ADInplaceOrView switched off, so writes inside of the body would
# not bump versions as they do without a mode. Both guards together give the body the state that it has unwatched.
# Where they are missing the body runs under the mode's state: a version counter may then be lower than unwatched.
RestorePythonTLSSnapshot = getattr(_C, "_RestorePythonTLSSnapshot", None)
AutoDispatchBelowAutograd = getattr(_C, "_AutoDispatchBelowAutograd", None)
after_ADInplaceOrView_keyset = getattr(_C, "_after_ADInplaceOrView_keyset", None)
dispatch_keys = getattr(_C, "_dispatch_keys", None)

# The dispatch keys that are switched on and off on this thread. Below autograd, where a mode sees an operation, a leaf that nobody
# has read yet cannot be asked for its node: all keys are put back for that. Where missing, such an operand has no node.
_force_keys = getattr(_C, "_ForceDispatchKeyGuard", None)
_included_keys = getattr(_C, "_dispatch_tls_local_include_set", None)
_excluded_keys = getattr(_C, "_dispatch_tls_local_exclude_set", None)


def gradient_edge(t: torch.Tensor) -> tuple[Any, int] | None:
    """The node and output number of a tensor that needs a gradient, asked from within a dispatch; None where it cannot be had."""
    node = t.grad_fn
    if node is not None:
        return node, t.output_nr
    if _force_keys is None or _included_keys is None or _excluded_keys is None:
        return None
    included, excluded = _included_keys(), _excluded_keys()
    with _force_keys(included - included, excluded - excluded), DisableTorchDispatch():
        edge = torch.autograd.graph.get_gradient_edge(t)
    return edge[0], edge[1]


# The node that the engine (or a direct call of a node) executes on this thread. Names the reader in an error.
current_autograd_node = getattr(_C, "_current_autograd_node", lambda: None)


def node_inside(node: Any) -> Any:
    """The node of an operation on a view that wrote to its base, given the node around it (CopySlices); None if torch does not say."""
    return getattr(node, "_wrapped_node", None)


# The stack of dispatch modes of this thread: the watch lifts its mode only while it is on top, and puts it back there.
# The mode goes on and off by these and not by `with`, which sets flags of the whole process that make torch.compile look
# out for modes, and which runs the `__exit__` of the program's own modes where ours lies under them. Required.
len_dispatch_stack = _C._len_torch_dispatch_stack
dispatch_stack_at = _C._get_dispatch_stack_at
push_dispatch_mode = _C._push_on_torch_dispatch_stack
pop_dispatch_mode = _C._pop_torch_dispatch_stack


def top_dispatch_mode() -> Any:
    """The innermost dispatch mode of this thread, or None."""
    n = len_dispatch_stack()
    return dispatch_stack_at(n - 1) if n else None


# What torch.func transforms are at work on this thread, and whether a tensor carries a dimension of theirs or of the older
# vmap behind `is_grads_batched`: no gradient of ours is worked out there. Where missing, nothing is taken for batched.
_functorch: Any = getattr(_C, "_functorch", None)
_innermost_transform = getattr(_functorch, "peek_interpreter_stack", lambda: None)
_batched_checks = [
    check
    for name in ("is_functorch_wrapped_tensor", "is_batchedtensor", "is_legacy_batchedtensor")
    if (check := getattr(_functorch, name, None)) is not None
]


def in_transform() -> bool:
    """Whether a torch.func transform is at work on this thread."""
    return _innermost_transform() is not None


# The modes with which torch traces programs. Their tensors have no values, and reading a size of theirs as a number bakes it into
# what is traced. Where missing, nothing is taken for traced.
_tracing_mode = getattr(_C, "_get_dispatch_mode", None)
_TRACERS = [
    key
    for name in ("FAKE", "PROXY", "FUNCTIONAL")
    if (key := getattr(getattr(_C, "_TorchDispatchModeKey", None), name, None)) is not None
]


def is_tracing() -> bool:
    """Whether a program is being traced on this thread, rather than run."""
    return _tracing_mode is not None and any(_tracing_mode(key) is not None for key in _TRACERS)


def is_symbolic(t: torch.Tensor) -> bool:
    """Whether `t` has sizes that must not be read as numbers."""
    return getattr(t, "_has_symbolic_sizes_strides", False)


def is_transformed(t: torch.Tensor) -> bool:
    """Whether `t` is a wrapper that only its transform can read."""
    for check in _batched_checks:  # noqa: SIM110 (asked for each backward call)
        if check(t):
            return True
    return False


# The number of the next hook that anybody registers on a tensor, node or module: tells whether there were any since.
def hooks_made() -> int:
    """How many removable hooks this process has made so far; -1 where torch does not count them."""
    return int(getattr(torch.utils.hooks.RemovableHandle, "next_id", -1))


def has_data(t: torch.Tensor) -> bool:
    """Whether there are values behind `t` that can be read without its own class: not on meta, fake or wrapper tensors."""
    return not t.is_meta and not is_python_tensor(t)


def is_python_tensor(t: torch.Tensor) -> bool:
    """Whether operations on `t` are dispatched to its Python class (`__torch_dispatch__`)."""
    if type(t) is torch.Tensor:
        return False
    return dispatch_keys is not None and _PYTHON_KEY is not None and bool(dispatch_keys(t).has(_PYTHON_KEY))


# The address of a tensor's first element, without the side effects that asking a storage for its pointer has (copies made on write are
# made, wrappers raise). Where missing, no tensor of a class with a dispatch of its own is read.
_data_address = getattr(_C, "_data_address", lambda t: 0)
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def is_wrapper(t: torch.Tensor) -> bool:
    """Whether there is no memory under `t`, because its class keeps its values elsewhere. Reading it below its class crashes."""
    if type(t) in _PLAIN or not is_python_tensor(t):
        return False
    try:
        return not _data_address(t)
    except (RuntimeError, NotImplementedError):  # it has no storage at all
        return True


def is_fake(t: torch.Tensor) -> bool:
    """Whether a tracer made `t`: it stands for values that are nowhere."""
    return hasattr(t, "fake_mode") or is_tracing() or is_transformed(t)


def holders(t: torch.Tensor) -> list[torch.Tensor]:
    """The tensors in whose memory the values of `t` lie: itself, those inside of a wrapper, none if a wrapper does not show them."""
    return innermost(t, is_wrapper) if is_wrapper(t) else [t]


def storage_id(t: torch.Tensor) -> int:
    """A number for the storage that holds the values of `t`, unique while that storage lives; 0 if `t` has none.

    That of a wrapper is the first tensor's inside of it: aliases of a wrapper are wrappers of their own.
    """
    try:
        if type(t) not in _PLAIN and is_wrapper(t):
            t = next(iter(holders(t)), t)
        return _storage_id(t)  # type: ignore[no-any-return]
    except (RuntimeError, NotImplementedError, ValueError):
        return 0


# The storage behind a weak reference, which torch's own sharing of tensors between processes asks for. Where missing, what is
# written from outside to a tensor that nobody saved goes unnoticed.
_new_with_weak_ptr = getattr(torch.UntypedStorage, "_new_with_weak_ptr", None)


def storage_behind(ref: Any) -> Any:
    """The storage that a `StorageWeakRef` points to; None where it is gone."""
    return _new_with_weak_ptr(ref.cdata) if _new_with_weak_ptr is not None else None


def version(t: torch.Tensor) -> int | None:
    """The version counter of `t`; None for inference tensors, which have none."""
    try:
        return t._version
    except RuntimeError:
        return None


def bump_unbumped(tensors: list[torch.Tensor], before: list[int | None]) -> list[torch.Tensor]:
    """Bump the versions that an operator of lists left as `before`, as torch does under a mode (pytorch#191154); returns those tensors."""
    left = [t for t, v in zip(tensors, before, strict=True) if v is not None and version(t) == v]
    if left:
        increment_version(left)
    return left


def checkpoints_may_wait() -> bool:
    """Whether a checkpointed function may wait to be run once more: each of its saved tensors is an instance of a class of torch."""
    module = sys.modules.get("torch.utils.checkpoint")
    if module is None:
        return False
    return not isinstance(getattr(module, "_Holder", None), type) or may_have_instances(module, "_Holder")


_set_version_counter = getattr(_autograd, "_unsafe_set_version_counter", None)


def set_version(t: torch.Tensor, number: int) -> None:
    """Set the version counter of `t` back where a write was taken back. A torch that cannot do that leaves it as it is."""
    if _set_version_counter is not None:
        _set_version_counter((t,), (number,))


def _skipping() -> Any:
    frames: Any = getattr(getattr(_C, "_dynamo", None), "eval_frame", None) or object()
    if hasattr(frames, "skip_code"):
        return frames.skip_code
    if not hasattr(frames, "set_code_exec_strategy"):
        return None
    skip = frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.DEFAULT)
    return lambda code: frames.set_code_exec_strategy(code, skip)


# Tells Dynamo to run a code object as it is, without importing Dynamo. Without it compiled regions may have more graphs than unwatched.
skip_in_dynamo = _skipping()
