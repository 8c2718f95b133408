"""Lines of a source end where Python ends them: at LF, CR LF and CR alone."""

from __future__ import annotations

import ast

import pytest

from jupyter_inplace._syntax import source_lines

# What `str.splitlines` takes for a line's end and Python does not.
OTHERS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_ends_of_python(end):
    assert source_lines(f"a{end}{end}b{end}") == ["a", "", "b"]
    assert source_lines(f"a{end}b", keepends=True) == [f"a{end}", "b"]


def test_mixed_ends_and_none():
    assert source_lines("a\r\nb\rc\n\nd") == ["a", "b", "c", "", "d"]
    assert source_lines("") == []


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_else_ends_a_line(other):
    source = f"a = 'x{other}y'\nb = 1\n"
    assert len(source_lines(source)) == 2
    assert ast.parse(source).body[1].lineno == 2


@pytest.mark.parametrize("other", OTHERS)
def test_the_write_of_a_cell_is_named_by_its_line(shell, other):
    """A character of that kind in a string, and a form feed between two statements."""
    shell.run("import torch")
    shell.run(
        "%%autograd_watch -r report -q\n"
        f"note = 'one{other}two'\n"
        "w = torch.ones(3, requires_grad=True)\n"
        "\x0c\n"
        "h = torch.exp(w)\n"
        "loss = h.sum()\n"
        "h.data.mul_(2)\n"
        "loss.backward()\n"
    )
    (write,) = shell.ns["report"].mutations
    assert (write.site.line, write.site.text, write.site.line_text) == (7, "h.data.mul_(2)", "h.data.mul_(2)")
    (conflict,) = shell.ns["report"].conflicts
    assert (conflict.saved_site.line, conflict.saved_site.text) == (5, "torch.exp(w)")
