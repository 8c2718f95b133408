"""Writes that torch refuses at once: to leaves, to their views, to outputs of functions that return several views, to expanded memory."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, fresh, grow, save
from random_programs.places import backward, losses, rounds

_FORMS = (
    "{t}.mul_({k})",
    "{t}.add_({k})",
    "{t}[0] = {k}",
    "{t}.zero_()",
    "{t} *= {k}",
    "{t} += {k}",
    "{t}[:1].fill_({k})",
    "torch._foreach_mul_([{t}], {k})",
    "F.relu_({t})",
)


def _program(d: Draft, target: str, before: tuple[str, ...], inside: str | None = None) -> None:
    """`before` makes the target; after the refused statement there is more that never runs."""
    d.add(*before)
    form = d.pick([f for f in _FORMS if inside is None or "= " not in f]).format(t=target, k=d.number())
    if inside is not None:
        f = d.name("write")
        with d.block(f"def {f}({target}):"):
            d.write(form)
        d.add(f"{f}({target})")
    else:
        d.write(form)


def _leaf(d: Draft) -> None:
    begin(d)
    w = d.pick([*d.leaves, *d.square])
    with rounds(d, p=0.4) as looped:
        grow(d, most=1)
        with d.block("if r > 0:" if looped and d.chance(0.5) else None):
            view = d.pick(("", "", "view", "alias"))
            if view == "view":
                v = d.name("part")
                _program(d, v, (f"{v} = {d.pick(('{w}[:1]', '{w}.view(-1)', '{w}.t()', '{w}[0]')).format(w=w)}",))
            elif view == "alias":
                v = d.name("alias")
                _program(d, v, (f"{v} = {w}",))
            else:
                _program(d, w, (), inside="def" if d.chance(0.3) else None)
        backward(d, losses(d, [save(d, d.value())]))


def _several_views(d: Draft) -> None:
    begin(d)
    with rounds(d, p=0.3):
        grow(d, most=1)
        h = fresh(d)
        a = d.name("piece")
        d.values.append(h)
        makes = (
            "{a}, *rest = {h}.unbind(0)",
            "{a}, *rest = {h}.split(1)",
            "{a}, *rest = {h}.chunk(2)",
            "{a} = {h}.unbind(1)[0]",
            "{a} = torch.split({h}, 1)[-1]",
        )
        _program(d, a, (d.pick(makes).format(a=a, h=h),))
        backward(d, losses(d, [save(d, h)]))


def _expanded(d: Draft) -> None:
    begin(d)
    with rounds(d, p=0.3):
        grow(d, most=1)
        h = fresh(d)
        a = d.name("wide")
        d.add(
            d.pick(
                (
                    "{a} = {h}[:1].expand(R, C)",
                    "{a} = {h}[0].expand(R, C)",
                    "{a} = torch.broadcast_to({h}[:, :1], (R, C))",
                )
            ).format(a=a, h=h)
        )
        d.write(
            d.pick(("{a}.mul_({k})", "{a}.add_({k})", "{a}.copy_({c})", "{a} += {c}", "{a}.exp_()")).format(
                a=a, k=d.number(), c=d.pick(d.constants)
            )
        )
        d.values.append(a)
        backward(d, losses(d, [save(d, h)]))


KINDS: dict[str, Kind] = {"leaf": _leaf, "several_views": _several_views, "expanded": _expanded}
