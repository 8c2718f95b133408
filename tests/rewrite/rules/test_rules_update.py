"""A leaf's own new value, by `torch.no_grad()`; and writes that stand under it by mistake."""

import pytest
from rules_helper import becomes, rewrites

LEAVES = {
    "statement": ("import torch\nw.mul_(2)\n", "import torch\nwith torch.no_grad():\n    w.mul_(2)\n", "w.mul_(2)"),
    "import added": ("w.mul_(2)", "import torch\nwith torch.no_grad():\n    w.mul_(2)", "w.mul_(2)"),
    "other name of torch": (
        "import torch as th\nw += 1",
        "import torch as th\nwith th.no_grad():\n    w += 1",
        "w += 1",
    ),
    "slot": ("import torch\nw[0] = 1", "import torch\nwith torch.no_grad():\n    w[0] = 1", "w[0]"),
    "view": (
        "import torch\nw.view(-1).mul_(2)",
        "import torch\nwith torch.no_grad():\n    w.view(-1).mul_(2)",
        "w.view(-1).mul_(2)",
    ),
    "comment stays": (
        "import torch\nw.mul_(2)  # twice\n",
        "import torch\nwith torch.no_grad():\n    w.mul_(2)  # twice\n",
        "w.mul_(2)",
    ),
    "in a loop": (
        "import torch\nfor p in ps:\n    p -= lr * p.grad\n",
        "import torch\nfor p in ps:\n    with torch.no_grad():\n        p -= lr * p.grad\n",
        "p -= lr * p.grad",
    ),
    "one-line loop": (
        "import torch\nfor p in ps: p.mul_(2)\n",
        "import torch\nfor p in ps:\n    with torch.no_grad():\n        p.mul_(2)\n",
        "p.mul_(2)",
    ),
    "several on one line": (
        "import torch\na = 1; w.mul_(2); b = 2\n",
        "import torch\na = 1\nwith torch.no_grad():\n    w.mul_(2)\nb = 2\n",
        "w.mul_(2)",
    ),
    "over lines": (
        "import torch\nw.mul_(\n    2,\n)\n",
        "import torch\nwith torch.no_grad():\n    w.mul_(\n        2,\n    )\n",
        "w.mul_(\n    2,\n)",
    ),
    "value used": (
        "import torch\ny = w.mul_(2)\n",
        "import torch\nwith torch.no_grad():\n    w.mul_(2)\ny = w\n",
        "w.mul_(2)",
    ),
    "tabs": (
        "import torch\nif c:\n\tw.mul_(2)\n",
        "import torch\nif c:\n\twith torch.no_grad():\n\t\tw.mul_(2)\n",
        "w.mul_(2)",
    ),
}


@pytest.mark.parametrize(("before", "after", "text"), LEAVES.values(), ids=LEAVES)
def test_a_leaf(before, after, text):
    candidate = becomes(before, after, text=text, tensor="w", leaves=("w",), verdict="rejected")
    assert (candidate.kind, candidate.reading) == ("no_grad", "update")


def test_data_goes():
    before = "import torch\nw.data.mul_(2)\n"
    becomes(before, "import torch\nwith torch.no_grad():\n    w.mul_(2)\n", text="w.data.mul_(2)", verdict="corrupts")
    before = "import torch\nw.data = v\n"
    becomes(before, "import torch\nwith torch.no_grad():\n    w.copy_(v)\n", text="w.data", verdict="corrupts")


@pytest.mark.parametrize("verdict", ["breaks", "corrupts", "cuts"])
def test_no_grad_cures_nothing_but_leaves(verdict):
    assert all(c.kind != "no_grad" for c in rewrites("import torch\nh.mul_(2)\n", text="h.mul_(2)", verdict=verdict))


def test_both_readings_of_a_rejected_write_are_offered():
    found = rewrites(
        "w.mul_(2)\nloss = (w * x).sum()\nloss.backward()\n",
        text="w.mul_(2)", tensor="w", leaves=("w",), verdict="rejected",
    )  # fmt: skip
    assert {candidate.reading for candidate in found} == {"update", "copy"}
    assert found[0].reading == "update"


def test_an_activation_written_under_no_grad_is_taken_out():
    before = """
        import torch
        with torch.no_grad():
            h.mul_(2)
        loss = h.sum()
        """
    becomes(before, "import torch\nh = h.mul(2)\nloss = h.sum()\n", text="h.mul_(2)", verdict="cuts")
    becomes(before, "import torch\nh.mul_(2)\nloss = h.sum()\n", text="h.mul_(2)", verdict="cuts")


def test_a_block_of_several_statements_loses_its_no_grad():
    becomes(
        "import torch\nwith torch.no_grad():\n    s = '''\na'''\n    h.mul_(2)\nloss = h.sum()\n",
        "import torch\ns = '''\na'''\nh.mul_(2)\nloss = h.sum()\n",
        text="h.mul_(2)", verdict="cuts",
    )  # fmt: skip


def test_a_function_loses_its_no_grad():
    becomes(
        "import torch\n@torch.no_grad()\ndef f(h):\n    h.mul_(2)\nf(z)\n",
        "import torch\ndef f(h):\n    h.mul_(2)\nf(z)\n",
        text="h.mul_(2)", verdict="cuts",
    )  # fmt: skip


TOGETHER = {
    "slots": (
        "import torch\nb[:, 0] += 1\nb[:, 1:] = 2\nc = b\n",
        "import torch\nwith torch.no_grad():\n    b[:, 0] += 1\n    b[:, 1:] = 2\nc = b\n",
        "b[:, 0] += 1",
    ),
    "methods, a comment between": (
        "import torch\nfor i in r:\n    b.mul_(2)\n    # and then\n    b[i].add_(1)\n",
        "import torch\nfor i in r:\n    with torch.no_grad():\n        b.mul_(2)\n        # and then\n        b[i].add_(1)\n",
        "b.mul_(2)",
    ),
}


@pytest.mark.parametrize(("before", "after", "text"), TOGETHER.values(), ids=TOGETHER)
def test_writes_of_the_same_leaf_one_below_the_other(before, after, text):
    candidate = becomes(before, after, text=text, tensor="b", leaves=("b",), verdict="rejected")
    assert (candidate.kind, candidate.reading) == ("no_grad", "update")


@pytest.mark.parametrize("below", ["a.add_(1)", "c = b.add(1)", "if b: b.add_(1)"])
def test_what_is_no_write_of_the_leaf_stays_outside(below):
    found = rewrites(
        f"import torch\nb.mul_(2)\n{below}\n", text="b.mul_(2)", tensor="b", leaves=("b",), verdict="rejected"
    )
    assert [c.source for c in found if c.kind == "no_grad"] == [
        f"import torch\nwith torch.no_grad():\n    b.mul_(2)\n{below}\n"
    ]
