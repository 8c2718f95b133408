"""The magic's line becomes an ordinary first statement."""

from __future__ import annotations

import pytest
from IPython.core.inputtransformer2 import cell_magic

from jupyter_inplace.magic.transform import MagicLine


def transformed(cell: str, running: str | None = None) -> str:
    return "".join(MagicLine(lambda: running)(cell.splitlines(keepends=True)))


def test_the_line_becomes_a_statement_and_the_others_stay():
    cell = "%%autograd_watch -q\nx = 1\n%%autograd_watch\n!ls\n"
    assert transformed(cell) == "get_ipython().autograd_watch('-q')\nx = 1\n%%autograd_watch\n!ls\n"


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "\n",
        "x = 1\n",
        "%%autograd_watcher\nx\n",
        "%autograd_watch on\n",
        "%%autograd_watch?\n",
        "x\n%%autograd_watch\n",
    ],
)
def test_other_cells_are_left_alone(cell):
    assert transformed(cell) == cell


@pytest.mark.parametrize("words", ["'quoted'", 'losses["seg"]', r"back\slash", "{braces}", "a\tb"])
def test_every_word_survives(words):
    statement = transformed(f"%%autograd_watch {words}\nx\n").splitlines()[0]
    received = []
    eval(statement, {"get_ipython": lambda: type("S", (), {"autograd_watch": staticmethod(received.append)})})
    assert received == [words]


def test_windows_line_ends():
    assert transformed("%%autograd_watch -q\r\nx = 1\r\n").startswith("get_ipython().autograd_watch('-q')\n")


def test_lines_above_are_kept_as_comments():
    assert transformed("\n  \n%%autograd_watch\nx\n").splitlines()[:2] == ["#", "#"]
    assert transformed("\n  %%autograd_watch\n  x\n").splitlines()[0] == "  #"


@pytest.mark.parametrize("whole", ["\n%%time\n\n%%autograd_watch\nx\ny\n", "\n%%autograd_watch\n\n%%time\nx\ny\n"])
def test_with_a_timer_the_lines_of_the_whole_cell_count(whole):
    """Above or below: the timer runs what is watched, under lines of its own."""
    outer = transformed(whole)
    calls = []
    shell = type("Shell", (), {"run_cell_magic": lambda self, *found: calls.append(found)})()
    eval(
        "".join(cell_magic([line for line in outer.splitlines(keepends=True) if line.strip()])),
        {"get_ipython": lambda: shell},
    )
    ((name, _, part),) = calls
    assert name == "time"
    lines = transformed(part, running=whole).splitlines()
    assert lines.count("get_ipython().autograd_watch()") == 1
    assert lines.index("x") == whole.splitlines().index("x")
    assert lines.index("y") == whole.splitlines().index("y")


def test_an_unrelated_cell_that_is_running_moves_nothing():
    assert transformed("%%autograd_watch\nx\n", running="unrelated\n").startswith("get_ipython()")


def test_another_magic_below():
    lines = transformed("%%autograd_watch\n\n%%capture got\nx = 1\n").splitlines()
    assert lines[:2] == ["get_ipython().autograd_watch()", ""]
    assert lines[2] == r"get_ipython().run_cell_magic('capture', 'got', 'x = 1\n')"


def test_while_all_cells_are_watched_their_lines_count_so_too():
    def transform(cell, running=None):
        return "".join(MagicLine(lambda: running, lambda: True)(cell.splitlines(keepends=True)))

    assert transform("x\n") == "x\n"
    assert transform("\n\n  x\n  y\n") == "  #\n  #\n  x\n  y\n"
    assert transform("%%bash\nls\n") == "%%bash\nls\n"
    assert transform("x\n", running="%%time\n\nx\n") == "#\n#\nx\n"
    assert transform("") == ""


def test_help_drops_the_body():
    assert transformed("%%autograd_watch --help\nx = 1\n") == "get_ipython().autograd_watch('--help')\n"


def test_ipython_asks_for_more_lines_as_for_any_cell_magic(shell):
    check = shell.ip.input_transformer_manager.check_complete
    assert check("%%autograd_watch\nx = 1")[0] == check("%%time\nx = 1")[0] == "incomplete"
    assert check("%%autograd_watch\nx = 1\n\n")[0] == check("%%time\nx = 1\n\n")[0] == "complete"
