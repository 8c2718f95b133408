"""Random small training programs as source, and the three runs of each: unwatched, with copied saved tensors, watched."""

from __future__ import annotations

import linecache
import textwrap
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from jupyter_inplace import watch

START = """import torch
torch.manual_seed({seed})
w = torch.randn(2, 3, requires_grad=True)
v = torch.randn(2, 3, requires_grad=True)
x = torch.randn(2, 3)
"""
_BEGIN = ("t0 = w * 1.0", "t1 = x * v")

_MAKE = (
    "{a}.sigmoid()", "{a}.tanh()", "{a}.exp().clamp(max=9.0)", "{a}.relu()", "{a} * {b}", "{a} + {b}", "{a} * 2.0", "{a}.t().t()", "{a}[:, [2, 0, 1]]",
    "torch.cat([{a}[:1], {b}[1:]])", "{a}.view(3, 2).view(2, 3)", "{a} / (1.5 + {b} * {b})", "{a}.softmax(1)", "{a}.detach() * {b}",
)  # fmt: skip
_WRITE = (
    "{a}.mul_(0.5)", "{a}.add_({b})", "{a}[0] = {b}[1]", "{a}[:, 1].mul_(3.0)", "{a}.relu_()", "{a} += 1.0", "{a}.copy_({b})", "{a}[1].zero_()",
    "torch.mul({b}.detach(), 2.0, out={a})", "{a}.detach().mul_(1.5)", "{a}.data.mul_(1.5)", "{a}.data[0] = 0.25",
    "torch._foreach_mul_([{a}], 0.75)",
)  # fmt: skip
_NO_GRAD = ("w.mul_(0.9)", "v.add_(0.1)", "{a}.mul_(0.5)", "{a}[0].add_(1.0)", "x.mul_(2.0)")
_LOSS = ("{a}.sum()", "({a} * {a}).mean()", "{a}.abs().sum()", "({a} * {b}).sum()")


@st.composite
def programs(draw: st.DrawFn) -> str:
    """The source of one program: values, writes, losses, one to three backward calls; all of it once, or in each round of a loop."""
    rounds = draw(st.sampled_from((1, 1, 2, 4)))
    lines: list[str] = []
    names, losses = ["t0", "t1"], []

    def pick(text: str) -> str:
        return text.format(a=draw(st.sampled_from(names)), b=draw(st.sampled_from([*names, "w", "v", "x"])))

    for i in range(draw(st.integers(3, 12))):
        kind = draw(
            st.sampled_from(("make", "make", "make", "write", "write", "no_grad", "loss", "backward", "step", "keep"))
        )
        if kind == "make":
            lines.append(f"t{i + 2} = {pick(draw(st.sampled_from(_MAKE)))}")
            names.append(f"t{i + 2}")
        elif kind == "write":
            now = draw(st.sampled_from(("", f"if i == {rounds - 1}: "))) if rounds > 1 else ""
            lines.append(now + pick(draw(st.sampled_from(_WRITE))))
        elif kind == "keep":
            lines.append(pick("kept.append({a})"))
        elif kind == "no_grad":
            lines.append(f"with torch.no_grad(): {pick(draw(st.sampled_from(_NO_GRAD)))}")
        elif kind == "loss":
            lines.append(f"l{len(losses)} = {pick(draw(st.sampled_from(_LOSS)))}")
            losses.append(f"l{len(losses)}")
        elif kind == "step":
            lines.append("torch.optim.SGD([w, v], lr=0.1).step()")
        elif losses:
            lines.append(draw(_backward(losses)))
    lines.append(f"l{len(losses)} = {pick(draw(st.sampled_from(_LOSS)))}")
    losses.append(f"l{len(losses)}")
    lines.append(draw(_backward(losses)))
    body = "".join(f"{line}\n" for line in (*_BEGIN, *lines))
    if rounds > 1:
        body = f"for i in range({rounds}):\n{textwrap.indent(body, '    ')}"
    return f"{START.format(seed=draw(st.integers(0, 99)))}kept = []\n{body}"


@st.composite
def _backward(draw: st.DrawFn, losses: list[str]) -> str:
    chosen = draw(st.lists(st.sampled_from(losses), min_size=1, max_size=2, unique=True))
    root = chosen[0] if len(chosen) == 1 else f"({' + '.join(chosen)})"
    if draw(st.booleans()):
        return f"{root}.backward(retain_graph=True)"
    return f"g = torch.autograd.grad({root}, [w, v], retain_graph=True, allow_unused=True)"


@dataclass
class Outcome:
    """How one run ended: the error and its line, the gradients, the versions and values of all tensors."""

    error: str | None
    line: int | None
    message: str
    tensors: dict[str, torch.Tensor]
    versions: dict[str, int]
    raised: BaseException | None


def run(source: str, name: str = "<fuzz>") -> Outcome:
    """Run a program in a namespace of its own."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space: dict[str, object] = {"__name__": "__main__"}
    error, line, message, raised = None, None, "", None
    try:
        exec(compile(source, name, "exec"), space)
    except RuntimeError as caught:
        error, message, raised = type(caught).__name__, str(caught), caught
        tb = caught.__traceback__
        while tb is not None:
            if tb.tb_frame.f_code.co_filename == name:
                line = tb.tb_lineno
            tb = tb.tb_next
    found = {key: value for key, value in space.items() if isinstance(value, torch.Tensor)}
    for leaf in ("w", "v"):
        grad = found[leaf].grad if leaf in found else None
        if grad is not None:
            found[f"{leaf}.grad"] = grad
    for i, grad in enumerate(space.get("g", ())):
        if grad is not None:
            found[f"g[{i}]"] = grad
    values = {k: t.detach().clone() for k, t in found.items()}
    return Outcome(error, line, message, values, {k: t._version for k, t in found.items()}, raised)


def run_with_copies(source: str) -> Outcome:
    """The reference: every saved tensor is copied when it is saved, so no later write reaches it."""
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        return run(source)


def run_watched(source: str) -> tuple[Outcome, watch]:
    """The run under test. An error leaves the watch as it leaves a cell."""
    handle = watch(verify=False)
    handle.start()
    outcome = run(source)
    handle.stop(outcome.raised)
    return outcome, handle
