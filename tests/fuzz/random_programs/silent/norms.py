"""Running statistics, which a forward in training mode writes unseen, and which the backward of a forward in evaluation mode reads."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import PLAIN, begin, grow, loss, make
from random_programs.places import backward, losses, rounds


class _Norm:
    """A batch norm of the program's: its calls in both modes."""

    def __init__(self, d: Draft) -> None:
        self.functional = d.chance(0.35)
        self.affine = d.chance(0.6)
        self.momentum = d.pick(("0.3", "0.5", "0.9"))
        if self.functional:
            d.add("mean, var = torch.zeros(C), torch.ones(C)")
            self.buffers = "mean, var"
        else:
            d.add(f"bn = nn.BatchNorm1d(C, momentum={self.momentum}, affine={self.affine})")
            if self.affine:
                d.oracle("leaf(bn)")
            self.buffers = "bn.running_mean, bn.running_var"

    def evaluate(self, d: Draft, a: str) -> str:
        y = d.name("y")
        if self.functional:
            d.add(f"{y} = F.batch_norm({a}, mean, var, training=False)")
        else:
            d.add("bn.eval()", f"{y} = bn({a})")
        return y

    def train(self, d: Draft, a: str) -> str:
        y = d.name("y")
        if self.functional:
            d.write(f"{y} = F.batch_norm({a}, mean, var, training=True, momentum={self.momentum})")
        else:
            d.add("bn.train()")
            d.write(f"{y} = bn({a})")
        d.oracle(f"pin({self.buffers})")
        return y


def _batch_norm(d: Draft) -> None:
    d.rows += 3  # two rows are normalised to plus and minus one, whatever they are
    begin(d)
    norm = _Norm(d)
    place = d.pick(
        ("before", "between", "delayed", "delayed", "first", "late") if d.chance(0.5) else ("before", "between")
    )
    if place == "delayed":
        d.add("pending = None")
    with rounds(d) if place != "delayed" else d.block(f"for r in range({d.rng.randint(2, 3)}):"):
        grow(d)
        if place == "first":  # harmless: the statistics are written before they are read
            d.values.append(norm.train(d, d.value()))
        still = norm.evaluate(d, d.value())
        shown = make(d, PLAIN[:4], a=still)
        d.values.append(shown)
        grow(d, most=1)
        if place == "between":
            first, second = loss(d, still), loss(d, shown)
            d.add(f"{first}.backward(retain_graph=True)")
            third = (
                loss(d, norm.train(d, d.value()), more=False)
                if d.chance(0.6)
                else norm.train(d, d.pick(d.constants)) and ""
            )
            d.add(f"{second}.backward({'retain_graph=True' if third else ''})")
            if third:
                d.add(f"{third}.backward()")
        elif place == "late":
            backward(d, losses(d, [still]))
            norm.train(d, d.pick(d.constants))
        elif place == "delayed":
            name = loss(d, still)
            moved = loss(d, norm.train(d, d.value()), more=False)
            with d.block("if pending is not None:"):
                d.add("pending.backward()")
            d.add(f"pending = {name} + {moved}")
        else:
            outs = [still]
            if place == "before":
                moving = norm.train(d, d.pick([*d.values, *d.constants]))
                if moving and d.chance(0.7):
                    outs.append(make(d, ("{a} + {v}", "{a} * {v}"), a=moving))
            backward(d, losses(d, outs))
    if place == "delayed":
        d.add("pending.backward()")


KINDS: dict[str, Kind] = {"batch_norm": _batch_norm}
