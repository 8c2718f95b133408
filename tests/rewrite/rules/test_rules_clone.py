"""Copies: at the write, at the binding, at the save, at the call."""

import pytest
from rules_helper import becomes, rewrites

AT_THE_WRITE = {
    "method": ("h.mul_(2)", "h = h.clone().mul_(2)", "h.mul_(2)"),
    "method that reads itself": ("h.add_(f(h))", "h = h.clone().add_(f(h))", "h.add_(f(h))"),
    "value": ("y = h.mul_(2)\nz = h", "y = h = h.clone().mul_(2)\nz = h", "h.mul_(2)"),
    "augmented": ("h += r", "h = h.clone()\nh += r", "h += r"),
    "augmented that reads itself": ("h += f(h)", "value = f(h)\nh = h.clone()\nh += value", "h += f(h)"),
    "slot": ("x[i] = 0", "x = x.clone()\nx[i] = 0", "x[i]"),
    "slot that reads itself": (
        "x[i] = f(x[i - 1])",
        "value = f(x[i - 1])\nx = x.clone()\nx[i] = value",
        "x[i]",
    ),
    "slot, comment stays": ("x[i] = 0  # first", "x = x.clone()\nx[i] = 0  # first", "x[i]"),
    "augmented slot": (
        "x[:, i] += f(x[:, j])",
        "value = x[:, i] + f(x[:, j])\nx = x.clone()\nx[:, i] = value",
        "x[:, i] += f(x[:, j])",
    ),
    "view": ("K.diagonal().add_(e)", "K = K.clone()\nK.diagonal().add_(e)", "K.diagonal().add_(e)"),
    "view, argument reads it": (
        "K.diagonal().add_(f(K))",
        "value = f(K)\nK = K.clone()\nK.diagonal().add_(value)",
        "K.diagonal().add_(f(K))",
    ),
    "attribute": ("self.bank[:, i] = k", "self.bank = self.bank.clone()\nself.bank[:, i] = k", "self.bank[:, i]"),
    "one-line loop": ("for i in r: x[i] = 0", "for i in r: x = x.clone(); x[i] = 0", "x[i]"),
    "several on one line": ("a = 1; x[0] = 0", "a = 1; x = x.clone(); x[0] = 0", "x[0]"),
    "out into a view": ("torch.mul(a, b, out=c[0])", "c = c.clone()\ntorch.mul(a, b, out=c[0])", "torch.mul(a, b, out=c[0])"),
    "several targets": ("a[0], b = b, a[0]", "value = b, a[0]\na = a.clone()\na[0], b = value", "a[0]"),
    "value over lines": (
        "x[0] = (f(x) +\n        1)",
        "value = (f(x) +\n        1)\nx = x.clone()\nx[0] = value",
        "x[0]",
    ),
    "name of the value is taken": ("x[0] = f(value)", "value2 = f(value)\nx = x.clone()\nx[0] = value2", "x[0]"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "text"), AT_THE_WRITE.values(), ids=AT_THE_WRITE)
def test_at_the_write(before, after, text):
    assert becomes(before, after, text=text).kind == "clone"


IN_VIEW = {
    "a slot of .data": ("h.data[i] = 0", "h = h.clone()\nh[i] = 0", "h.data[i]"),
    "a slot of a detached alias, augmented": (
        "h.detach()[m] *= f(h)",
        "value = h[m] * f(h)\nh = h.clone()\nh[m] = value",
        "h.detach()[m] *= f(h)",
    ),
    "a view of .data, argument reads it": (
        "h.data.view(-1).add_(f(h))",
        "value = f(h)\nh = h.clone()\nh.view(-1).add_(value)",
        "h.data.view(-1).add_(f(h))",
    ),
    ".data of a slot": ("x[0].data.zero_()", "x = x.clone()\nx[0].zero_()", "x[0].data.zero_()"),
}


@pytest.mark.parametrize("verdict", ["corrupts", "cuts"])
@pytest.mark.parametrize(("before", "after", "text"), IN_VIEW.values(), ids=IN_VIEW)
def test_at_the_write_and_in_view_of_autograd(before, after, text, verdict):
    assert becomes(before, after, text=text, verdict=verdict).kind == "clone"


BINDINGS = {
    "detached": ("a = p.detach()\na.zero_()", "a = p.detach().clone()\na.zero_()", "a.zero_()"),
    "plain alias": ("a = p\na.mul_(2)", "a = p.clone()\na.mul_(2)", "a.mul_(2)"),
    "view": ("flat = x.view(-1)\nflat[0] = 1", "flat = x.view(-1).clone()\nflat[0] = 1", "flat[0]"),
    "expanded": ("e = x.expand(3, 4)\ne.add_(1)", "e = x.expand(3, 4).clone()\ne.add_(1)", "e.add_(1)"),
    "array out of a tensor": (
        "a = h.detach().numpy()\na[0] = 1",
        "a = h.detach().numpy().copy()\na[0] = 1",
        "a[0]",
    ),
    "array over the CPU": (
        "a = h.detach().cpu().numpy()\na *= 2",
        "a = h.detach().cpu().numpy().copy()\na *= 2",
        "a *= 2",
    ),
    "array by numpy": ("a = np.asarray(h)\na += 1", "a = np.asarray(h).copy()\na += 1", "a += 1"),
    "tensor from an array": ("x = torch.from_numpy(a)\na[0] = 1", "x = torch.from_numpy(a.copy())\na[0] = 1", "a[0]"),
    "two steps": (
        "d = h.detach()\na = d.view(-1)\na.zero_()",
        "d = h.detach().clone()\na = d.view(-1)\na.zero_()",
        "a.zero_()",
    ),
}


@pytest.mark.parametrize(("before", "after", "text"), BINDINGS.values(), ids=BINDINGS)
def test_at_the_binding(before, after, text):
    assert becomes(before, after, text=text, op="external").kind == "clone"


def test_the_views_are_made_again():
    becomes(
        "x = torch.from_numpy(a)\ny = x @ w\na[0] = 1\nz = x @ w",
        "x = torch.from_numpy(a)\ny = x @ w\na = a.copy()\na[0] = 1\nx = torch.from_numpy(a)\nz = x @ w",
        text="a[0]", tensor="x", op="external",
    )  # fmt: skip


def test_the_tensor_behind_a_view_is_copied_before_the_view_is_made():
    becomes(
        "h = w.exp()\nflat = h.view(-1)\nflat[0] = 0\nloss = h.sum()",
        "h = w.exp()\nh = h.clone()\nflat = h.view(-1)\nflat[0] = 0\nloss = h.sum()",
        text="flat[0]", tensor="flat",
    )  # fmt: skip


def test_items_of_containers_are_not_slots_of_tensors():
    item = {"text": 'd["m"].add_(1)', "tensor": 'd["m"]'}
    becomes('d["m"].add_(1)', 'd["m"] = d["m"].add(1)', **item)
    becomes('d["m"].add_(1)', 'd["m"] = d["m"].clone().add_(1)', **item)
    becomes('d["m"][0] = 1', 'd["m"] = d["m"].clone()\nd["m"][0] = 1', text='d["m"][0]', tensor='d["m"]')
    assert not any("d.clone()" in candidate.source for candidate in rewrites('d["m"].add_(1)', **item))
    slot = {"text": "h[0].add_(1)", "tensor": "h"}
    becomes("h[0].add_(1)", "h = h.clone()\nh[0].add_(1)", **slot)
    assert not any("h[0] = " in candidate.source for candidate in rewrites("h[0].add_(1)", **slot))


def test_the_tensor_behind_a_detached_alias():
    becomes(
        "a = h.detach()\na.mul_(2)\nloss = h.sum()",
        "a = h.detach()\nh = h.mul(2)\na = h.detach()\nloss = h.sum()",
        text="a.mul_(2)", tensor="h", verdict="cuts",
    )  # fmt: skip


SAVES = {
    "operand": ("y = h * s(h)\nh.mul_(2)", "y = h.clone() * s(h)\nh.mul_(2)", "h * s(h)", "self"),
    "every operand": ("y = 3 * h * h\nh.mul_(2)", "y = 3 * h.clone() * h.clone()\nh.mul_(2)", "3 * h * h", "self"),
    "argument": ("y = ln(h)\nh.mul_(2)", "y = ln(h.clone())\nh.mul_(2)", "ln(h)", "input"),
    "receiver": ("y = h.pow(2)\nh.mul_(2)", "y = h.clone().pow(2)\nh.mul_(2)", "h.pow(2)", "self"),
    "view": ("y = h[0] @ w\nh.mul_(2)", "y = h[0].clone() @ w\nh.mul_(2)", "h[0] @ w", "self"),
    "output": ("h = x.exp()\nh.mul_(2)", "h = x.exp().clone()\nh.mul_(2)", "x.exp()", "result"),
    "output inside": ("y = f(x.exp())\nh.mul_(2)", "y = f(x.exp().clone())\nh.mul_(2)", "x.exp()", "result"),
    "output of an operator": ("h = x / y\nh.mul_(2)", "h = (x / y).clone()\nh.mul_(2)", "x / y", "result"),
}


@pytest.mark.parametrize(("before", "after", "saved", "saved_as"), SAVES.values(), ids=SAVES)
def test_at_the_save(before, after, saved, saved_as):
    assert becomes(before, after, text="h.mul_(2)", saved=saved, saved_as=saved_as).kind == "clone"


def test_a_buffer_saved_by_a_module_that_then_pushes_to_it():
    becomes(
        """
        def forward(self, q, k):
            neg = torch.einsum("nc,ck->nk", q, self.bank)
            self.bank[:, 0] = k
            return neg
        """,
        """
        def forward(self, q, k):
            neg = torch.einsum("nc,ck->nk", q, self.bank.clone())
            self.bank[:, 0] = k
            return neg
        """,
        text="self.bank[:, 0]", tensor="net.bank", saved='torch.einsum("nc,ck->nk", q, self.bank)',
    )  # fmt: skip


def test_several_savers_at_once():
    becomes(
        "y = f(h)\nz = g(h)\nh.mul_(2)",
        "y = f(h.clone())\nz = g(h.clone())\nh.mul_(2)",
        text="h.mul_(2)", saved=["f(h)", "g(h)"],
    )  # fmt: skip


MODEL = """
class Scale(nn.Module):
    def forward(self, x, *, k=2):
        x *= k
        return x
model = Scale()
y = model({given})
"""


@pytest.mark.parametrize(
    ("given", "copied"), [("h", "h.clone()"), ("a + b", "(a + b).clone()"), ("x=h", "x=h.clone()")]
)
def test_at_the_call_of_a_module_of_the_cell(given, copied):
    becomes(MODEL.format(given=given), MODEL.format(given=copied), text="x *= k", verdict="rejected")


def test_at_the_calls_of_a_function():
    before = "def scale(x, k):\n    v = x.view(-1)\n    v.mul_(k)\na = scale(h, 2)\nb = scale(k=3, x=g)\n"
    one = before.replace("scale(h, 2)", "scale(h.clone(), 2)")
    becomes(before, one, text="v.mul_(k)")
    becomes(before, one.replace("x=g", "x=g.clone()"), text="v.mul_(k)")


def test_at_the_call_into_a_library():
    cell = "y = model(embeds, mask).sum()\n"
    from jupyter_inplace.report import Site

    elsewhere = Site(file="model.py", line=1, text="x *= 2", line_text="x *= 2", function="forward", cell_line=1)
    becomes(cell, "y = model(embeds.clone(), mask).sum()\n", site=elsewhere, tensor="embeds", verdict="rejected")


def test_no_copy_of_a_constant():
    found = rewrites("opt.zero_grad(False, None)\n", text="opt.zero_grad(False, None)", tensor="w.grad")
    assert not [c.title for c in found if "False.clone" in c.source or "None.clone" in c.source]


def test_a_write_reached_through_an_unknown_line_offers_nothing():
    from jupyter_inplace.report import Site

    elsewhere = Site(file="model.py", line=3, text="x *= 2", line_text="x *= 2", cell_line=None)
    assert rewrites("y = model(x)\n", site=elsewhere) == ()
