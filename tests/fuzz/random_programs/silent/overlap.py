"""Recorded writes whose backward pays an element more often than forward kept it: shared memory, and repeated indices."""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, expression, grow
from random_programs.places import backward, losses, rounds


def _flat(d: Draft, length: str) -> str:
    """A vector with a graph, in memory of its own."""
    v = d.name("v")
    d.add(f"{v} = torch.cat([{d.value()}.flatten(), {d.value()}.flatten()])[:{length}] * {d.number()}")
    return v


def _overlap(d: Draft) -> None:
    """Views several of whose elements are one in memory: `as_strided`, `unfold`, a row of what was expanded."""
    begin(d)
    shared = not d.chance(0.05)
    with rounds(d):
        grow(d)
        base = d.name("base")
        how = d.pick(("as_strided", "unfold") * 8 + ("expand",)) if shared else d.pick(("unfold", "expand"))
        graph = d.chance(0.7) or not shared
        d.add(f"{base} = {_flat(d, '6')}" if graph else f"{base} = torch.{d.pick(('zeros', 'ones', 'rand'))}(6)")
        view = d.name("view")
        if how == "as_strided":
            rows, size, stride = d.pick(((4, 3, 1), (3, 4, 1), (2, 4, 2), (5, 2, 1)))
            d.add(
                f"{view} = {d.pick((f'{base}.as_strided(({rows}, {size}), ({stride}, 1))', f'torch.as_strided({base}, ({rows}, {size}), ({stride}, 1))'))}"
            )
        elif how == "unfold":
            size, step = d.pick(((3, 1), (4, 1), (4, 2), (2, 1))) if shared else (3, 3)
            rows = (6 - size) // step + 1
            d.add(f"{view} = {base}.unfold(0, {size}, {step})")
        else:
            rows, size = d.rng.randint(2, 3), 6
            d.add(f"{view} = {base}.expand({rows}, 6)")
        values = d.name("vals")
        d.add(
            f"{values} = torch.stack([{d.pick(('{v}[0, 0] * k', '{v}.sum() - 0.2 * k', 'torch.sin({v}.mean() + k)')).format(v=d.value())} for k in range({rows} * {size})]).view({rows}, {size})"
        )
        if how == "expand":
            for i in range(rows):
                d.write(
                    d.pick(("{t}[{i}].mul_({k})", "{t}[{i}] = {v}[{i}]", "{t}[{i}].add_({v}[{i}])")).format(
                        t=view, i=i, v=values, k=d.number()
                    )
                )
        elif shared:
            forms = ["{t}.copy_({v})", "{t}[:] = {v}", "{t}.add_({v}).mul_({k})", "{t}[1:] = {v}[1:]"]
            if graph:  # else nobody is paid
                forms += [
                    "{t}.mul_({k})",
                    "{t}.mul_({v})",
                    "{t}.tanh_()",
                    "{t} *= {v}",
                    "{t}.sigmoid_()",
                    "{t}.mul_({k})",
                ]
            d.write(d.pick(forms).format(t=view, v=values, k=d.number()))
        else:
            d.write(d.pick(("{t}.mul_({k})", "{t}.copy_({v})", "{t}.add_({v})")).format(t=view, v=values, k=d.number()))
        read = d.name("t")
        form = d.pick(
            (
                "{t}.pow(2).sum()",
                "({t} * torch.arange(1.0, 7.0)).sum()",
                "torch.sin({t}).sum()",
                "{t}.cumsum(0).sum()",
                "{w}.sum()",
                "({w} * {w}).sum()",
            )
        )
        d.add(f"{read} = {d.value()} + 0.2 * {form.format(t=base, w=view)}")
        d.values.append(read)
        grow(d, most=1)
        backward(d, losses(d, [read]))


def _repeated(d: Draft) -> None:
    """`index_put_`, `scatter_`, `index_copy_`, `put_` with an index that stands twice: the last one wins, and all are paid."""
    begin(d)
    clean = d.chance(0.1)
    with rounds(d):
        grow(d)
        grid = d.name("grid")
        d.add(
            f"{grid} = {d.pick(('torch.zeros(5, C)', 'torch.rand(5, C)', expression(d, ('torch.cat([{a}, {b}])[:4]',)) + '[[0, 1, 2, 3, 0]] * 1.0'))}"
        )
        rows = d.pick(([0, 2, 2], [1, 1, 4], [3, 0, 3], [2, 2, 2])) if not clean else d.pick(([0, 1, 2], [4, 2, 0]))
        v = d.name("v")
        d.add(
            f"{v} = {expression(d, ('torch.cat([{a}, {v}])[:3]', 'torch.stack([{a}[0], {a}[1], {v}[1]])', 'torch.cat([{a}, {a} * 0.5])[[0, 1, 2]]'))} * 1.0"
        )
        index = f"torch.tensor({rows})"
        forms = [
            "{g}[{i}] = {v}", "{g}.index_put_(({i},), {v})", "{g}.index_copy_(0, {i}, {v})", "{g}.scatter_(0, {i}[:, None].expand(3, C), {v})",
            "{g}.put_({i}, {v}[:, 0])", "{g}[:, 1].put_({i}, {v}[:, 0])", "{g}[{i}, {i}.clamp(max=2)] = {v}[:, 1]", "{g}[:, 0].scatter_(0, {i}, {v}[:, 2])",
            "{g}.t()[:, {i}] = {v}.t()", "{g}.index_put_(({i},), {v}[0])",
        ]  # fmt: skip
        if d.chance(0.05):
            forms = [
                "{g}.index_put_(({i},), {v}, accumulate=True)",
                "{g}.index_add_(0, {i}, {v})",
                "{g}.scatter_add_(0, {i}[:, None].expand(3, C), {v})",
                "{g}.put_({i}, {v}[:, 0], accumulate=True)",
            ]
        d.write(d.pick(forms).format(g=grid, i=index, v=v))
        read = d.name("t")
        form = d.pick(
            (
                "({g} * torch.arange(1.0, 6.0)[:, None]).sum(0)",
                "torch.sin({g}).mean(0)",
                "{g}.pow(2).sum()",
                "{g}.sum()",
                "{g}.cumsum(0)[-1]",
                "{g}.tanh().mean()",
            )
        )
        d.add(f"{read} = {d.value()} + {form.format(g=grid)}")
        d.values.append(read)
        grow(d, most=1)
        backward(d, losses(d, [read]))


KINDS: dict[str, Kind] = {"overlap": _overlap, "repeated": _repeated}
