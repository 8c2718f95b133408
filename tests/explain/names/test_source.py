"""The tasks that a cell's source shows, and which of them come after a statement."""

import ast
import linecache
import textwrap

import pytest

from jupyter_inplace.explain.names.source import static_tasks, tasks_after, with_block_source
from jupyter_inplace.record.source.masking import masked, parsed


def names(source):
    return [task.name for task in static_tasks(textwrap.dedent(source))]


def after(source, marker="# HERE"):
    """The tasks at or after the lines marked, outermost first."""
    source = textwrap.dedent(source)
    lines = [number for number, line in enumerate(source.splitlines(), 1) if marker in line]
    return tasks_after(source, static_tasks(source), lines[0] if len(lines) == 1 else lines)


class TestRoots:
    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("loss = f(); loss.backward()", ["loss"]),
            ("loss = f(); loss.backward(retain_graph=True)", ["loss"]),
            ("y = f(); y.backward(torch.ones_like(y))", ["y"]),
            ("y = f(); y.backward(gradient=v)", ["y"]),
            ("a, b = f(), g()\n(a + b).backward()", ["a", "b"]),
            ("a, b = f(), g()\n(a + 0.5 * b).backward()", ["a", "b"]),
            ("a, b = f(), g()\n(a - b / 3).backward()", ["a", "b"]),
            ("a, b, lam = f(), g(), 0.1\n(a + lam * b).backward()", ["a", "b"]),
            ("a, b, lam = f(), g(), 0.1\n(a + b * lam).backward()", ["a", "b"]),
            ("a, b = f(), g()\n(a + alpha * b).backward()", ["a", "b"]),
            ("a, b = f(), g()\n(-a + 1e-4 + b).backward()", ["a", "b"]),
            ("loss = f()\n(loss / 4).backward()", ["loss"]),
            ("a, b = f(), g()\ntotal = a + b\ntotal.backward()", ["a", "b"]),
            ("a, b, c = f(), g(), h()\nab = a + b\ntotal = ab + c\ntotal.backward()", ["a", "b", "c"]),
            ("a = f()\ntotal = a + g()\ntotal.backward()", ["total"]),
            ("total = f() + g()\ntotal.backward()", ["total"]),
            ("total = earlier_a + earlier_b\ntotal.backward()", ["total"]),
            ("a, b = f(), g()\ntotal = 0\ntotal += a\ntotal += 2 * b\ntotal.backward()", ["a", "b"]),
            ("total = zeros()\nfor x in xs:\n    loss = f(x)\n    total += loss\ntotal.backward()", ["total"]),
            ("total = zeros()\nfor x in xs:\n    total = total + f(x)\ntotal.backward()", ["total"]),
            ("loss = f()\nscaler.scale(loss).backward()", ["loss"]),
            ("a, b = f(), g()\nscaler.scale(a + b).backward()", ["a", "b"]),
            ("loss = f()\naccelerator.backward(loss)", ["loss"]),
            ("loss = f()\nself.fabric.backward(loss)", ["loss"]),
            ("loss = f()\nmodel.backward(loss)", ["loss"]),
            ("a, b = f(), g()\ntorch.autograd.backward([a, b])", ["a", "b"]),
            ("a = f()\ntorch.autograd.backward(a)", ["a"]),
            ("a = f()\nautograd.backward(tensors=(a,))", ["a"]),
            ("a = f()\ng, = torch.autograd.grad(a, w, create_graph=True)", ["a"]),
            ("a, b = f(), g()\ntorch.autograd.grad(outputs=[a, b], inputs=w)", ["a", "b"]),
            ("from torch.autograd import grad\na = f()\ngrad(a, w)", ["a"]),
            ("from torch.autograd import grad as d\na = f()\nd(a, w)", ["a"]),
            ("from torch.func import grad\na = f()\ngrad(a, w)", []),
            ("def grad(f, x):\n    return f\na = f()\ngrad(a, w)", []),
            ("losses = {}\nlosses['seg'] = f()\nlosses['seg'].backward()", ["losses['seg']"]),
            ('losses = {"seg": f(), "depth": g()}\nlosses["seg"].backward()', ['losses["seg"]']),
            ("losses = f()\nsum(losses).backward()", ["losses"]),
            ("losses = f()\nsum(losses.values()).backward()", ["losses"]),
            ("a, b = f(), g()\nlosses = [a, b]\nsum(losses).backward()", ["a", "b"]),
            ("a, b = f(), g()\nsum([a, b]).backward()", ["a", "b"]),
            ("a, b = f(), g()\ntorch.stack([a, b]).sum().backward()", ["a", "b"]),
            ("a, b = f(), g()\ntorch.stack([a, b]).mean().backward()", ["a", "b"]),
            (
                'losses = {"seg": f(), "depth": g()}\nsum(losses.values()).backward()',
                ['losses["seg"]', 'losses["depth"]'],
            ),
            ("losses = []\nfor x in xs:\n    losses.append(f(x))\nsum(losses).backward()", ["losses"]),
            ("a, b = f(), g()\ntotal = sum([a, b])\ntotal.backward()", ["a", "b"]),
            ("model(x).sum().backward()", ["model(x).sum()"]),
            ("out = model(x)\nout.loss.backward()", ["out.loss"]),
            ("for loss in losses:\n    loss.backward()", ["loss"]),
            ("loss = f()\nloss.backward()\nloss = g()\nloss.backward()", ["loss"]),
            ("%time loss = f()\n%time loss.backward()", ["loss"]),
            ("%%time\nloss = f()\n!ls\nloss?\nloss.backward()", ["loss"]),
            ("loss = await f()\nloss.backward()", ["loss"]),
            ("class F(Function):\n    def backward(ctx, g):\n        return g\nx = F.apply(y)", []),
            ("this is no python", []),
            ("", []),
        ],
    )
    def test_names(self, source, expected):
        assert names(source) == expected

    def test_functions(self):
        source = """
        def step(x):
            loss = f(x)
            loss.backward()
        def never():
            other.backward()
        setup()
        for x in xs:
            step(x)
        step(y)
        """
        [task] = static_tasks(textwrap.dedent(source).strip("\n"))
        assert (task.name, task.lines, task.statements) == ("loss", (7, 9), (3, 4))
        assert (task.assigned_lines, task.backward_lines) == ((2,), (3,))

    def test_parameters_take_the_callers_names(self):
        source = """
        def optimise(loss, opt):
            opt.zero_grad()
            loss.backward()
            opt.step()
        d_loss = f()
        optimise(d_loss, opt_d)
        optimise(loss=g(x), opt=opt_g)
        """
        assert names(source) == ["d_loss", "loss"]

    def test_methods(self):
        source = """
        class Trainer:
            def forward(self):
                self.loss = f()
            def optimise(self):
                self.forward()
                self.loss.backward()
        trainer = Trainer()
        trainer.optimise()
        """
        [task] = static_tasks(textwrap.dedent(source).strip("\n"))
        assert (task.name, task.lines, task.assigned_lines) == ("self.loss", (8,), (3,))

    def test_closures_handed_to_an_optimizer(self):
        source = """
        def closure():
            loss = f()
            loss.backward()
            return loss
        opt.step(closure)
        """
        [task] = static_tasks(textwrap.dedent(source).strip("\n"))
        assert (task.name, task.lines) == ("loss", (5,))

    def test_lines(self):
        source = "loss = 0\nx = f()\nloss = g(x)\nloss.backward()\n"
        [task] = static_tasks(source)
        assert (task.lines, task.statements, task.backward_lines) == ((3,), (2,), (4,))


class TestAfter:
    def test_straight_line(self):
        source = """
        loss1 = (x @ w).sum()
        w.mul_(2)  # HERE
        loss2 = (y @ w).sum()
        (loss1 + loss2).backward()
        """
        assert after(source) == ("loss2",)

    def test_first_statement(self):
        assert after("x.add_(1)  # HERE\nloss = x.sum()\nloss.backward()\n") == ("loss",)

    def test_the_statement_itself(self):
        assert after("loss = model(x).sum()  # HERE\nloss.backward()\n") == ("loss",)

    def test_a_loop_comes_round_again(self):
        source = """
        for _ in range(3):
            fit = (theta - target).pow(2).sum()
            fit.backward()
            theta -= 0.1 * theta.grad  # HERE
        """
        assert after(source) == ("fit",)

    def test_before_a_loop(self):
        source = """
        warm = f()
        warm.backward()
        for _ in range(3):
            theta -= 0.1  # HERE
            fit = g()
            fit.backward()
        """
        assert after(source) == ("fit",)

    def test_inside_of_a_function(self):
        source = """
        def rescale(img):
            for plane in img:
                plane.mul_(2)  # HERE
            return img
        first = f()
        loss = rescale(w).sum()
        (first + loss).backward()
        """
        assert after(source) == ("loss",)

    def test_inside_of_a_module(self):
        source = """
        class Toy(nn.Module):
            def forward(self, e):
                e *= 2  # HERE
                return self.out(e)
        model = nn.Sequential(Toy())
        early = f()
        score = model(e).sum()
        (early + score).backward()
        """
        assert after(source) == ("score",)

    def test_inside_of_a_module_in_a_module(self):
        source = """
        class Block(nn.Module):
            def forward(self, e):
                e *= 2  # HERE
                return e
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Block()
            def forward(self, e):
                return self.block(e)
        net = Net()
        early = f()
        score = net(e).sum()
        (early + score).backward()
        """
        assert after(source) == ("score",)

    def test_earlier_in_the_same_function(self):
        source = """
        def step():
            one = f()
            w.mul_(2)  # HERE
            two = g()
            (one + two).backward()
        step()
        """
        assert after(source) == ("two",)

    def test_a_function_that_a_loop_calls(self):
        source = """
        def step():
            one = f()
            w.mul_(2)  # HERE
            two = g()
            (one + two).backward()
        for _ in range(3):
            step()
        """
        assert after(source) == ("one", "two")

    def test_two_calls_told_apart_by_the_stack(self):
        source = """
        def scale(w):
            w.mul_(2)  # INNER
        scale(a)
        early = f()
        scale(b)  # OUTER
        late = g()
        (early + late).backward()
        """
        source = textwrap.dedent(source)
        tasks = static_tasks(source)
        assert tasks_after(source, tasks, 3) == ("early", "late")  # the first call is the likeliest
        assert tasks_after(source, tasks, [6, 3]) == ("late",)

    def test_the_other_branch_does_not_run(self):
        source = """
        if flag:
            w.mul_(2)  # HERE
        else:
            one = f()
            one.backward()
        two = g()
        two.backward()
        """
        assert after(source) == ("two",)

    def test_nested_block_without_loop(self):
        source = """
        with ctx:
            one = f()
            w.mul_(2)  # HERE
            two = g()
        (one + two).backward()
        """
        assert after(source) == ("two",)

    def test_a_task_of_an_earlier_cell_is_not_computed_here(self):
        assert after("w.mul_(2)  # HERE\nold_loss.backward()\n") == ()

    def test_containers_filled_later(self):
        source = """
        losses = []
        w.mul_(2)  # HERE
        losses.append(f())
        sum(losses).backward()
        """
        assert after(source) == ("losses",)

    def test_a_line_that_is_not_there(self):
        assert tasks_after("loss = f()\nloss.backward()", static_tasks("loss = f()\nloss.backward()"), 40) == ()


class TestBlocks:
    def write(self, tmp_path, source):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(source).lstrip("\n"))
        linecache.clearcache()
        return str(path)

    def test_a_with_block_in_a_script(self, tmp_path):
        source = """
        def step(x):
            loss = f(x)
            loss.backward()
        other = f()
        other.backward()
        with watch() as report:
            step(x)
            w.mul_(2)
            last = g()
            last.backward()
        other.backward()
        """
        block = with_block_source(self.write(tmp_path, source), 6)
        assert block.lines == (7, 10)
        tasks = static_tasks(block)
        assert [(task.name, task.lines) for task in tasks] == [("loss", (7,)), ("last", (9,))]
        assert tasks_after(block, tasks, 8) == ("last",)

    def test_a_with_block_in_a_function(self, tmp_path):
        source = '''
        def main():
            net = build()
            with (
                other(),
                watch() as report,
            ):
                text = """
        not indented"""
                loss = net()
                loss.backward()

        main()
        '''
        block = with_block_source(self.write(tmp_path, source), 5)
        assert block.lines == (7, 10)
        assert [(task.name, task.lines) for task in static_tasks(block)] == [("loss", (9,))]

    def test_unknown_source(self, tmp_path):
        assert with_block_source("<stdin>", 3) is None
        assert with_block_source(self.write(tmp_path, "x = 1\n"), 1) is None


class TestMasking:
    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("%time x.mul_(2)\ny = 1", "x.mul_(2)\ny = 1"),
            ("%time -q x.mul_(2)", "x.mul_(2)"),
            ("%prun -s cum x.mul_(2)", "pass"),
            ("if 1:\n    %matplotlib inline", "if 1:\n    pass"),
            ("%%autograd_watch -q\nx = 1", "pass\nx = 1"),
            ("files = !ls", "files = None"),
            ("y = %time f()", "y = f()"),
            ("!ls \\\n  -l\nx = 1", "pass\n\nx = 1"),
            ("x?\nx??\n?x\nnp.a*?", "pass\npass\npass\npass"),
            ("x = (a\n     % b)", "x = (a\n     % b)"),
            ('s = """\n%time\n"""', 's = """\n%time\n"""'),
            ("!echo \"don't\nx = 1", "pass\nx = 1"),
        ],
    )
    def test_masked(self, source, expected):
        assert masked(source) == expected
        ast.parse(masked(source))

    def test_no_python(self):
        assert parsed("def f(:\n  pass") is None
