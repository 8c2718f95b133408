"""The rewrites of harmful assigns: their text, and their proofs in the sandbox."""

from __future__ import annotations

import pytest
import tensorflow as tf

from jupyter_inplace import watch
from jupyter_inplace.report import Cell, Report
from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.mask import mask
from jupyter_inplace.tensorflow.rewrite.fixes import fixes, wanted
from jupyter_inplace.tensorflow.rewrite.rules import asked_twice, proposals

CUT = """\
x, w = tf.Variable(2.0), tf.Variable(1.0)
with tf.GradientTape() as tape:
    w.assign(3 * x)
    z = w * w
g = tape.gradient(z, [x, w])
"""

LOOP = """\
x, total = tf.Variable(2.0), tf.Variable(0.0)
with tf.GradientTape() as tape:
    for _ in range(3):
        total.assign_add(x * x)
    loss = total * 1.0
g = tape.gradient(loss, x)
"""

RECOMPUTED = """\
v, x = tf.Variable(3.0), tf.Variable(2.0)
block = tf.recompute_grad(lambda a: a * v * v)
with tf.GradientTape() as tape:
    y = block(x)
v.assign(10.0)
g = tape.gradient(y, x)
"""

TWICE = """\
x = tf.Variable(2.0)
with tf.GradientTape() as tape:
    y = x * x
g = tape.gradient(y, x)
h = tape.gradient(y, x)
"""

NUMPY = """\
raw = np.zeros(32, np.float32)
a = raw[(-raw.ctypes.data % 64) // 4 :][:16]
w = tf.Variable(tf.ones(16))
with tf.GradientTape() as tape:
    y = tf.reduce_sum(w * a)
a += 7
g = tape.gradient(y, w)
"""


def watched(source):
    """The report of a cell that runs in a namespace of its own."""
    import numpy as np

    names = {"tf": tf, "np": np, "__name__": "__main__"}
    made = watch(
        cell=Cell(source=source), cell_file="<the cell>", labels={"<the cell>": "In[1]"}, namespace=lambda: names
    )
    error = None
    made.start()
    try:
        exec(compile(source, "<the cell>", "exec"), names)
    except Exception as raised:
        error = raised
    return made.stop(error)


def offered(source):
    report = watched(source)
    assert wanted(report)
    found = []
    fixes(
        source,
        report,
        None,
        first=0,
        seconds=1.0,
        taken=(),
        unavailable="nothing was kept",
        told=lambda fix: found.append(fix) if fix.verification.pending else None,
    )
    return report, found


def changed(source, fix):
    """The lines of a fix that are not the cell's."""
    return [line.strip() for line in fix.source.splitlines() if line not in source.splitlines()]


def test_a_new_name_is_read_from_there_on_but_for_the_sources():
    _, found = offered(CUT)
    assert changed(CUT, found[0]) == ["w_modified = 3 * x", "z = w_modified * w_modified"]
    assert (found[0].kind, found[0].title) == ("out_of_place", "w_modified = 3 * x")


def test_the_new_name_is_nobody_else_s():
    source = "w_modified = 0\n" + CUT
    _, found = offered(source)
    assert changed(source, found[0])[0] == "w_modified2 = 3 * x"


def test_in_a_loop_the_name_is_bound_anew():
    _, (fix,) = offered(LOOP)
    assert changed(LOOP, fix) == ["total = total + (x * x)"]


def test_an_assign_moves_below_the_question():
    _, found = offered(RECOMPUTED)
    moved = next(fix for fix in found if fix.kind == "reorder")
    assert moved.source.splitlines()[-2:] == ["g = tape.gradient(y, x)", "v.assign(10.0)"]


def test_a_tape_that_is_asked_twice():
    report, (fix,) = offered(TWICE)
    assert report.error.type == "RuntimeError"
    assert changed(TWICE, fix) == ["with tf.GradientTape(persistent=True) as tape:"]
    given = TWICE.replace("GradientTape()", "GradientTape(watch_accessed_variables=True)")
    assert changed(given, offered(given)[1][0]) == [
        "with tf.GradientTape(watch_accessed_variables=True, persistent=True) as tape:"
    ]


def test_memory_of_numpy_s_is_copied():
    _, (fix,) = offered(NUMPY)
    assert changed(NUMPY, fix) == ["y = tf.reduce_sum(w * a.copy())"]


def test_a_harmless_cell_wants_nothing():
    report = watched("x = tf.Variable(2.0)\nx.assign(3.0)\n")
    assert not wanted(report)
    code = Code(mask("x = 1\n").text)
    assert asked_twice(code, report) == []
    assert [proposals(code, report, m) for m in report.mutations] == [[]]


@pytest.fixture(scope="module")
def sandbox():
    import numpy as np

    from jupyter_inplace.rewrite.sandbox.take import take

    copy = take({"tf": tf, "np": np, "__name__": "__main__"}, CUT + NUMPY, backend="spawn")
    yield copy
    copy.cancel()


@pytest.mark.parametrize(
    ("source", "passed", "failed"),
    [
        (CUT, {"w_modified = 3 * x": "w itself gets no gradient any more; w keeps another value"}, set()),
        (LOOP, {"total = total + (x * x)": "total is no variable any more"}, set()),
        (RECOMPUTED, {"v.assign(10.0) moved below tape.gradient(y, x)": None}, {"v = 10.0"}),
        (TWICE, {"tf.GradientTape(persistent=True)": None}, set()),
        (NUMPY, {"a.copy()": None}, set()),
    ],
    ids=["cut", "loop", "recomputed", "twice", "numpy"],
)
def test_proofs(sandbox, source, passed, failed):
    report = watched(source)
    proved = fixes(
        source,
        report,
        sandbox,
        first=0,
        seconds=60.0,
        taken=(),
        unavailable="",
        told=lambda fix: None,
    )
    status = {fix.title: fix.verification for fix in proved}
    for title, note in passed.items():
        assert (status[title].status, status[title].reason) == ("passed", note)
        assert status[title].losses_equal is status[title].gradients_equal is True
    for title in failed:
        assert status[title].status == "failed", status[title]
    assert proved[0].title in passed


def test_a_cell_that_does_not_repeat_itself_proves_nothing(sandbox):
    from dataclasses import replace

    report = watched(CUT)
    other = replace(report, verdict="corrupts")
    proved = fixes(CUT, other, sandbox, first=0, seconds=60.0, taken=(), unavailable="", told=lambda fix: None)
    assert {fix.verification.status for fix in proved} == {"unverified"}
    assert "does not repeat itself" in proved[0].verification.reason


def test_a_process_with_tensorflow_is_not_forked():
    from jupyter_inplace.rewrite.sandbox.outcome import SandboxUnavailableError
    from jupyter_inplace.rewrite.sandbox.take import take

    with pytest.raises(SandboxUnavailableError, match="TensorFlow"):
        take({"tf": tf}, CUT, backend="fork")


def test_what_cannot_be_copied_is_said():
    _, found = offered(CUT)
    assert all(fix.verification.pending for fix in found)
    report = watched(CUT)
    done = fixes(
        CUT, report, None, first=3, seconds=1.0, taken=(), unavailable="nothing was kept", told=lambda fix: None
    )
    assert {(fix.verification.status, fix.verification.reason) for fix in done} == {("unverified", "nothing was kept")}
    assert done[0].id == 3
    assert isinstance(report, Report)
