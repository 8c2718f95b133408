"""Modules and functions that write in place by a flag, modules that saved their own state, custom functions."""

import inspect

import pytest
from rules_helper import becomes, rewrites

from jupyter_inplace.rewrite.syntax import tensors

CONSTRUCTORS = {
    "keyword": ("nn.ReLU(inplace=True)", "nn.ReLU()"),
    "position": ("nn.ReLU(True)", "nn.ReLU()"),
    "second position": ("nn.Dropout(0.3, True)", "nn.Dropout(0.3)"),
    "keyword after a position": ("nn.Dropout(0.3, inplace=True)", "nn.Dropout(0.3)"),
    "keyword before a keyword": ("nn.Dropout(inplace=True, p=0.3)", "nn.Dropout(p=0.3)"),
    "third position": ("nn.Threshold(0.1, 20, True)", "nn.Threshold(0.1, 20)"),
    "by a name": ("ELU(1.0, True)", "ELU(1.0)"),
    "an expression": ("nn.ReLU(inplace=fast)", "nn.ReLU()"),
    "inside partial": ("partial(nn.ReLU, inplace=True)", "partial(nn.ReLU)"),
    "a block of the user's": ("Block(4, inplace=True)", "Block(4)"),
}


@pytest.mark.parametrize(("before", "after"), CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_constructors(before, after):
    cell = "net = nn.Sequential(nn.Linear(3, 3), {})\ny = net(x)\n"
    candidate = becomes(cell.format(before), cell.format(after), text="net(x)")
    assert candidate.kind == "out_of_place"


def test_each_module_alone_and_all_together():
    cell = "net = nn.Sequential(nn.ReLU(True), nn.Dropout(0.3, True))\ny = net(x)\n"
    found = rewrites(cell, text="net(x)", op="aten.dropout_")
    assert "nn.ReLU(True), nn.Dropout(0.3))" in found[0].source  # the module of the op's name first
    becomes(cell, "net = nn.Sequential(nn.ReLU(), nn.Dropout(0.3, True))\ny = net(x)\n", text="net(x)")
    becomes(cell, "net = nn.Sequential(nn.ReLU(), nn.Dropout(0.3))\ny = net(x)\n", text="net(x)")


def test_a_flag_that_is_off_is_left_alone():
    cell = "net = nn.ReLU(inplace=False)\nact = nn.ReLU(False)\ny = net(x)\n"
    assert all("nn.ReLU()" not in candidate.source for candidate in rewrites(cell, text="net(x)"))


def test_modules_from_elsewhere_are_switched_off():
    becomes(
        "y = net(x).sum()\n",
        """
        for module in net.modules():
            if getattr(module, "inplace", False):
                module.inplace = False
        y = net(x).sum()
        """,
        text="net(x)",
    )


def test_the_tables_are_torchs():
    torch = pytest.importorskip("torch")
    modules = {
        name: list(inspect.signature(kind.__init__).parameters).index("inplace") - 1
        for name, kind in vars(torch.nn).items()
        if inspect.isclass(kind) and "inplace" in inspect.signature(kind.__init__).parameters
    }
    assert modules == tensors.FLAG_MODULES
    functional = torch.nn.functional
    functions = {
        name: list(inspect.signature(function).parameters).index("inplace")
        for name, function in vars(functional).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and "inplace" in inspect.signature(function).parameters
    }
    assert functions == {name: at for name, at in tensors.FLAG_FUNCTIONS.items() if name in functions}
    assert all(hasattr(functional, name) for name in tensors.FLAG_FUNCTIONS)


def test_every_in_place_method_of_torch_has_its_form():
    torch = pytest.importorskip("torch")
    methods = [name for name in dir(torch.Tensor) if tensors.is_inplace_name(name) and not name.startswith("_")]
    assert len(methods) > 100
    unknown = [
        name
        for name in methods
        if name not in tensors.FILLS
        and tensors.outofplace_name(name) is not None
        and not hasattr(torch.Tensor, tensors.outofplace_name(name))
    ]
    assert unknown == []
    assert all(hasattr(torch.Tensor, name) for name in tensors.FILLS)


def test_a_module_that_saved_parameters_runs_on_copies():
    becomes(
        "import torch\nfake = D(z)\nopt.step()\nfake.sum().backward()\n",
        "import torch\nfake = torch.func.functional_call(D, {name: p.clone() for name, p in D.named_parameters()}, (z,))\n"
        "opt.step()\nfake.sum().backward()\n",
        text="opt.step()", tensor="D.0.weight", saved="D(z)",
    )  # fmt: skip


def test_a_module_with_keywords_and_in_a_container():
    becomes(
        'import torch\nfake = nets["d"](*z, k=2)\nopt.step()\n',
        "import torch\n"
        'fake = torch.func.functional_call(nets["d"], {name: p.clone() for name, p in nets["d"].named_parameters()}, '
        '(*z,), {"k": 2})\nopt.step()\n',
        text="opt.step()", tensor='nets["d"].weight', saved='nets["d"](*z, k=2)',
    )  # fmt: skip


def test_running_statistics_are_copied_as_buffers():
    becomes(
        "import torch\na = bn(x)\nbn.train()\nb = bn(y)\n",
        "import torch\na = torch.func.functional_call(bn, {name: p.clone() for name, p in bn.named_buffers()}, (x,))\n"
        "bn.train()\nb = bn(y)\n",
        text="bn(y)", tensor="bn.running_mean", op="aten.native_batch_norm", saved="bn(x)", saved_as="running_mean",
    )  # fmt: skip


FUNCTION = """
class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x *= 2.0
        return x
    @staticmethod
    def backward(ctx, g):
        return g * 2.0
h = net(x)
Double.apply(h)
"""


def test_mark_dirty():
    after = FUNCTION.replace("x *= 2.0\n", "x *= 2.0\n        ctx.mark_dirty(x)\n")
    becomes(FUNCTION, after, text="x *= 2.0", verdict="cuts")


def test_mark_dirty_where_the_context_is_set_up_apart():
    before = FUNCTION.replace("forward(ctx, x)", "forward(x)").replace(
        "        return x\n",
        "        return x\n    @staticmethod\n    def setup_context(ctx, inputs, output):\n        ctx.k = 1\n",
    )
    after = before.replace("        ctx.k = 1\n", "        ctx.mark_dirty(inputs[0])\n        ctx.k = 1\n")
    becomes(before, after, text="x *= 2.0", verdict="cuts")


def test_a_function_out_of_place_and_its_result_used():
    after = FUNCTION.replace("x *= 2.0", "x = x * 2.0").replace("\nDouble.apply(h)", "\nh = Double.apply(h)")
    becomes(FUNCTION, after, text="x *= 2.0", verdict="cuts")


def test_tensors_kept_on_the_context():
    before = """
        class Square(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.x = x
                return x * x
            @staticmethod
            def backward(ctx, g):
                return 2 * g * ctx.x
        y = Square.apply(h)
        h.mul_(2)
        """
    given = {"text": "h.mul_(2)", "verdict": "corrupts", "saved": "Square.apply(h)"}
    becomes(before, before.replace("ctx.x = x", "ctx.x = x.clone()"), **given, node="SquareBackward")
    assert not any(
        "x.clone()\n" in candidate.source for candidate in rewrites(before, **given)
    )  # another node's tensor


def test_a_function_that_writes_for_its_caller_returns_instead():
    becomes(
        "def scale_(h):\n    h.mul_(2)\nscale_(z)\ny = z\n",
        "def scale_(h):\n    h = h.mul(2)\n    return h\nz = scale_(z)\ny = z\n",
        text="h.mul_(2)",
    )


def test_a_hook_returns_its_gradient():
    becomes(
        "def slow(g):\n    g.mul_(0.1)\nh.register_hook(slow)\n",
        "def slow(g):\n    g = g.mul(0.1)\n    return g\nh.register_hook(slow)\n",
        text="g.mul_(0.1)", verdict="corrupts",
    )  # fmt: skip
    becomes(
        "def slow(g):\n    return g.mul_(0.1)\nh.register_hook(slow)\n",
        "def slow(g):\n    return g.mul(0.1)\nh.register_hook(slow)\n",
        text="g.mul_(0.1)", verdict="corrupts",
    )  # fmt: skip


def test_a_hook_returns_its_tuple():
    becomes(
        "def pre(m, args):\n    args[0].mul_(2)\nnet.register_forward_pre_hook(pre)\n",
        "def pre(m, args):\n    return (args[0].mul(2), *args[1:])\nnet.register_forward_pre_hook(pre)\n",
        text="args[0].mul_(2)", tensor="args[0]",
    )  # fmt: skip


def test_gradients_that_are_kept():
    becomes(
        "a.backward()\ng = w.grad\ngs = [p.grad for p in ps]\nb.backward()\n",
        "a.backward()\ng = w.grad.clone()\ngs = [p.grad.clone() for p in ps]\nb.backward()\n",
        text="b.backward()", tensor="w.grad", verdict="corrupts",
    )  # fmt: skip
    becomes(
        "g = w.grad\nopt.zero_grad(set_to_none=False)\n",
        "g = w.grad\nopt.zero_grad()\n",
        text="opt.zero_grad(set_to_none=False)", tensor="w.grad", verdict="corrupts",
    )  # fmt: skip
