"""Values with a graph that are copied unrecorded into memory which a loss reads later: is a leaf behind them left without a gradient?"""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import PLAIN, SAVES_INPUT, begin, grow, loss, make
from random_programs.places import backward, losses, rounds

_INTO_BUFFER = (
    "with torch.no_grad(): {b}.copy_({h})", "with torch.no_grad(): {b}[:] = {h}", "{b}.data.copy_({h})", "{b}.data[:] = {h}", "{b}.detach().copy_({h})",
    "with torch.no_grad(): torch.add({h}, 0.0, out={b})",
)  # fmt: skip
_INTO_LEAF = (
    "{b}.data.copy_({h})", "with torch.no_grad(): {b}.copy_({h})", "{b}.data[:] = {h}", "with torch.no_grad(): {b}[:] = {h}",
)  # fmt: skip


def _source(d: Draft) -> tuple[str, str]:
    """A value and the leaf of its own that it came from, which nothing else reads so far."""
    own = d.name("own")
    d.add(f"{own} = torch.randn(R, C, requires_grad=True)")
    d.oracle(f"leaf({own})")
    return own, d.name("h")


def _graph_copy(d: Draft) -> None:
    begin(d)
    own, h = _source(d)
    into_leaf = d.chance(0.35)
    target = d.name("slot")
    module = into_leaf and d.chance(0.4)
    if module:
        d.add(f"{target} = nn.Linear(C, R, bias=False)")
        d.oracle(f"leaf({target})")
        memory = f"{target}.weight"
    elif into_leaf:
        d.add(f"{target} = torch.zeros(R, C, requires_grad=True)")
        d.oracle(f"leaf({target})")
        memory = target
    else:
        d.add(f"{target} = torch.zeros(R, C)")
        memory = target
    how = d.pick(("cut", "cut", "cut", "cut", "cut", "cut", "cut", "other path", "asked for", "other task"))
    with rounds(d, p=0.35):
        grow(d)
        expression = d.pick(
            ("torch.tanh({w})", "{w} * 2.0", "{w} + {c}", "{w}.sin()", "{w} * {c}", "({w} * {w} + 0.5).sqrt()")
        ).format(w=own, c=d.pick(d.constants))
        if d.chance(0.3):
            expression = f"{expression} + {d.value()}"
        if how == "asked for":  # harmless: the value has no graph, on purpose
            d.add(f"with torch.no_grad(): {h} = {expression}")
            d.oracle(f"{h} = hold({h})")
        else:
            d.add(f"{h} = {expression}")
        if d.chance(0.2) and not into_leaf:
            with d.block("with torch.no_grad():"):
                d.write(f"{memory}.copy_({h})")
        elif module and d.chance(0.4):
            d.write(f"{target}.load_state_dict({{'weight': {h}}})")
        else:
            d.write(d.pick(_INTO_LEAF if into_leaf else _INTO_BUFFER).format(b=memory, h=h))
        d.oracle(f"copied({memory}, {h})")
        if module:
            read = d.name("t")
            d.add(f"{read} = torch.tanh({target}({d.value()})[:, :1]) + {d.value()}")
        else:
            read = make(d, SAVES_INPUT[:6] + PLAIN[:2], a=memory)
            read = make(d, ("{a} * {v}", "{a} + {v}"), a=read)
        outs = [read]
        if how == "other path":
            mixed = d.name("t")
            d.add(f"{mixed} = {read} + 0.5 * {h}")
            outs = [mixed]
        elif how == "other task" and d.chance(0.5):
            outs.append(make(d, ("{a} * 0.5", "{a} + {b}"), a=h))
        d.values.append(read)
        grow(d, most=1)
        if len(outs) == 1:
            backward(d, losses(d, outs))
        else:  # another task gives the leaf a gradient, but does not read the memory
            first, second = loss(d, outs[0], more=False), loss(d, outs[1], more=False)
            d.add(f"{first}.backward(retain_graph=True)", f"{second}.backward()")


KINDS: dict[str, Kind] = {"graph_copy": _graph_copy}
