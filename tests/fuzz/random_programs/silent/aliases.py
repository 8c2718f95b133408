"""Writes that torch does not count or does not record: `.data`, `detach()`, no_grad, numpy, DLPack, storages."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin
from random_programs.places import Writer, after_saving, read_again

__all__ = ["KINDS", "data", "detach", "dlpack", "no_grad", "numpy", "storage", "through"]

# Writes through a tensor {t}. None of them leaves what it writes as it was, none is the identity for a derivative, but for `add_`.
IN_PLACE = (
    "{t}.mul_({k})", "{t}.mul_({k})", "{t}.zero_()", "{t}[0] = {k}", "{t}[-1].mul_({k})", "{t}[:, 0] *= {k}", "{t}.copy_(torch.full_like({t}, {k}))",
    "{t}.view(-1)[1:3].mul_({k})", "{t}.neg_()", "{t}.fill_({k})", "{t}.div_({k})", "{t}.t()[0].zero_()",
    "torch._foreach_mul_([{t}], {k})", "torch.mul({t}, {k}, out={t})", "{t}.normal_()", "nn.init.constant_({t}, {k})", "{t}.clamp_(-0.1, 0.1)",
)  # fmt: skip
ADDS = ("{t}.add_({k})", "{t} += {k}", "{t}.sub_(0.3)")
ON_A_NAME = ("{t} *= {k}", "{t} /= {k}", "{t} **= 2", "for row in {t}: row.mul_({k})")


def through(d: Draft, target: str, template: str, adds: float = 0.05) -> None:
    """A write through an alias of `target`, either at once or by way of a name or a function."""
    expression = template.format(t=target)
    way = d.pick(("at once", "at once", "name", "function", "helper"))
    form = d.pick(ADDS) if d.chance(adds) else d.pick(IN_PLACE if way == "at once" else IN_PLACE + ON_A_NAME)
    k = d.number(0.25, 0.5, 1.5, 3.0)
    if way == "at once" and not form.startswith("{t} "):
        d.write(form.format(t=expression, k=k))
    elif way == "function":
        f = d.name("write")
        with d.block(f"def {f}(t):"):
            d.write(form.format(t="t", k=k))
        d.add(f"{f}({expression})")
    else:
        alias = d.name("alias")
        d.add_early(target, f"{alias} = {expression}")
        d.write(form.format(t=alias, k=k))


def _updated(d: Draft, target: str, leaf: bool) -> None:
    if leaf:
        d.oracle(f"update({target})")


def data(d: Draft, target: str, leaf: bool) -> None:
    through(d, target, "{t}.data")
    _updated(d, target, leaf)


def detach(d: Draft, target: str, leaf: bool) -> None:
    through(d, target, "{t}.detach()")
    _updated(d, target, leaf)


def no_grad(d: Draft, target: str, leaf: bool) -> None:
    form = d.pick(ADDS) if d.chance(0.05) else d.pick(IN_PLACE + ON_A_NAME)
    statement = form.format(t=target, k=d.number(0.25, 0.5, 1.5, 3.0))
    way = d.pick(("block", "line", "decorator", "switch"))
    if form.startswith("for "):
        way = "block"
    if way == "decorator":
        f = d.name("write")
        d.add("@torch.no_grad()")
        with d.block(f"def {f}(t):"):
            d.write(form.format(t="t", k=d.number(0.25, 0.5, 1.5, 3.0)))
        d.add(f"{f}({target})")
    elif way == "switch":
        d.add("torch.set_grad_enabled(False)")
        d.write(statement)
        d.add("torch.set_grad_enabled(True)")
    elif way == "line":
        d.write(f"with {d.pick(('torch.no_grad()', 'torch.set_grad_enabled(False)'))}: {statement}")
    else:
        with d.block("with torch.no_grad():"):
            if d.chance(0.3):
                d.add(f"size = float({target}.norm())")
            d.write(statement)
    _updated(d, target, leaf)


_ARRAY = (
    "{n} *= {k}", "{n} /= {k}", "{n}[0] = {k}", "{n}[:, 0] *= {k}", "{n}[:] = {k}", "{n}.fill({k})", "np.multiply({n}, {k}, out={n})",
    "np.copyto({n}, np.full_like({n}, {k}))", "{n} **= 2", "np.negative({n}, {n})", "{n}[...] = np.tanh({n}) * {k}", "{n}.flat[1] = {k}", "np.clip({n}, -0.1, 0.1, out={n})",
)  # fmt: skip


def _array(d: Draft, target: str, template: str) -> None:
    expression = template.format(t=target)
    form = "{n} += {k}" if d.chance(0.05) else d.pick(_ARRAY)
    array, k = d.name("n"), d.number(0.25, 0.5, 1.5, 3.0)
    if d.chance(0.4):
        f = d.name("rescale")
        with d.block(f"def {f}(n):"):
            d.write(form.format(n="n", k=k))
            if d.chance(0.4):
                d.add("return float(n.sum())")
        d.add(f"{f}({expression})")
    else:
        d.add_early(target, f"{array} = {expression}")
        d.write(form.format(n=array, k=k))


def numpy(d: Draft, target: str, leaf: bool) -> None:
    forms = (
        "{t}.detach().numpy()",
        "{t}.data.numpy()",
        "np.asarray({t}.detach())",
        "{t}.numpy(force=True)",
        "{t}.detach().cpu().numpy()",
    )
    _array(d, target, d.pick(forms))
    _updated(d, target, leaf)


def dlpack(d: Draft, target: str, leaf: bool) -> None:
    forms = (
        "torch.from_dlpack({t}.detach())",
        "torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack({t}.detach()))",
        "torch.from_dlpack({t}.data)",
    )
    through(d, target, d.pick(forms))
    _updated(d, target, leaf)


def storage(d: Draft, target: str, leaf: bool) -> None:
    way = d.pick(("copy", "fill", "set", "bytes", "copy"))
    if way == "copy":
        other = d.name("other")
        d.add(
            f"{other} = torch.full_like({target}, {d.number()}).contiguous()"
            if d.chance(0.5)
            else f"{other} = torch.rand({target}.shape) + 1.0"
        )
        d.write(f"{target}.untyped_storage().copy_({other}.untyped_storage())")
    elif way == "fill":
        d.write(f"{target}.untyped_storage().fill_(0)")
    elif way == "set":
        through(d, target, "torch.empty(0).set_({t}.untyped_storage(), 0, {t}.shape)")
    else:
        first = d.name("first")
        d.add_early(target, f"{first} = {target}.untyped_storage()")
        byte, value = d.pick(
            ((6, 0), (6, 64), (7, 0), (7, 63), (14, 1), (15, 63), (15, 0))
        )  # of the exponents of the first two elements
        d.write(f"{first}[{byte}] = {value}")
    _updated(d, target, leaf)


def _unseen(writer: Writer, imports: str = "") -> Kind:
    """Programs whose write bumps no version: it comes after the save, or before a read."""

    def program(d: Draft) -> None:
        begin(d, imports=imports)
        (after_saving if d.chance(0.7) else read_again)(d, writer)

    return program


def _unrecorded(writer: Writer) -> Kind:
    """Programs whose write bumps the version, so that only a later read is silently wrong."""

    def program(d: Draft) -> None:
        begin(d)
        read_again(d, writer)

    return program


KINDS: dict[str, Kind] = {
    "data": _unseen(data),
    "detach": _unrecorded(detach),
    "no_grad": _unrecorded(no_grad),
    "numpy": _unseen(numpy, "import numpy as np"),
    "dlpack": _unseen(dlpack),
    "storage": _unseen(storage),
}
