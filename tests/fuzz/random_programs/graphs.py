"""Random graphs: what a program begins with, and the operations that it is made of.

Every operation is smooth and keeps numbers near one, so that differences are sharp; few have a kink.
"""

from __future__ import annotations

from random_programs.draft import Draft

# Operations whose backward reads neither operand {a} nor the result: writing {a} before or the result after harms nothing here.
PLAIN = (
    "{a} + {b}", "{a} - {b}", "{a} * 0.5", "{a} * {c}", "{a} - {a}.mean(0, keepdim=True)", "{a}.cumsum(0) * 0.5", "torch.roll({a}, 1, 0) + {b}",
    "torch.cat([{a}[:1], {b}[1:]])", "torch.where({c} > 1.0, {a}, {b})", "{a}.flip(1) + {c}", "(0.5 * {a}).add({b}, alpha=0.3)",
    "torch.stack([{a}, {b}]).sum(0)", "{a}[:, [%s]] + {b}", "{a}.lerp({b}, 0.3)", "{a}.t().contiguous().t() + {b}",
)  # fmt: skip
# Operations whose backward reads {a}, and gives another gradient where {a} is another.
SAVES_INPUT = (
    "{a}.sin()", "torch.cos({a})", "{a}.pow(2)", "{a} ** 3 * 0.3", "{a} * {v}", "{v} * {a}", "{v} / ({a} * {a} + 1.5)", "F.softplus({a})",
    "F.gelu({a})", "F.silu({a})", "torch.log1p({a} * {a})", "torch.erf({a})", "torch.atan({a})", "torch.addcmul({v}, {a}, {v})",
    "F.layer_norm({a}.tanh() + {a}.pow(2) + {c}, (%d,))", "F.mse_loss({a}, {v}, reduction='none')", "torch.hypot({a}, {c})", "{a} * {a}.sum(1, keepdim=True)",
)  # fmt: skip
SAVES_INPUT_OF_SQUARE = (
    "{a} @ {m}", "torch.einsum('ij,jk->ik', {a}, {m})", "F.linear({a}, {m})", "torch.addmm({v}, {a}, {m})",
)  # fmt: skip
# Operations whose backward reads the result, which is fresh memory.
SAVES_RESULT = (
    "torch.exp({a} * 0.5)", "{a}.tanh()", "torch.sigmoid({a})", "{a}.softmax(1)", "torch.sqrt({a} * {a} + 0.5)", "torch.rsqrt({a} * {a} + 0.7)",
    "(1.5 + {a} * {a}).reciprocal()", "{a}.log_softmax(0)", "torch.expm1({a} * 0.5)",
)  # fmt: skip
VIEWS = (
    "{a}.view(-1).view(R, C)",
    "{a}.t().t()",
    "{a}[:]",
    "{a}.unsqueeze(0).squeeze(0)",
    "{a}.view_as({a})",
    "{a}.reshape(R, C)",
)
LOSSES = (
    "{a}.sum()", "{a}.mean()", "{a}.pow(2).mean()", "({a} * {c}).sum()", "F.mse_loss({a}, {c})", "torch.logsumexp({a}.flatten(), 0)",
    "{a}.sin().sum()", "({a} - {c}).pow(2).sum() * 0.5", "F.smooth_l1_loss({a}, {c}, beta=20.0)", "loss_of({a}, {c})", "{a}.norm()",
)  # fmt: skip


def begin(d: Draft, modules: bool = True, imports: str = "") -> None:
    """The head of a program: its leaves, constants, functions and modules."""
    d.add("import torch", "import torch.nn as nn", "import torch.nn.functional as F", *imports.splitlines())
    d.add(
        "torch.set_default_dtype(torch.float64)",
        f"torch.manual_seed({d.rng.randint(0, 999)})",
        f"R, C = {d.rows}, {d.columns}",
    )
    for _ in range(d.rng.randint(2, 3)):
        w = d.name("w")
        d.add(f"{w} = torch.randn(R, C, requires_grad=True)")
        d.oracle(f"leaf({w})")
        d.leaves.append(w)
    for _ in range(d.rng.randint(1, 2)):
        m = d.name("m")
        d.add(f"{m} = (torch.randn(C, C) * 0.6).requires_grad_()")
        d.oracle(f"leaf({m})")
        d.square.append(m)
    for _ in range(2):
        c = d.name("c")
        d.add(f"{c} = torch.rand(R, C) + {d.number(0.5, 0.7)}")
        d.constants.append(c)
    with d.block("def loss_of(out, target):"):
        d.add(d.pick(("error = out - target", "error = (out - target) * 0.7")))
        d.add(
            d.pick(
                (
                    "return (error * error).mean()",
                    "return error.pow(2).sum()",
                    "return torch.sqrt(error * error + 0.1).sum()",
                )
            )
        )
    if d.chance(0.5):
        _function(d)
    if modules and d.chance(0.6):
        _module(d)


def _function(d: Draft) -> None:
    f = d.name("f")
    with d.block(f"def {f}(a, b):"):
        first = d.pick(SAVES_INPUT + SAVES_RESULT + PLAIN[:4])
        d.add(f"r = {_fill(d, first, a='a', v='b', b='b')}")
        if d.chance(0.4):
            d.add("r = r * 0.8" if d.chance(0.5) else "r = r[:1] * 0.3 + r")
        d.add(d.pick(("return r", "return r + a", "return torch.tanh(r)")))
    d.functions.append(f)


def _module(d: Draft) -> None:
    net = d.name("net")
    kind = d.pick(("linear", "sequential", "class"))
    if kind == "linear":
        d.add(f"{net} = nn.Linear(C, C)")
    elif kind == "sequential":
        act = d.pick(("nn.Tanh()", "nn.Sigmoid()", "nn.Softplus()", "nn.GELU()"))
        d.add(f"{net} = nn.Sequential(nn.Linear(C, C), {act}, nn.Linear(C, C))")
    else:
        block = d.name("Block")
        with d.block(f"class {block}(nn.Module):"):
            with d.block("def __init__(self):"):
                d.add(
                    "super().__init__()",
                    "self.inner = nn.Linear(C, C)",
                    "self.gain = nn.Parameter(torch.rand(C) + 0.5)",
                )
            with d.block("def forward(self, x):"):
                d.add(
                    d.pick(
                        ("h = torch.tanh(self.inner(x))", "h = self.inner(x).sigmoid()", "h = F.silu(self.inner(x))")
                    )
                )
                d.add(d.pick(("return x + h * self.gain", "return h * self.gain", "return h * self.gain + 0.2 * x")))
        d.add(f"{net} = {block}()")
    d.oracle(f"leaf({net})")
    d.modules.append(net)


def _fill(d: Draft, template: str, **given: str) -> str:
    """A template with its places filled: {a} {v} values with a graph, {b} a value or constant, {c} a constant, {m} a square leaf."""
    if "%d" in template:
        template = template % d.columns
    if "%s" in template:
        order = list(range(d.columns))
        d.rng.shuffle(order)
        template %= ", ".join(map(str, order))
    places = {"c": d.pick(d.constants), "m": d.pick(d.square)}
    if d.leaves:
        places["a"] = given.get("a") or d.value()
        others = [x for x in (*d.values, *d.leaves) if x != places["a"]]
        places |= {"v": d.pick(others), "b": d.pick([*others, *d.constants])}  # a - a would be a constant
    return template.format(**{**places, **given})


def make(d: Draft, templates: tuple[str, ...], **given: str) -> str:
    """Add ``name = operation`` and return the name, which is not offered to other operations yet."""
    t = d.name("t")
    d.add(f"{t} = {_fill(d, d.pick(templates), **given)}")
    return t


def expression(d: Draft, templates: tuple[str, ...], **given: str) -> str:
    return _fill(d, d.pick(templates), **given)


def save(d: Draft, a: str) -> str:
    """Add an operation whose backward reads `a`; returns the result."""
    if d.modules and d.chance(0.15):
        t = d.name("t")
        d.add(f"{t} = {d.pick(d.modules)}({a})")
        return t
    if d.chance(0.25):
        return make(d, SAVES_INPUT_OF_SQUARE, a=a)
    return make(d, SAVES_INPUT, a=a)


def grow(d: Draft, least: int = 0, most: int = 3) -> None:
    """Add some random operations; their results are in scope."""
    for _ in range(d.rng.randint(least, most)):
        _grow_once(d)


def _grow_once(d: Draft) -> None:
    kinds = ["plain", "input", "result", "square", "view", "slots", "noise", "loop"]
    kinds += ["function"] * 2 * bool(d.functions) + ["module"] * 2 * bool(d.modules)
    kind = d.pick(kinds)
    if kind == "function":
        t = d.name("t")
        d.add(f"{t} = {d.pick(d.functions)}({d.value()}, {d.value()})")
    elif kind == "module":
        t = d.name("t")
        d.add(f"{t} = {d.pick(d.modules)}({d.value()})")
    elif kind == "loop":
        t = make(d, ("{a}.tanh()", "{a} * 0.5"))
        with d.block(f"for _ in range({d.rng.randint(2, 3)}):"):
            d.add(
                f"{t} = {expression(d, ('torch.tanh({a} @ {m} + {b})', '{a} + 0.3 * torch.sin({a})', '{a}.sigmoid() * {v}'), a=t)}"
            )
    elif kind == "slots":  # recorded writes into memory that nobody has saved
        t = d.name("t")
        a, b = d.value(), d.value()
        d.add(f"{t} = torch.zeros(R, C)", f"{t}[0] = {a}[-1]", f"{t}[1:] = {b}[1:] * {d.number(0.5, 0.8)}")
    elif kind == "noise":  # a recorded write to fresh memory, and one to a number that is only shown
        t = make(d, ("{a} + {b}", "{a} - {b}"))
        d.add(
            d.pick(
                (
                    f"{t}.mul_(0.7)",
                    f"{t} += {d.pick(d.constants)}",
                    f"{t}[0].neg_()",
                    f"{t}.add_({d.value()}, alpha=0.2)",
                )
            )
        )
    else:
        t = make(
            d,
            {
                "plain": PLAIN,
                "input": SAVES_INPUT,
                "result": SAVES_RESULT,
                "square": SAVES_INPUT_OF_SQUARE,
                "view": VIEWS,
            }[kind],
        )
    d.values.append(t)


def fresh(d: Draft) -> str:
    """A value in memory of its own that nothing has saved so far. Not offered to other operations."""
    return make(d, PLAIN[:8])


def loss(d: Draft, out: str, more: bool = True) -> str:
    """Add a scalar of `out`, now and then with another value in it; returns its name."""
    if more and d.values and d.chance(0.3):
        mixed = d.name("t")
        d.add(f"{mixed} = {out} + 0.5 * {d.pick(d.values)}")
        out = mixed
    name = d.name("loss")
    d.add(f"{name} = {expression(d, LOSSES, a=out)}")
    return name
