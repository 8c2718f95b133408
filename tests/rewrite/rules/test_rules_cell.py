"""The whole cell: magics, strings, displayed values, several writes, bad input."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_helper import becomes, report, rewrites, site

from jupyter_inplace.report import Report
from jupyter_inplace.rewrite.candidates import candidates, combine
from jupyter_inplace.rewrite.syntax.edit import Edit, EditConflictError, apply_edits, edited_lines
from jupyter_inplace.rewrite.syntax.mask import mask
from jupyter_inplace.rewrite.syntax.tree import RewriteError

MAGICS = """%%autograd_watch loss --result r
%matplotlib inline
import torch
!pip list | \\
    grep torch
files = !ls
x.mul_?
%time z = 3
if True:
    %config InlineBackend.figure_format = 'svg'
h.mul_(2)  # what?
text = '''
%not a magic
!nor this
'''
y = (a
  % b)
c = a != b
"""


def test_magics_keep_their_lines():
    masked = mask(MAGICS)
    assert masked.unmask(masked.text) == MAGICS
    ast.parse(masked.text)
    assert masked.text.count("\n") == MAGICS.count("\n")
    for number, (before, after) in enumerate(zip(MAGICS.split("\n"), masked.text.split("\n"), strict=True)):
        if number not in {0, 1, 3, 4, 5, 6, 7, 9}:
            assert before == after
    assert "z = 3" in masked.text
    candidate = becomes(MAGICS, MAGICS.replace("h.mul_(2) ", "h = h.mul(2) "), text="h.mul_(2)")
    assert candidate.diff.count("\n-") == 1
    assert candidate.edited_lines == 1


def test_a_write_inside_of_a_magic():
    cell = "%%autograd_watch\n%time h.mul_(2)\ny = h\n"
    where = site(cell, "%time h.mul_(2)")
    becomes(cell, "%%autograd_watch\n%time h = h.mul(2)\ny = h\n", site=where)
    found = rewrites(cell, site=where, verdict="rejected", leaves=("h",))
    assert "import torch\nwith torch.no_grad():\n    %time h.mul_(2)\ny = h\n" in found[0].source


def test_top_level_await_and_an_unfinished_last_line():
    becomes("await f()\nh.mul_(2)", "await f()\nh = h.mul(2)", text="h.mul_(2)")


PRESERVED = """%%autograd_watch
\"\"\"Docs.\"\"\"
from __future__ import annotations
y = f(h)
note = '''
  kept
'''

h.mul_(2)
y.sum()
"""


def test_preserve_keeps_strings_and_the_displayed_value():
    found = rewrites(PRESERVED, text="h.mul_(2)", saved="f(h)")
    kept = [candidate for candidate in found if candidate.kind == "preserve"]
    assert [candidate.source for candidate in kept] == [
        """%%autograd_watch
\"\"\"Docs.\"\"\"
from __future__ import annotations
import jupyter_inplace
with jupyter_inplace.preserve_saved():
    y = f(h)
    note = '''
  kept
'''

    h.mul_(2)
y.sum()
"""
    ]
    shown = rewrites("y = f(h)\nh.mul_(2)", text="h.mul_(2)", saved="f(h)")[-1]
    assert shown.source == (
        "import jupyter_inplace\nwith jupyter_inplace.preserve_saved():\n    y = f(h)\n    shown = h.mul_(2)\nshown\n"
    )


def test_preserve_reaches_from_function_to_function():
    before = """
        def save(h):
            return f(h)
        def write(h):
            h.mul_(2)
        y = save(z)
        k = 1
        write(z)
        y.backward()
        """
    kept = [c.source for c in rewrites(before, text="h.mul_(2)", saved="f(h)") if c.kind == "preserve"]
    head = "import jupyter_inplace\ndef save(h):\n    return f(h)\ndef write(h):\n    h.mul_(2)\n"
    block = "with jupyter_inplace.preserve_saved():\n    y = save(z)\n    k = 1\n    write(z)\n"
    assert kept == [head + block + "y.backward()\n", head + block + "    y.backward()\n"]


TWO = "y = f(h)\nh.mul_(2)\nz = f(k)\nk.add_(1)\nw = h + k\n"
BOTH = ({"text": "h.mul_(2)", "saved": "f(h)"}, {"text": "k.add_(1)", "tensor": "k", "saved": "f(k)"})


def test_all_writes_at_once():
    found = rewrites(TWO, *BOTH)
    assert found[0].source == TWO.replace("h.mul_(2)", "h = h.mul(2)").replace("k.add_(1)", "k = k.add(1)")
    assert found[0].mutations == (0, 1)
    one = becomes(TWO, TWO.replace("h.mul_(2)", "h = h.mul(2)"), *BOTH)
    assert one.mutations == (0,)
    other = becomes(TWO, TWO.replace("f(k)", "f(k.clone())"), *BOTH)
    joined = combine(TWO, [one, other])
    assert joined.source == TWO.replace("h.mul_(2)", "h = h.mul(2)").replace("f(k)", "f(k.clone())")
    assert joined.mutations == (0, 1)
    assert joined.kind == "out_of_place"


def test_edits_of_one_place_do_not_combine():
    first = becomes(TWO, TWO.replace("h.mul_(2)", "h = h.mul(2)"), *BOTH)
    second = becomes(TWO, TWO.replace("h.mul_(2)", "h = h.clone().mul_(2)"), *BOTH)
    assert combine(TWO, [first, second]) is None


def test_two_mutations_of_one_chain_are_one_write():
    found = rewrites("y = f(h)\nh.mul_(2).add_(1)\n", {"text": "h.mul_(2)"}, {"text": "h.mul_(2).add_(1)"})
    assert found[0].source == "y = f(h)\nh = h.mul(2).add(1)\n"
    assert found[0].mutations == (0, 1)


def test_new_names_avoid_those_of_the_namespace():
    cell = "w.add_(1)\ny = w\n"
    given = report(cell, {"text": "w.add_(1)", "tensor": "w", "leaves": ("w",), "verdict": "rejected"})
    sources = [candidate.source for candidate in candidates(cell, given, taken={"w_new", "torch"})]
    assert "w_new2 = w.add(1)\ny = w_new2\n" in sources
    assert "with torch.no_grad():\n    w.add_(1)\ny = w\n" in sources  # torch is known: no import


def test_without_a_harmful_write_nothing_is_offered():
    assert candidates("h.mul_(2)\n", Report()) == ()
    assert rewrites("h.mul_(2)\n", text="h.mul_(2)", verdict="harmless") == ()
    assert rewrites("h.mul_(2)\n", text="h.mul_(2)", verdict="mixes") == ()


def test_without_a_rule_nothing_is_offered():
    assert rewrites("del x[0]\n", text="del x[0]") == ()


@pytest.mark.parametrize("cell", ["h.mul_(\n", "h = = 2\n", "%%time\nfor x in y\n    pass\n", "\tx\n  y\n"])
def test_a_cell_that_is_no_python(cell):
    with pytest.raises(RewriteError) as caught:
        candidates(cell, Report())
    assert str(caught.value).count("\n") == 0
    assert "of the cell is no Python" in str(caught.value)


def test_edits():
    assert apply_edits("abc", [Edit(1, 2, "X"), Edit(0, 0, ">"), Edit(0, 0, ">"), Edit(3, 3, "<")]) == ">aXc<"
    with pytest.raises(EditConflictError):
        apply_edits("abc", [Edit(0, 2, ""), Edit(1, 3, "")])
    assert edited_lines("a\nb\nc\n", "a\nB\nB\nc\n") == 2
    assert edited_lines("a\nb\n", "a\n") == 1


WRITES = st.sampled_from(
    ["h.mul_(2)", "h += k", "h[0] = k", "h[i] += f(h)", "h.data.mul_(k)", "h.view(-1).add_(f(h))", "h.zero_()", "F.relu_(h)",
     "F.dropout(h, .5, True, True)", "torch.mul(h, k, out=h)", "opt.step()", "model(h)", "self.h.mul_(2)", "h.d[0] += 1",
     "h.mul_(2).add_(1)", "g(h.mul_(2))", "h.requires_grad_(False)", "h.data = k", "hs[i].mul_(f(k))"]
)  # fmt: skip
STATEMENTS = st.sampled_from(
    ["{}", "y = {}", "return_({})", "({})", "a = 1; {}; b = 2", "y = [{} for i in r]", "y = lambda h: {}", "{}  # note",
     "print(f'{{k}}', {})", "y = h = {}", "assert {}", "y[{}] = 1", "del y; {}", "({}, 1)"]
)  # fmt: skip
FRAMES = st.sampled_from(
    ["{}", "for i in r:\n    {}\n    y = h", "if k: {}", "while k:\n\t{}", "def f(h, k=1):\n    '''Doc.'''\n    {}\n    return h\nf(z)",
     "class C(nn.Module):\n  def forward(self, h):\n    y = h * h\n    {}\n    return h\nc = C()\ny = c(z)",
     "with torch.no_grad():\n    {}", "try:\n    {}\nfinally:\n    pass", "for h in hs: {}", "for i, h in enumerate(hs):\n    {}\n    k = h",
     "def f():\n  def g():\n    nonlocal k\n    {}\n  k = 1\n  g()", "h = x.detach()\n{}\ny = h", "h, k = x.unsafe_chunk(2)\n{}",
     "async def f(h):\n    {}\n    await k", "%time {}", "lines = !ls\n{}", "s = '''\n%x\n'''; {}"]
)  # fmt: skip


@given(WRITES, STATEMENTS, FRAMES, st.sampled_from(["rejected", "breaks", "corrupts", "cuts"]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_rewritten_cell_always_parses(write, statement, frame, verdict, leaf):
    cell = "%%autograd_watch\ny = f(h)\n" + frame.format(statement.format(write)) + "\nloss = a + b\nloss.backward()\n"
    try:
        ast.parse(mask(cell).text)
    except SyntaxError:
        return  # this write is no expression in this place
    hit = {"verdict": verdict, "leaves": ("h",) if leaf else (), "tasks": ("a",)}
    found = rewrites(cell, text=write, saved="f(h)", **hit)
    assert len({candidate.source for candidate in found}) == len(found)
    for candidate in found:
        ast.parse(mask(candidate.source).text)
        assert candidate.source.startswith("%%autograd_watch\n")
        assert candidate.source != cell
        assert candidate.diff
        assert candidate.edited_lines > 0
        assert "\n" not in candidate.title
