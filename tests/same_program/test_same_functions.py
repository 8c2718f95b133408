"""Custom Functions of every style, and custom operators."""

from __future__ import annotations

import pytest
import torch
from sameness import same
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        out = x.exp()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, g):
        (out,) = ctx.saved_tensors
        return g * out


class ScaleInPlace(Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.mark_dirty(x)
        ctx.factor = factor
        x.mul_(factor)
        return x

    @staticmethod
    def backward(ctx, g):
        return g * ctx.factor, None


class Unmarked(Function):
    @staticmethod
    def forward(ctx, x):
        with torch.no_grad():
            x.mul_(2)
        return x + 0

    @staticmethod
    def backward(ctx, g):
        return g * 2


class SortedWithIndex(Function):
    @staticmethod
    def forward(ctx, x):
        values, index = x.sort()
        ctx.mark_non_differentiable(index)
        ctx.save_for_backward(index)
        return values, index

    @staticmethod
    def backward(ctx, g, _):
        (index,) = ctx.saved_tensors
        return torch.zeros_like(g).scatter_(0, index, g)


class Once(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.cos()


class SetUp(Function):
    @staticmethod
    def forward(x, y):
        return x * y, x + y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, g, h):
        x, y = ctx.saved_tensors
        gx = gy = None
        if g is not None:
            gx, gy = g * y, g * x
        if h is not None:
            gx, gy = h if gx is None else gx + h, h if gy is None else gy + h
        return gx, gy


class AsIs(Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, g):
        return g * 7


class AView(Function):
    @staticmethod
    def forward(ctx, x):
        return x.view(-1)

    @staticmethod
    def backward(ctx, g):
        return g.view(2, 3)


class KeepsOnCtx(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        ctx.parts = [x * 2, "text"]
        return x.pow(2)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.parts[0] + 0 * ctx.x


class BackwardWrites(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.pow(2)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g.mul_(2).mul_(x)


class Fails(Function):
    @staticmethod
    def forward(ctx, x, where):
        ctx.where = where
        if where == "forward":
            raise LookupError("in forward")
        return x * 1

    @staticmethod
    def backward(ctx, g):
        if ctx.where == "interrupt":
            raise KeyboardInterrupt
        if ctx.where == "exit":
            raise SystemExit(3)
        if ctx.where == "shape":
            return g.new_zeros(77)
        if ctx.where == "count":
            return g, g, g
        raise LookupError("in backward")


def leaf(*shape):
    return torch.randn(*shape, requires_grad=True)


PROGRAMS = {
    "save_for_backward": lambda x: Exp.apply(x).sin(),
    "mark_dirty": lambda x: ScaleInPlace.apply(x * 1, 3.0).exp(),
    "mark_dirty on a view": lambda x: ScaleInPlace.apply((x * 1)[1:], 3.0).exp(),
    "mark_dirty on a leaf": lambda x: ScaleInPlace.apply(x, 3.0),
    "write without mark_dirty": lambda x: Unmarked.apply(x * 1),
    "non-differentiable": lambda x: SortedWithIndex.apply(x)[0] * 2,
    "once_differentiable": lambda x: Once.apply(x),
    "setup_context": lambda x: SetUp.apply(x, x.exp())[1],
    "two outputs": lambda x: sum(SetUp.apply(x, x.exp())),
    "input as it is": lambda x: AsIs.apply(x) * 2,
    "input as it is, written": lambda x: AsIs.apply(x * 1).mul_(3),
    "view": lambda x: AView.apply(torch.stack([x[:3], x[1:4]])) * 2,
    "view, written": lambda x: AView.apply(torch.stack([x[:3], x[1:4]])).mul_(3),
    "attributes": lambda x: KeepsOnCtx.apply(x),
    "backward that writes": lambda x: BackwardWrites.apply(x.exp()),
    "fails": lambda x: Fails.apply(x, "backward"),
    "fails in forward": lambda x: Fails.apply(x, "forward"),
    "interrupted": lambda x: Fails.apply(x, "interrupt"),
    "exits": lambda x: Fails.apply(x, "exit"),
    "wrong shape": lambda x: Fails.apply(x, "shape"),
    "wrong count": lambda x: Fails.apply(x, "count"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_functions(name):
    def program():
        x = leaf(4)
        y = PROGRAMS[name](x)
        z = y.sum()
        z.backward()
        return x, y, z

    same(program, known="gradients are added out of place" if name in ("two outputs", "view") else "")


@pytest.mark.parametrize("function", [Exp, KeepsOnCtx, BackwardWrites, Once])
def test_a_tensor_that_a_function_keeps_is_overwritten(function):
    def program():
        x = leaf(4)
        h = x * 1
        y = function.apply(h)
        (y if function is Exp else h).mul_(2)
        y.sum().backward()
        return x

    same(program)


def test_a_write_undone_by_the_version_counter_is_still_refused():
    def program():
        x = leaf(4)
        y = Exp.apply(x)
        with torch.no_grad():
            y.mul_(2)
            y.div_(2)
        y.sum().backward()

    same(program)


def test_a_backward_runs_as_often_as_unwatched():
    class Counting(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            runs.append(float(g.sum()))
            return g * 2

    runs = []

    def program():
        runs.clear()
        x = leaf(4)
        h = x.exp()
        h.register_hook(lambda g: runs.append("hook"))
        a, b = Counting.apply(h), Counting.apply(x + h)
        (a + b).sum().backward()
        return x, list(runs)

    same(program, known="gradients are added out of place")


def test_double_backward_of_once_differentiable():
    def program():
        x = leaf(4)
        (g,) = torch.autograd.grad(Once.apply(x).sum(), x, create_graph=True)
        g.sum().backward()

    same(program)


def test_double_backward():
    def program():
        x = leaf(4)
        (g,) = torch.autograd.grad(Exp.apply(x).sum(), x, create_graph=True)
        g.sum().backward()
        return x, g

    same(program)


def test_saved_tensors_read_by_the_program():
    def program():
        x = leaf(4)
        y = Exp.apply(x)
        node = y.grad_fn
        before = node.saved_tensors, len(node._raw_saved_tensors)
        y.mul_(2)
        try:
            node.saved_tensors
        except RuntimeError as error:
            text = str(error).partition("\n\n")[0]
        return x, before, text, node.needs_input_grad

    same(program)


def test_an_engine_call_inside_of_a_backward():
    class Inner(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                y = x.sin()
                (out,) = torch.autograd.grad(y.sum(), x)
            return out * g

    def program():
        x = leaf(4)
        Inner.apply(x.exp()).sum().backward()
        return x

    same(program)


def test_deeply_nested_engine_calls():
    class Deep(Function):
        @staticmethod
        def forward(ctx, x, depth):
            ctx.depth = depth
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            if ctx.depth:
                with torch.enable_grad():
                    x = x.detach().requires_grad_()
                    Deep.apply(x, ctx.depth - 1).sum().backward()
            return g * 2, None

    def program():
        x = leaf(3)
        Deep.apply(x, 70).sum().backward()  # past 60 the engine goes on in threads of its own
        return x

    same(program)


def test_autograd_inside_of_a_forward():
    class Newton(Function):
        @staticmethod
        def forward(ctx, x):
            with torch.enable_grad():
                t = x.detach().requires_grad_()
                for _ in range(3):
                    (g,) = torch.autograd.grad((t**2 - 2).pow(2).sum(), t)
                    t = (t - 0.05 * g).detach().requires_grad_()
            return t.detach()

        @staticmethod
        def backward(ctx, g):
            return g

    def program():
        x = leaf(3)
        Newton.apply(x).sum().backward()
        return x

    same(program)


def test_function_that_is_interrupted_leaves_the_next_program_alone():
    def program():
        x = leaf(3)
        try:
            Fails.apply(x.exp(), "interrupt").sum().backward()
        except KeyboardInterrupt:
            pass
        y = x.sin()
        y.mul_(2)
        y.sum().backward()
        return x, y

    same(program)


def test_parameters_that_share_memory():
    def program():
        w = torch.nn.Parameter(torch.randn(3, 3))
        v = torch.nn.Parameter(w.data)
        y = (w @ v).sum()
        y.backward()
        return w, v

    same(program)


def test_saved_parameters_come_back_with_what_hangs_on_them():
    class Fused(Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, None, w, x * 2)
            return x * w

        @staticmethod
        def backward(ctx, g):
            x, nothing, w, twice = ctx.saved_tensors
            seen.append((x is inputs[0], nothing, w is inputs[1], type(w).__name__, w.grad is None, twice))
            w.main_grad.add_((g * x).sum())
            return g * w, None

    seen, inputs = [], []

    def program():
        seen.clear()
        x = leaf(3)
        w = torch.nn.Parameter(torch.randn(3))
        w.main_grad = torch.zeros(3)
        inputs[:] = [x, w]
        y = Fused.apply(x, w)
        direct = [t is o for t, o in zip(y.grad_fn.saved_tensors, (x, None, w, None), strict=True)]
        y.sum().backward()
        inner = Fused.apply(x.exp(), w)
        inputs[0] = None
        inner.sum().backward()
        return x, w, w.main_grad, list(seen), direct

    same(program)


def test_a_graph_that_outlives_the_watch_gives_its_objects_back():
    from jupyter_inplace import watch

    class Look(Function):
        @staticmethod
        def forward(ctx, w):
            ctx.save_for_backward(w)
            return w * 1

        @staticmethod
        def backward(ctx, g):
            seen.append(ctx.saved_tensors[0] is w)
            return g

    seen = []
    w = torch.nn.Parameter(torch.randn(3))
    with watch():
        y = Look.apply(w).sum()
    y.backward()
    assert seen == [True]
    assert "saved_tensors" not in vars(torch.autograd.function.BackwardCFunction)


# --- custom operators ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library():
    scale = torch.library.custom_op(
        "sameness::scale_", lambda x, factor: None, mutates_args=("x",), schema="(Tensor(a!) x, float factor) -> ()"
    )

    @torch.library.register_kernel("sameness::scale_", "cpu")
    def _(x, factor):
        x.mul_(factor)
        x.add_(1)

    @torch.library.custom_op("sameness::sine", mutates_args=())
    def sine(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(__import__("numpy").sin(x.detach().numpy()))

    sine.register_autograd(
        lambda ctx, g: g * ctx.x.cos(), setup_context=lambda ctx, inputs, output: setattr(ctx, "x", inputs[0])
    )

    @torch.library.custom_op("sameness::numpy_fill", mutates_args=("out",))
    def numpy_fill(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        out.numpy()[:] = x.numpy() * 2
        return out.clone()

    @torch.library.custom_op("sameness::fails", mutates_args=("x",))
    def fails(x: torch.Tensor) -> None:
        x.add_(1)
        raise OSError("inside of an operator")

    @torch.library.custom_op("sameness::made_and_written", mutates_args=())
    def made_and_written(x: torch.Tensor) -> torch.Tensor:
        out = torch.ones(3)
        out.mul_(2).add_(x.sum())
        return out

    lib = torch.library.Library("sameness", "FRAGMENT")
    lib.define("add_one_(Tensor(a!) x) -> Tensor(a!)")
    lib.impl("add_one_", lambda x: x.add_(1), "CompositeExplicitAutograd")
    lib.define("composite(Tensor x) -> Tensor")
    lib.impl("composite", lambda x: x.clone().mul_(2).sin(), "CompositeImplicitAutograd")
    lib.define("many(Tensor(a!)[] xs) -> ()")
    lib.impl("many", lambda xs: [x.mul_(2) for x in xs] and None, "CPU")
    yield scale, sine, numpy_fill, fails
    lib._destroy()


ops = torch.ops

CUSTOM = {
    "plain": lambda x: ops.sameness.scale_(x.detach().clone(), 2.0),
    "written, then read": lambda x: (t := x.detach().clone(), ops.sameness.scale_(t, 2.0), (t * x).sum().backward(), t)[
        -1
    ],
    "saved, then written": lambda x: (
        t := x.detach().clone(),
        y := (t * x).sum(),
        ops.sameness.scale_(t, 2.0),
        y.backward(),
        t,
    )[-1],
    "no_grad on a non-leaf": lambda x: _no_grad(lambda t: ops.sameness.scale_(t, 3.0), x * 1),
    "with autograd": lambda x: (y := ops.sameness.sine(x), y.sum().backward(), y)[-1],
    "numpy inside": lambda x: (t := torch.zeros(4), ops.sameness.numpy_fill(x.detach(), t), t),
    "raises": lambda x: ops.sameness.fails(x.detach().clone()),
    "Library": lambda x: (t := x.detach().clone(), ops.sameness.add_one_(t), (t * x).sum().backward(), t),
    "Library, saved before": lambda x: (
        t := x.detach().clone(),
        y := (t * x).sum(),
        ops.sameness.add_one_(t),
        y.backward(),
        t,
    ),
    "composite": lambda x: (y := ops.sameness.composite(x), y.sum().backward(), y)[-1],
    "writes what it makes": lambda x: (y := ops.sameness.made_and_written(x.detach()), torch.zeros(2).mul_(3)),
    "a list": lambda x: (ts := [torch.ones(2), torch.ones(3)], ops.sameness.many(ts), ts),
    "inference": lambda x: _inference(lambda t: ops.sameness.scale_(t, 3.0)),
    "requires grad": lambda x: ops.sameness.scale_(x * 1, 2.0),
}


def _no_grad(write, t):
    with torch.no_grad():
        write(t)
    return t


def _inference(write):
    with torch.inference_mode():
        t = torch.ones(3)
        write(t)
        return t


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_operators(library, name):
    def program():
        x = leaf(4)
        out = CUSTOM[name](x)
        return out, x

    same(program)


def test_opcheck_of_a_custom_operator(library):
    scale = library[0]

    def program():
        torch.library.opcheck(scale, (torch.randn(3), 2.0), test_utils=("test_schema",))

    same(program)
