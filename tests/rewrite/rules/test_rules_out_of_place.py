"""``h.mul_(2)`` becomes ``h = h.mul(2)``, in every place that Python has for it."""

import pytest
from rules_helper import becomes, rewrites

CASES = {
    "statement": ("h.mul_(2)", "h = h.mul(2)", "h.mul_(2)"),
    "comment and layout stay": ("h.mul_( 2 )  # scale", "h = h.mul( 2 )  # scale", "h.mul_( 2 )"),
    "attribute": ("self.h.mul_(2)", "self.h = self.h.mul(2)", "self.h.mul_(2)"),
    "augmented": ("h += r", "h = h + r", "h += r"),
    "augmented, weaker operator inside": ("h *= a + b", "h = h * (a + b)", "h *= a + b"),
    "augmented, stronger operator inside": ("h -= lr * g", "h = h - lr * g", "h -= lr * g"),
    "augmented, matrix product": ("h @= w", "h = h @ w", "h @= w"),
    "augmented, parentheses": ("h -= (a - b)", "h = h - (a - b)", "h -= (a - b)"),
    "augmented over lines": ("h += (a +\n      b)", "h = h + (a +\n      b)", "h += (a +\n      b)"),
    "chain": ("h.mul_(2).add_(1)", "h = h.mul(2).add(1)", "h.mul_(2).add_(1)"),
    "chain, first part seen": ("h.mul_(2).add_(1)", "h = h.mul(2).add(1)", "h.mul_(2)"),
    "chain over lines": ("(h\n  .mul_(2)\n  .add_(1))", "h = (h\n  .mul(2)\n  .add(1))", "h\n  .mul_(2)\n  .add_(1)"),
    "shape only": ("h.unsqueeze_(0)", "h = h.unsqueeze(0)", "h.unsqueeze_(0)"),
    "assigned to itself": ("h = h.mul_(2)", "h = h.mul(2)", "h.mul_(2)"),
    "assigned": ("y = h.mul_(2)\nz = h", "y = h = h.mul(2)\nz = h", "h.mul_(2)"),
    "assigned, not read later": ("y = h.mul_(2)", "y = h.mul(2)", "h.mul_(2)"),
    "argument": ("y = f(h.mul_(2))\nz = h", "y = f((h := h.mul(2)))\nz = h", "h.mul_(2)"),
    "condition": ("if h.mul_(2).sum() > 0:\n    z = h", "if (h := h.mul(2)).sum() > 0:\n    z = h", "h.mul_(2)"),
    "of an intermediate": ("y = f(x).mul_(2)", "y = f(x).mul(2)", "f(x).mul_(2)"),
    "lambda": ("hook = lambda g: g.mul_(2)", "hook = lambda g: g.mul(2)", "g.mul_(2)"),
    "comprehension": ("ys = [t.mul_(2) for t in ts]", "ys = [t.mul(2) for t in ts]", "t.mul_(2)"),
    "comprehension as a statement": ("[t.mul_(2) for t in ts]", "ts = [t.mul(2) for t in ts]", "t.mul_(2)"),
    "several on one line": ("a = 1; h.mul_(2); b = 2", "a = 1; h = h.mul(2); b = 2", "h.mul_(2)"),
    "one-line suite": ("if c: h.mul_(2)", "if c: h = h.mul(2)", "h.mul_(2)"),
    "one-line loop": ("for i in r: h.mul_(i)", "for i in r: h = h.mul(i)", "h.mul_(i)"),
    "zero": ("h.zero_()", "import torch\nh = torch.zeros_like(h)", "h.zero_()"),
    "fill": ("import torch\nh.fill_(3)", "import torch\nh = torch.full_like(h, 3)", "h.fill_(3)"),
    "noise": ("import torch as th\ne.normal_()", "import torch as th\ne = th.randn_like(e)", "e.normal_()"),
    "noise with parameters": (
        "import torch\ne.normal_(0, 2)",
        "import torch\ne = torch.empty_like(e).normal_(0, 2)",
        "e.normal_(0, 2)",
    ),
    "copy": ("import torch\nh.copy_(x)", "import torch\nh = torch.empty_like(h).copy_(x)", "h.copy_(x)"),
    "function": ("F.relu_(h)", "h = F.relu(h)", "F.relu_(h)"),
    "function of torch": ("torch.relu_(h)", "h = torch.relu(h)", "torch.relu_(h)"),
    "function by its name": ("relu_(h)", "h = relu(h)", "relu_(h)"),
    "lists of tensors": ("torch._foreach_mul_(ps, 2)", "ps = torch._foreach_mul(ps, 2)", "torch._foreach_mul_(ps, 2)"),
    "flag": ("y = F.relu(h, inplace=True)", "y = F.relu(h)", "F.relu(h, inplace=True)"),
    "flag, value thrown away": ("F.relu(h, inplace=True)", "h = F.relu(h)", "F.relu(h, inplace=True)"),
    "flag by position": ("F.dropout(h, p, True, True)", "h = F.dropout(h, p, True)", "F.dropout(h, p, True, True)"),
    "flag first of the keywords": (
        "y = F.leaky_relu(h, inplace=True, negative_slope=s)",
        "y = F.leaky_relu(h, negative_slope=s)",
        "F.leaky_relu(h, inplace=True, negative_slope=s)",
    ),
    "out": ("torch.mul(a, b, out=h)", "h = torch.mul(a, b)", "torch.mul(a, b, out=h)"),
    "out, value used": (
        "y = torch.mul(a, b, out=h)\nz = h",
        "y = h = torch.mul(a, b)\nz = h",
        "torch.mul(a, b, out=h)",
    ),
    "data of an activation": ("h.data -= lr * g", "h = h - lr * g", "h.data -= lr * g"),
    "data, without gradient": ("h.data -= lr * g", "h = h.detach() - lr * g", "h.data -= lr * g"),
    "item of a list": ("hs[0].mul_(2)", "hs[0] = hs[0].mul(2)", "hs[0].mul_(2)"),
    "unicode before it": ("é = 'ß'; h.mul_(2)", "é = 'ß'; h = h.mul(2)", "h.mul_(2)"),
}


@pytest.mark.parametrize(("before", "after", "text"), CASES.values(), ids=CASES)
def test_before_and_after(before, after, text):
    candidate = becomes(before, after, text=text)
    assert candidate.kind == "out_of_place"
    assert candidate.mutations == (0,)
    assert candidate.reading is None


def test_a_name_of_the_cell_used_in_a_function():
    before = """
        def sample():
            eps.normal_()
            return mu + eps * sigma
        """
    becomes(
        before,
        """
        import torch
        def sample():
            eps_new = torch.randn_like(eps)
            return mu + eps_new * sigma
        """,
        text="eps.normal_()",
    )
    becomes(
        before,
        """
        import torch
        def sample():
            global eps
            eps = torch.randn_like(eps)
            return mu + eps * sigma
        """,
        text="eps.normal_()",
    )


def test_a_name_of_an_outer_function():
    becomes(
        """
        def outer(h):
            def inner():
                "Scales."
                h.mul_(2)
            inner()
            return h
        """,
        """
        def outer(h):
            def inner():
                "Scales."
                nonlocal h
                h = h.mul(2)
            inner()
            return h
        """,
        text="h.mul_(2)",
    )


def test_a_leaf_keeps_its_name_and_its_gradient():
    candidate = becomes(
        """
        w.add_(1)
        loss = (w * x).sum()
        loss.backward()
        print(w.grad)
        """,
        """
        w_new = w.add(1)
        loss = (w_new * x).sum()
        loss.backward()
        print(w.grad)
        """,
        text="w.add_(1)", tensor="w", leaves=("w",), verdict="rejected",
    )  # fmt: skip
    assert candidate.reading == "copy"


def test_a_leaf_in_a_loop_gets_its_new_name_before_the_loop():
    becomes(
        """
        for x in xs:
            loss = (w * x).sum()
            loss.backward()
            w -= lr * w.grad
        print(w)
        """,
        """
        w_new = w
        for x in xs:
            loss = (w_new * x).sum()
            loss.backward()
            w_new = w_new - lr * w.grad
        print(w_new)
        """,
        text="w -= lr * w.grad", tensor="w", leaves=("w",), verdict="rejected",
    )  # fmt: skip


def test_a_new_name_is_no_name_of_the_cell():
    found = rewrites(
        "w_new = 1\nw.add_(w_new)\ny = w", text="w.add_(w_new)", tensor="w", leaves=("w",), verdict="rejected"
    )
    assert any("w_new2 = w.add(w_new)\ny = w_new2" in candidate.source for candidate in found)


def test_data_is_never_proposed():
    for before, text in (("w.mul_(2)\ny = w", "w.mul_(2)"), ("w.data.mul_(2)\ny = w", "w.data.mul_(2)")):
        for verdict in ("rejected", "breaks", "corrupts", "cuts"):
            for candidate in rewrites(before, text=text, tensor="w", leaves=("w",), verdict=verdict):
                added = [line for line in candidate.diff.splitlines() if line.startswith("+") and ".data" in line]
                # The original .data write may stand in a moved or nested line, but no line gets a new one.
                assert all(".data.mul_(2)" in line and ".data" in text for line in added)
