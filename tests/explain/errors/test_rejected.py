"""Refused writes, each provoked for real, and the tensors found behind them."""

import gc
import linecache
import textwrap
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from jupyter_inplace import watch
from jupyter_inplace.explain.errors import rejected
from jupyter_inplace.explain.errors.rejected import find_rejected, reason_of
from jupyter_inplace.explain.errors.wording import why_refused
from jupyter_inplace.record.source.resolver import SiteResolver

FILE = "/tmp/ipykernel_77/77.py"

SETUP = """
import torch, torch.nn as nn, torch.nn.functional as F
from types import SimpleNamespace
class Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.view(-1)
    @staticmethod
    def backward(ctx, g): return g.view(2, 3)
class Dirty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        x.mul_(2)
        return x
    @staticmethod
    def backward(ctx, g): return g
class Dirty2(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        x.mul_(2)
        return x, x.clone()
    @staticmethod
    def backward(ctx, g, h): return g
w = torch.ones(2, 3, requires_grad=True)
h = w * 1
buf = torch.zeros(2, 3)
with torch.no_grad():
    blind = w.view(-1)
with torch.inference_mode():
    inf = torch.ones(3)
    infview = h.view(-1)
wide = torch.zeros(2, 1).expand(2, 3)
rows = h.unbind(0)
ws = [torch.ones(3), w]
named = {"a": {"w": w}}
box = SimpleNamespace(inner=SimpleNamespace(w=w), rows=rows)
net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
net[0].register_full_backward_hook(lambda *_: None)
"""


def refuse(source, setup=SETUP):
    """Run a cell that torch refuses; the exception, the cell's variables, and what was found."""
    source = textwrap.dedent(source).strip("\n") + "\n"
    setup = setup.strip("\n") + "\n"
    text = setup + source
    linecache.cache[FILE] = (len(text), None, text.splitlines(keepends=True), FILE)
    space = {"__name__": "__main__"}
    try:
        exec(compile(text, FILE, "exec"), space)
    except RuntimeError as error:
        return error, space, find_rejected(error, frozenset({FILE}))
    pytest.fail("torch did not refuse this")


@pytest.mark.parametrize(
    ("source", "reason", "op", "name", "tensor"),
    [
        ("w.add_(1)", "leaf", "add_", "w", "w"),
        ("w -= 0.1 * buf", "leaf", "sub_", "w", "w"),
        ("w **= 2", "leaf", "pow_", "w", "w"),
        ("y = w.zero_()", "leaf", "zero_", "w", "w"),
        ("w.detach().add_(1); w.copy_(buf)", "leaf", "copy_", "w", "w"),
        ("torch.relu_(w)", "leaf", "relu_", "w", "w"),
        ("F.relu_(w)", "leaf", "relu_", "w", "w"),
        ("F.dropout(w, inplace=True)", "leaf", "dropout_", "w", "w"),
        ("F.dropout(w, 0.5, True, True)", "leaf", "dropout_", "w", "w"),
        ("F.leaky_relu(w, inplace=True)", "leaf", "leaky_relu_", "w", "w"),
        ("nn.ReLU(inplace=True)(w)", "leaf", "relu_", "w", "w"),
        ("nn.Sequential(nn.Identity(), nn.SiLU(inplace=True))(w)", "leaf", "silu_", None, "w"),
        ("torch._foreach_mul_(ws, 2)", "leaf", "_foreach_mul_", "ws", "w"),
        ("Dirty.apply(w)", "leaf", "apply", None, "w"),
        ("named['a']['w'].add_(1)", "leaf", "add_", "named['a']['w']", "w"),
        ("ws[1].add_(1)", "leaf", "add_", "ws[1]", "w"),
        ("ws[1] += 1", "leaf", "add_", "ws[1]", "w"),
        ("nnf = F\nnnf.relu_(w)", "leaf", "relu_", "w", "w"),
        ("ws[-1].add_(1)", "leaf", "add_", "ws[-1]", "w"),
        ("box.inner.w.add_(1)", "leaf", "add_", "box.inner.w", "w"),
        ("net[0].weight.add_(1)", "leaf", "add_", "net[0].weight", "net[0].weight"),
        ("net.get_parameter('0.bias').add_(1)", "leaf", "add_", None, None),
        ("for p in net.parameters(): p.add_(1)", "leaf", "add_", "p", "net[0].weight"),
        ("w[0] = 1", "view_of_leaf", "__setitem__", "w", "w"),
        ("w[0] += 1", "view_of_leaf", "add_", "w", "w"),
        ("w.view(-1)[0:2].add_(1)", "view_of_leaf", "add_", "w", "w"),
        ("v = w.view(-1)\nv.mul_(2)", "view_of_leaf", "mul_", "v", "v"),
        ("rows[0].mul_(2)", "multi_view", "mul_", "rows[0]", "rows[0]"),
        ("[row.mul_(2).add_(1) for row in h]", "multi_view", "mul_", "row", None),
        ("a, b = h.chunk(2)\nb.mul_(2)", "multi_view", "mul_", "b", "b"),
        ("box.rows[1][0] = 1", "multi_view", "__setitem__", "box.rows[1]", "rows[1]"),
        ("y = Same.apply(h)\ny += 1", "custom_view", "add_", "y", "y"),
        ("Dirty2.apply(h.view(-1))", "custom_view", "apply", None, None),
        ("net(buf).sum()", "custom_view", "relu_", None, None),
        ("blind.add_(1)", "no_grad_view", "add_", "blind", "blind"),
        ("infview.add_(1)", "inference_view", "add_", "infview", "infview"),
        ("inf.add_(1)", "inference", "add_", "inf", "inf"),
        ("wide.add_(1)", "expanded", "add_", "wide", "wide"),
        ("torch.add(buf, 1, out=wide)", "expanded", "add.out", "wide", "wide"),
        ("line = torch.zeros(4)\nline[1:].add_(line[:-1])", "overlap", "add_", "line", "line"),
        ("torch.add(buf, 1, out=w)", "out_grad", "add.out", "w", "w"),
        ("torch.add(w, 1, out=buf)", "out_grad", "add.out", "buf", "buf"),
        ("h.view(-1).detach_()", "detach_view", "detach_", "h", "h"),
        ("w.resize_(2)", "resize_grad", "resize_", "w", "w"),
        ("w.apply_(abs)", "untracked", "apply_", "w", "w"),
        ("torch.func.grad(lambda a: buf.add_(a).sum())(torch.ones(2, 3))", "captured", "add_", "buf", "buf"),
    ],
)
def test_refusals(source, reason, op, name, tensor):
    _, space, found = refuse(source)
    assert (found.reason, found.op, found.name) == (reason, op, name)
    if tensor is not None:
        assert len(found.tensors) == 1
        expected = eval(tensor, space)
        if tensor == "rows[1]":
            expected = space["rows"][1]
        assert found.tensors[0] is expected


def test_tensor_of_a_library_frame():
    """The tensor that `nn.ReLU` refused is none of the cell's variables: it is found inside of the library."""
    _, _, found = refuse("net(buf).sum()")
    [tensor] = found.tensors
    assert tensor.grad_fn.name() == "BackwardHookFunctionBackward"
    assert found.text == "net(buf)"


def test_argument_of_a_custom_function():
    _, space, found = refuse("Dirty2.apply(h.view(-1))")
    [tensor] = found.tensors
    assert tensor._base is space["h"]


def test_loop_variable_of_a_comprehension():
    _, space, found = refuse("[row.mul_(2).add_(1) for row in h]")
    [tensor] = found.tensors
    assert tensor.data_ptr() == space["h"].data_ptr()
    assert found.text == "row.mul_(2)"


def test_view_of_a_view_is_flagged():
    assert refuse("w.view(-1)[0:2].add_(1)")[2].via == "view"
    assert refuse("w.add_(1)")[2].via is None
    assert refuse("w[0] = 1")[2].via is None


def test_out_names_the_inputs_that_require_grad():
    _, space, found = refuse("torch.add(w, 1, out=buf)")
    assert len(found.inputs) == 1
    assert found.inputs[0] is space["w"]


def test_site_and_lines():
    _, _, found = refuse(
        """
        class Toy(nn.Module):
            def forward(self, e):
                e *= 2
                return e
        model = Toy()
        score = model(w).sum()
        """
    )
    first = SETUP.strip("\n").count("\n") + 1
    site = SiteResolver({FILE: "In[2]"}, FILE, None).resolve(found.key)
    assert (site.text, site.line_text, site.function) == ("e *= 2", "e *= 2", "Toy.forward")
    assert (site.file, site.cell_line) == ("In[2]", first + 3)
    cell_lines = [line for file, line in found.lines if file == FILE]
    assert cell_lines == [first + 6, first + 3]


def test_site_in_another_file_has_its_line_in_the_cell(tmp_path):
    path = tmp_path / "helpers.py"
    path.write_text("def scale(t):\n    t.mul_(2)\n")
    space = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    text = "x = 1\nscale(w)\n"
    linecache.cache[FILE] = (len(text), None, text.splitlines(keepends=True), FILE)
    with pytest.raises(RuntimeError) as info:
        exec(compile(text, FILE, "exec"), {"scale": space["scale"], "w": torch.ones(2, requires_grad=True)})
    site = SiteResolver({}, FILE, None).resolve(find_rejected(info.value, frozenset({FILE})).key)
    assert (site.file, site.line, site.text, site.cell_line) == (str(path), 2, "t.mul_(2)", 2)


def test_wrapped_errors():
    """A library that raises its own error from torch's: the write was refused all the same; a handled one was not."""

    def wrapped():
        try:
            torch.ones(2, requires_grad=True).add_(1)
        except RuntimeError as error:
            raise ValueError("the layer failed") from error

    def handled():
        try:
            torch.ones(2, requires_grad=True).add_(1)
        except RuntimeError:
            1 / 0

    with pytest.raises(ValueError) as info:
        wrapped()
    assert find_rejected(info.value).reason == "leaf"
    with pytest.raises(ZeroDivisionError) as info:
        handled()
    assert find_rejected(info.value) is None


def test_other_errors_are_no_refusals():
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    y.add_(1)
    z = torch.zeros(3)

    def shapes():
        z.add_(torch.zeros(4))

    def dtypes():
        torch.zeros(3, dtype=torch.long).add_(1.5)

    def backward():
        y.sum().backward()

    def index():
        z[7] = 1

    def flags():
        (x * 1).requires_grad_(False)

    def not_resizable():
        torch.from_numpy(np.zeros(2)).resize_(5)

    def as_numpy():
        x.numpy()

    for action in (shapes, dtypes, backward, index, flags, not_resizable, as_numpy):
        with pytest.raises((RuntimeError, IndexError)) as info:
            action()
        assert reason_of(info.value) is None, action
        assert find_rejected(info.value) is None


def test_no_code_of_the_users_runs():
    source = """
    ran = []
    class Sly:
        def __init__(self): self._w = w
        @property
        def w(self):
            ran.append("property")
            return self._w
        def __getattr__(self, name):
            ran.append("getattr")
            return self._w
        def __getitem__(self, index):
            ran.append("getitem")
            return self._w
    class SlyList(list):
        def __getitem__(self, index):
            ran.append("list")
            return super().__getitem__(index)
    sly, slylist = Sly(), SlyList([w])
    def once():
        calls = len(ran)
        yield calls
    """
    for expression in ("sly.w", "sly.other", "sly[0]", "slylist[0]"):
        _, space, found = refuse(f"{textwrap.dedent(source)}\n{expression}.add_(1)\n")
        assert len(space["ran"]) == 1  # the user's own statement
        assert found.tensors == ()
        assert found.reason == "leaf"


def test_slots_and_class_attributes():
    _, space, found = refuse(
        """
        class State:
            __slots__ = ("w",)
            shared = w
        state = State()
        state.w = torch.ones(2, requires_grad=True)
        state.w.add_(1)
        """
    )
    assert found.tensors[0] is space["state"].w
    _, space, found = refuse("class State:\n    shared = w\nState.shared.add_(1)\n")
    assert found.tensors[0] is space["w"]


def test_keeps_no_frame():
    class Canary:
        pass

    def fails(canary):
        t = torch.ones(2, requires_grad=True)
        t.add_(1)

    canary = Canary()
    gone = weakref.ref(canary)
    try:
        fails(canary)
    except RuntimeError as error:
        found = find_rejected(error)
    del canary
    gc.collect()
    assert gone() is None
    assert found.tensors[0].requires_grad


def test_messages_that_carry_an_explanation():
    try:
        torch.ones(2, requires_grad=True).add_(1)
    except RuntimeError as error:
        text = str(error)
    assert reason_of(RuntimeError(f"{text}\nThe write stands in line 3.")) == "leaf"
    assert reason_of(ValueError(text)) is None


def test_a_dispatch_mode_in_between():
    from torch.utils._python_dispatch import TorchDispatchMode

    library = {"TorchDispatchMode": TorchDispatchMode}
    exec(
        compile(
            "class Through(TorchDispatchMode):\n def __torch_dispatch__(self, func, types, args=(), kwargs=None):\n  return func(*args, **(kwargs or {}))\n",
            "/x/site-packages/m.py",
            "exec",
        ),
        library,
    )
    text = "wide.add_(1)\n"
    linecache.cache[FILE] = (len(text), None, [text], FILE)
    wide = torch.zeros(2, 1).expand(2, 3)
    with pytest.raises(RuntimeError) as info, library["Through"]():
        exec(compile(text, FILE, "exec"), {"wide": wide})
    found = find_rejected(info.value)
    assert (found.reason, found.op, found.name) == ("expanded", "add_", "wide")
    assert found.tensors[0] is wide


def test_nn_module_registries():
    net = nn.ParameterList([nn.Parameter(torch.ones(2))])
    bag = nn.ParameterDict({"a": nn.Parameter(torch.ones(2))})
    mods = nn.ModuleDict({"fc": nn.Linear(2, 2)})
    for expression, expected in (
        ("net[0]", net[0]),
        ("bag['a']", bag["a"]),
        ("bag.a", bag["a"]),
        ("mods['fc'].bias", mods["fc"].bias),
    ):
        text = f"{expression}.add_(1)\n"
        linecache.cache[FILE] = (len(text), None, [text], FILE)
        with pytest.raises(RuntimeError) as info:
            exec(compile(text, FILE, "exec"), {"net": net, "bag": bag, "mods": mods})
        assert find_rejected(info.value).tensors[0] is expected, expression


@pytest.mark.parametrize("reason", dict.fromkeys(reason for reason, _ in rejected._REASONS))
def test_every_reason_has_its_words(reason):
    said = why_refused(reason, "b[0]")
    assert said != reason
    assert " " in said
    assert "{" not in said


def test_the_summary_says_why_in_words():
    bias = nn.Parameter(torch.zeros(6))
    with pytest.raises(RuntimeError), watch() as report:
        b = bias.view(2, 3)
        b[:, 1] += 4
    assert "b[:, 1] += 4" in report.summary
    assert report.summary.endswith(": it is a view of bias, a leaf that requires grad.")
