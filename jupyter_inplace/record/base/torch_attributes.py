"""Private attributes of torch's modules, classes and objects that are read where they are needed, for a call of ours in between would cost.

The rest of torch's private names stands in `torch_private`. A test holds this table against every module of the package, and against the
torch at hand: a name that is used and does not stand here fails, and so does one that this torch has not.
"""

from __future__ import annotations

from typing import NamedTuple


class Attribute(NamedTuple):
    """A private name: what has it, what it is for, and what becomes of a torch without it."""

    of: str
    what: str
    without: str


_TENSOR, _NODE, _MODULE = "torch.Tensor", "a node", "torch.nn.Module"
_NO_WATCH = "there is no watch"

ATTRIBUTES: dict[str, Attribute] = {
    # Tensors and storages
    "_version": Attribute(_TENSOR, "the version counter", _NO_WATCH),
    "_base": Attribute(_TENSOR, "what a view looks at", _NO_WATCH),
    "_is_view": Attribute(_TENSOR, "tells a view in words about a write that torch refused", "the words are torch's"),
    "_backward_hooks": Attribute(_TENSOR, "Python that a backward call will run", _NO_WATCH),
    "_post_accumulate_grad_hooks": Attribute(_TENSOR, "the same", _NO_WATCH),
    "_indices": Attribute(_TENSOR, "the parts of a sparse tensor, though it be not coalesced", "sparse tensors have no storage"),
    "_values": Attribute(_TENSOR, "the same", "the same"),
    "_nested_tensor_size": Attribute(_TENSOR, "what torch asks a jagged tensor's class for its message", "the words are ours"),
    "_cdata": Attribute("torch.UntypedStorage", "the identity of a storage", _NO_WATCH),
    "_C": Attribute("torch", "the C++ side of torch", _NO_WATCH),
    "TensorBase": Attribute("torch._C", "methods of tensors before anybody replaced them", _NO_WATCH),
    # Nodes
    "_sequence_nr": Attribute(_NODE, "joins a saved tensor, an operation and their node", _NO_WATCH),
    "_input_metadata": Attribute(_NODE, "shapes and types of the gradients that a node takes", "no gradient is worked out"),
    "_raw_saved_": Attribute(_NODE, "begins the names of its saved variables", "earlier graphs are not watched, no gradient is worked out"),
    "_raw_saved_tensors": Attribute("a custom Function's node", "what the Function saved", "it may get other objects back"),
    "_saved_": Attribute(_NODE, "begins the names of what a node has saved", "graphs of earlier cells are not read"),
    "_forward_cls": Attribute("a custom Function's node", "the Function, whose backward may read more than it saved", "that is not seen"),
    "_materialize_non_diff_grads": Attribute("a custom Function's node", "whether None becomes zeros", "it does"),
    # Modules
    "_call_impl": Attribute(_MODULE, "the frame in which a module is called", _NO_WATCH),
    "_wrapped_call_impl": Attribute(_MODULE, "the frame around it", "a module's own writes count as its caller's"),
    "_parameters": Attribute(_MODULE, "names of leaves, read without the module's own code", "leaves of modules have no names"),
    "_buffers": Attribute(_MODULE, "the same", "the same"),
    "_modules": Attribute(_MODULE, "the same", "the same"),
    # Operators and dispatch
    "_schema": Attribute("torch._ops.OpOverload", "which arguments an operator writes", _NO_WATCH),
    "_op": Attribute("torch._ops.OpOverload", "calls the operator without a frame in between", _NO_WATCH),
    "_ops": Attribute("torch", "the classes of operators", _NO_WATCH),
    "_OpNamespace": Attribute("torch._ops", "tells when the program looks an operator up", "there are no tripwires"),
    "_python_dispatch": Attribute("torch.utils", "the base class of dispatch modes, documented in torch's notes alone", _NO_WATCH),
    "_disable_current_modes": Attribute("torch.utils._python_dispatch", "runs what is ours below every mode", _NO_WATCH),
    "_should_skip_dynamo": Attribute(
        "torch.utils._python_dispatch.TorchDispatchMode", "keeps our modes from importing torch._dynamo", "the first operation imports it"
    ),
    "_foreach_zero_": Attribute("torch.ops.aten", "what zero_grad runs", _NO_WATCH),
    "_unsafe_preserve_version_counter": Attribute("torch.autograd.grad_mode", "puts values back in a walk of ours", _NO_WATCH),
    "_engine_run_backward": Attribute("torch.autograd.graph", "the way to the engine", "a blind spot says so"),
    "_current_graph_task_id": Attribute("torch._C", "keeps checkpoints apart that a walk of ours recomputes", _NO_WATCH),
    "_debug_has_internal_overlap": Attribute("torch", "tells expanded memory in words about a refused write", "the words are torch's"),
    "_saved_tensors_hooks_disable": Attribute("torch._C._autograd", "where transforms refuse saved-tensor hooks", "they refuse ours"),
    "_saved_tensors_hooks_enable": Attribute("torch._C._autograd", "where they allow them again", "ours stay off"),
    # Checkpoints
    "_checkpoint_hook": Attribute("torch.utils.checkpoint", "where a checkpointed region begins and ends", "a blind spot says so"),
    "_Holder": Attribute("torch.utils.checkpoint", "stands in for what a region saves", "every node is looked at"),
    # Tracers and the compiler
    "_dynamo": Attribute("torch", "its frames and modes belong to a compiler", "they count as the program's"),
    "_compile": Attribute("torch", "its frames are nobody's program", "they stand in tracebacks"),
    "_functorch": Attribute("torch", "its modes belong to a tracer", "they count as the program's"),
    "_subclasses": Attribute("torch", "the same", "the same"),
    "_inductor": Attribute("torch", "the same", "the same"),
    "_higher_order_ops": Attribute("torch", "the same", "the same"),
    "_AnalyzeCustomOpInputOutputMode": Attribute(
        "torch._functorch._aot_autograd.runtime_wrappers", "a mode that only looks on", "a blind spot names the compiler once more"
    ),
    "_VF": Attribute("torch", "a name under which functions of torch are written", "their sites are less exact"),
}  # fmt: skip
