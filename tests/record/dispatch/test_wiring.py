"""When tripwires stand in for the mode, and what brings it back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import tripwired
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace import watch
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.dispatch import tripwires
from jupyter_inplace.record.dispatch.wiring import Wiring
from jupyter_inplace.record.here import trace_here

pytestmark = [tripwired.needed, pytest.mark.usefixtures("nothing_compiled", "own_record")]


def step(w):
    """One step of training; whether tripwires are in force after it."""
    optimizer = torch.optim.SGD([w], lr=0.01)
    loss = (w * w).exp().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return trace_here().stack.wired


def wired():
    return trace_here().stack.wired


def test_from_the_start_of_a_watch():
    w = torch.ones(3, requires_grad=True)
    with watch():
        assert wired()
        assert private.len_dispatch_stack() == 0
        torch.zeros(3).add_((w * w).exp().sum())
        assert wired()
    assert not private.key_included(private.TRIPWIRE)


def test_in_a_training_loop_where_they_are_still_to_be_made(monkeypatch):
    monkeypatch.setattr(tripwires, "made", lambda: False)
    w = torch.ones(3, requires_grad=True)
    with watch():
        assert [step(w) for _ in range(4)] == [False, True, True, True]
        assert private.len_dispatch_stack() == 0
    with watch():
        assert private.len_dispatch_stack() == 1


def test_writes_afterwards_are_seen_as_ever():
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        for i in range(6):
            h = (w * 2).exp()
            loss = h.sum()
            if i == 5:
                h.data.mul_(2)
            loss.backward()
    assert report.verdict == "corrupts"
    (bad,) = [m for m in report.mutations if m.verdict == "corrupts"]
    assert bad.site.text == "h.data.mul_(2)"


def test_a_hook_keeps_the_mode():
    w = torch.ones(3, requires_grad=True)
    with watch():
        w.register_hook(lambda g: g * 2)
        assert not any(step(w) for _ in range(4))


class Counting(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def enter_a_mode():
    with Counting():
        assert not wired()


def enter_inference_mode():
    with torch.inference_mode():
        assert not wired()
        torch.zeros(3).add_(1)


def train_inside_of_inference_mode():
    w = torch.ones(3, requires_grad=True)
    with torch.inference_mode(), torch.inference_mode(False):
        assert not any(step(w) for _ in range(4))


def transform():
    torch.func.grad(lambda x: (x * x).sum())(torch.ones(3))


def compile_something():
    assert torch.compile(lambda x: x * 2, backend="eager")(torch.ones(2)).tolist() == [2, 2]


def define_an_operator():
    library = torch.library.Library("jupyter_inplace_wiring", "FRAGMENT")
    library.define("twice(Tensor(a!) x) -> ()")
    library._destroy()


def checkpoint():
    w = torch.ones(3, requires_grad=True)
    torch.utils.checkpoint.checkpoint(torch.exp, w, use_reentrant=False)


def look_at_memory():
    x = (torch.ones(3, requires_grad=True) * 2).detach()
    y = torch.ones(3, requires_grad=True) * x
    x.numpy()
    return y


@pytest.mark.parametrize(
    "event",
    [
        enter_a_mode,
        enter_inference_mode,
        train_inside_of_inference_mode,
        transform,
        compile_something,
        define_an_operator,
        checkpoint,
        look_at_memory,
    ],
)
def test_what_brings_the_mode_back(event):
    w = torch.ones(3, requires_grad=True)
    included = str(torch._C._dispatch_tls_local_include_set())
    with watch():
        assert [step(w) for _ in range(5)][-1]
        kept = event()
        assert not wired()
        assert private.len_dispatch_stack() == 1
        del kept
    assert str(torch._C._dispatch_tls_local_include_set()) == included
    assert private.len_dispatch_stack() == 0


_libraries = []  # what is defined lasts as long: an operator that went would leave its tripwire behind


def load(name):
    """An operator that doubles what it is given. Torch's Python does not know of it, as of those of C++."""
    library = private.dispatch_library("FRAGMENT", "jupyter_inplace_late", "", __file__, 0)
    library.define(f"{name}(Tensor(a!) x) -> ()", "")

    def double(x):
        x.mul_(2)

    library.impl(name, "CPU", double, False)
    _libraries.append(library)


def test_an_operator_that_a_cell_loads_is_seen_to_write():
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        assert wired()
        load("twice")
        h = w.exp()
        with torch.no_grad():
            torch.ops.jupyter_inplace_late.twice(h)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            h.sum().backward()
    assert [m.op for m in report.mutations if m.verdict == "breaks"] == ["jupyter_inplace_late.twice.default"]


def test_an_operator_that_came_between_watches_is_seen_to_write(monkeypatch):
    with watch():
        assert wired()
    load("double")
    packet = torch.ops.jupyter_inplace_late.double  # found before the watch: torch is not asked again
    monkeypatch.setitem(sys.modules, "jupyter_inplace_late", sys)  # as the module that loaded it
    w = torch.ones(3, requires_grad=True)
    with watch() as report:
        assert wired()
        h = w.exp()
        with torch.no_grad():
            packet(h)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            h.sum().backward()
    assert [m.op for m in report.mutations if m.verdict == "breaks"] == ["jupyter_inplace_late.double.default"]


def test_a_watch_in_inference_mode_has_none():
    with torch.inference_mode(), watch():
        assert not trace_here().part(Wiring).allowed()


def test_a_mode_that_is_put_on_while_an_optimizer_steps():
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    mode = Counting()
    with watch():
        assert [step(w) for _ in range(5)][-1]
        handle = optimizer.register_step_pre_hook(lambda *_: mode.__enter__() and None)
        optimizer.step()
        assert not wired()
        handle.remove()
        mode.__exit__(None, None, None)
        assert private.len_dispatch_stack() == 1
    assert private.len_dispatch_stack() == 0


def define(body, **mutates):
    """An operator that is defined in Python, as a cell that is run again defines it: under the name that it had before."""
    return torch.library.custom_op("jupyter_inplace_wiring::defined", body, **mutates)


def test_an_operator_defined_in_python_runs_in_the_state_that_it_has_unwatched():
    states = []

    def body(x: torch.Tensor) -> torch.Tensor:
        states.append(
            (
                str(torch._C._dispatch_tls_local_include_set()),
                str(torch._C._dispatch_tls_local_exclude_set()),
                private.len_dispatch_stack(),
            )
        )
        made = torch.ones(3)
        made.mul_(2)
        states.append(made._version)
        return made + x.sum()

    operator = define(body, mutates_args=())
    x = torch.ones(3)
    operator(x)
    unwatched = list(states)
    with watch() as report:
        assert wired()
        states.clear()
        operator(x)
        assert wired()
    assert states[1] == unwatched[1]
    assert states[0][2] == 0
    assert private.tripwire_name not in states[0][0]
    assert report.verdict == "harmless"
    assert not report.mutations


def test_an_operator_that_is_defined_anew_is_seen_to_write():
    def reads(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def writes(x: torch.Tensor, by: float) -> None:
        x.mul_(by)

    w = torch.ones(3, requires_grad=True)
    operator = define(reads, mutates_args=())
    with watch():
        assert wired()
        assert operator(w.detach()).tolist() == [2, 2, 2]
    operator = define(writes, mutates_args=("x",))
    with watch() as report:
        assert wired()
        h = w.exp()
        with torch.no_grad():
            operator(h, 2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            h.sum().backward()
    assert [m.op for m in report.mutations if m.verdict == "breaks"] == ["jupyter_inplace_wiring.defined.default"]
    operator = define(reads, mutates_args=())
    with watch() as report:
        assert wired()
        assert operator(w.detach()).tolist() == [2, 2, 2]
    assert not report.mutations


def test_an_operator_may_be_defined_while_another_is_at_work():
    def body(x: torch.Tensor) -> torch.Tensor:
        library = torch.library.Library("jupyter_inplace_wiring", "FRAGMENT")
        library.define("inner(Tensor x) -> Tensor")
        library._destroy()
        return x * 2

    operator = define(body, mutates_args=())
    with watch():
        assert wired()
        assert operator(torch.ones(3)).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import torch, torch._dynamo, torch._inductor.compile_fx, torch.distributed, torch.nn.attention.flex_attention",
        "import torch; op = torch.library.custom_op('mine::twice', lambda x: None, mutates_args=('x',), schema='(Tensor(a!) x) -> ()')",
    ],
    ids=["torch alone", "all that defines operators", "operators of the program's own"],
)
def test_they_come_whatever_was_imported(source):
    """In a process of its own. A torch that defines operators under names which nobody knows yet has tripwires all the same."""
    program = """
from jupyter_inplace import watch
from jupyter_inplace.record.here import trace_here
w = torch.ones(3, requires_grad=True)
optimizer = torch.optim.SGD([w], lr=0.1)
with watch():
    for _ in range(4):
        (w * w).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    print(trace_here().stack.wired)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source + program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "True"
