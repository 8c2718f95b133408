"""torch.compile, export, tracing, scripting, fake tensors."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from sameness import same
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Counting:
    """A backend that counts the graphs it is given, and runs them as they are."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, inputs):
        self.graphs.append(
            [
                node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
                for node in graph.graph.nodes
            ]
        )
        return graph.forward


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make_net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2))


def test_graphs_are_as_many_as_unwatched():
    def program():
        torch._dynamo.reset()
        backend = Counting()

        @torch.compile(backend=backend)
        def f(x, w):
            h = x @ w
            h.relu_()
            h = h.clone()
            h[0] = 1
            return h.sin().sum()

        w = torch.randn(4, 4, requires_grad=True)
        for n in (3, 3, 5):
            f(torch.randn(n, 4), w).backward()
        return w, backend.graphs, len(backend.graphs)

    same(program)


def test_a_compiled_module():
    def program():
        torch._dynamo.reset()
        net = make_net()
        compiled = torch.compile(net, backend="eager")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = compiled(torch.randn(5, 4)).square().mean()
            loss.backward()
            optimizer.step()
        return net, loss

    same(program)


def test_compiled_before_the_watch():
    backend = Counting()

    @torch.compile(backend=backend)
    def f(x, w):
        return (x @ w).relu().sum()

    f(torch.randn(3, 4), torch.randn(4, 4, requires_grad=True))

    def program():
        w = torch.randn(4, 4, requires_grad=True)
        f(torch.randn(3, 4), w).backward()
        return w, len(backend.graphs)

    same(program)


def test_graph_breaks():
    def program():
        torch._dynamo.reset()
        backend = Counting()
        log = []

        @torch.compile(backend=backend)
        def f(x):
            y = x.exp()
            torch._dynamo.graph_break()
            log.append(tuple(y.shape))
            y.mul_(2)
            return y.sin().sum()

        x = torch.randn(4, requires_grad=True)
        f(x)
        return len(backend.graphs), log

    same(program)


def test_fullgraph_with_a_custom_function():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 2 + 0 * x

    def program():
        torch._dynamo.reset()
        backend = Counting()
        f = torch.compile(lambda x: Twice.apply(x).sin().sum(), backend=backend, fullgraph=True)
        x = torch.randn(4, requires_grad=True)
        f(x).backward()
        return x, backend.graphs

    same(program)


def test_fullgraph_with_a_transform():
    def program():
        torch._dynamo.reset()
        backend = Counting()
        f = torch.compile(lambda x: torch.func.grad(lambda x: x.sin().sum())(x), backend=backend, fullgraph=True)
        x = torch.randn(4)
        return f(x), len(backend.graphs)

    same(program)


def test_fullgraph_with_methods_that_the_watch_replaces():
    def program():
        torch._dynamo.reset()
        backend = Counting()

        def f(x, w):
            y = x.detach().clone()
            y.data.mul_(2)
            w.register_hook(lambda g: g * 2)
            return (w * y).sum()

        w = torch.randn(4, requires_grad=True)
        try:
            torch.compile(f, backend=backend)(torch.randn(4), w * 1).backward()
        except Exception as error:
            return type(error).__name__, len(backend.graphs)
        return w, len(backend.graphs)

    same(program)


def test_a_compiled_region_that_raises():
    def program():
        torch._dynamo.reset()
        f = torch.compile(lambda x: x.exp() + torch.zeros(3).view(7), backend="eager")
        try:
            f(torch.randn(4))
        except Exception as error:
            return type(error).__name__

    same(program)


def test_aot_eager():
    def program():
        torch._dynamo.reset()
        net = make_net()
        compiled = torch.compile(net, backend="aot_eager")
        x = torch.randn(5, 4)
        for _ in range(2):
            loss = compiled(x).square().mean()
            loss.backward()
        return net, loss

    same(program)


def test_aot_eager_with_writes():
    def program():
        torch._dynamo.reset()
        buffer = torch.zeros(4)

        def f(x):
            buffer.add_(x.detach())
            y = x * buffer
            y.mul_(2)
            return y.sum()

        x = torch.randn(4, requires_grad=True)
        torch.compile(f, backend="aot_eager")(x).backward()
        return x, buffer

    same(program)


@pytest.mark.slow
def test_inductor():
    def program():
        torch._dynamo.reset()
        w = torch.randn(4, 4, requires_grad=True)
        x = torch.randn(3, 4)

        @torch.compile
        def f(x, w):
            return torch.relu(x @ w).sin().sum()

        loss = f(x, w)
        loss.backward()
        return w, loss

    same(program)


def test_export():
    def program():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(4, 2)
                self.register_buffer("count", torch.zeros(()))

            def forward(self, x):
                self.count.add_(1)
                return self.linear(x).relu_()

        net = Net()
        exported = torch.export.export(net, (torch.randn(3, 4),))
        out = exported.module()(torch.ones(3, 4))
        out.sum().backward()
        return str(exported.graph), out, net

    same(program)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode):
    def program():
        def f(x, w):
            y = x @ w
            y.mul_(2)
            return torch.autograd.grad(y.exp().sum(), w)[0]

        graph = make_fx(f, tracing_mode=mode)(torch.randn(3, 4), torch.randn(4, 2, requires_grad=True))
        return graph.code, graph(torch.ones(3, 4), torch.ones(4, 2, requires_grad=True))

    same(program)


def test_make_fx_of_an_overwritten_saved_tensor():
    def program():
        def f(x, w):
            y = (x @ w).exp()
            y.mul_(2)
            return torch.autograd.grad(y.sum(), w)[0]

        make_fx(f, tracing_mode="fake")(torch.randn(3, 4), torch.randn(4, 2, requires_grad=True))

    same(program)


def test_aot_module():
    from torch._functorch.aot_autograd import aot_module_simplified
    from torch._functorch.compilers import nop

    def program():
        net = make_net().eval()
        x = torch.randn(3, 4)
        compiled = aot_module_simplified(net, (x,), nop)
        compiled(x)
        return net

    same(program)


def test_fake_tensors():
    def program():
        with FakeTensorMode():
            net = make_net()
            x = torch.randn(3, 4)
            y = net(x)
            y.square_()
            loss = y.mean()
            loss.backward()
            optimizer = torch.optim.Adam(net.parameters())
            optimizer.step()
        return y, net[0].weight.grad.shape, loss

    same(program)


def test_fake_tensors_with_a_saved_tensor_overwritten():
    def program():
        with FakeTensorMode():
            x = torch.randn(3, 4, requires_grad=True)
            y = x.sigmoid()
            y.mul_(2)
            y.sum().backward()

    same(program)


def test_a_fake_mode_around_the_watch():
    from sameness import compare, run, run_watched

    def program():
        x = torch.randn(3, 4, requires_grad=True)
        y = x.exp()
        y.sum().backward()
        return x, y, x.grad

    with FakeTensorMode():
        plain = run(program)
        watched, _ = run_watched(program)
    compare(plain, watched)


def test_meta_tensors():
    def program():
        with torch.device("meta"):
            net = make_net()
            x = torch.randn(3, 4)
            y = net(x)
            y.mul_(2)
            y.sum().backward()
            s = torch.randn(3, requires_grad=True).sigmoid()
            s.mul_(2)
            try:
                s.sum().backward()
            except RuntimeError as error:
                text = str(error).partition("\n\n")[0]
        return y, net[0].weight.grad, text

    same(program)


def test_scripts_and_traces():
    def program():
        @torch.jit.script
        def f(x, n: int):
            for _ in range(n):
                x = x * 2
                x.add_(1)
            return x.sin()

        x = torch.randn(4, requires_grad=True)
        a = f(x * 1, 3)
        b = f(x * 1, 3)
        (a + b).sum().backward()
        net = make_net().eval()
        traced = torch.jit.trace(net, torch.randn(2, 4))
        c = traced(torch.ones(2, 4))
        c.sum().backward()
        return x, a, c, net

    same(program)


def test_a_script_that_writes_what_was_saved():
    def program():
        @torch.jit.script
        def f(x):
            y = x.sigmoid()
            y.mul_(2)
            return y

        x = torch.randn(4, requires_grad=True)
        f(x).sum().backward()

    same(program)


def test_fx_symbolic_trace():
    def program():
        traced = torch.fx.symbolic_trace(make_net())
        out = traced(torch.randn(3, 4))
        out.sum().backward()
        return traced.code, out

    same(program)


def test_higher_order_operators():
    from torch._higher_order_ops.cond import cond

    def program():
        x = torch.randn(4, requires_grad=True)
        y = cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))
        y.sum().backward()
        return x

    same(program)


def test_the_watch_does_not_import_dynamo():
    """Over a second of the first operation, and a changed program: some of torch behaves otherwise once it is there."""
    code = """
        import sys
        import torch
        from jupyter_inplace import watch
        with watch() as report:
            x = torch.randn(3, requires_grad=True)
            y = x.sigmoid()
            z = (y * y).sum()
            y.mul_(2)
            try:
                z.backward()
            except RuntimeError:
                pass
            net = torch.nn.Linear(3, 2)
            net(torch.ones(1, 3)).sum().backward()
        assert report.verdict == "breaks", report
        str(report), report.to_json()
        print("torch._dynamo" in sys.modules, "torch._inductor" in sys.modules)
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    unwatched = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code).replace("with watch() as report:", "report = None\nif True:").partition("assert report")[0]
         + 'print("torch._dynamo" in sys.modules, "torch._inductor" in sys.modules)'], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert out.stdout == unwatched.stdout == "False False\n", out.stderr + unwatched.stderr
