"""The magic in a real ipykernel: the founding examples, and a cell of both frameworks."""

from __future__ import annotations

import json

import pytest
from kernels import Kernel

from jupyter_inplace.report import MIME_TYPE

FOUNDING = """\
%%autograd_watch --result rep
import tensorflow as tf
x = tf.Variable(2.0)
with tf.GradientTape() as tape:
    y = x * 2
    x.assign(x * 0.5)
    z = y + 3
tape.gradient(z, x).numpy()
"""

REBOUND = """\
%%autograd_watch --result rep
x = tf.Variable(2.0)
with tf.GradientTape() as tape:
    y = x * 2
    x_modified = x * 0.5
    z = y + 3
tape.gradient(z, x).numpy()
"""

CUT = """\
%%autograd_watch --result rep
x, w = tf.Variable(2.0), tf.Variable(1.0)
with tf.GradientTape() as tape:
    w.assign(3 * x)
    z = w * w
print(tape.gradient(z, x))
"""

BOTH = """\
%%autograd_watch --result rep
import torch
p = torch.tensor(2.0, requires_grad=True)
h = torch.sigmoid(p)
h.mul_(2)
v = tf.Variable(3.0)
with tf.GradientTape() as tape:
    u = v * v
    v.assign(v * 2)
    u = u + v
tape.gradient(u, v)
h.backward()
"""

FAILS = """\
%%autograd_watch --result rep
with tf.GradientTape() as tape:
    y = x * x
tape.gradient(y, x)
tape.gradient(y, x)
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("jupyter")
        patch.setenv("IPYTHONDIR", str(folder))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        kernel = Kernel()
    assert kernel.run("%load_ext jupyter_inplace").status == "ok"
    yield kernel
    kernel.stop()


def shown(ran):
    """The report that the cell displayed, and the text beside it."""
    (bundle,) = [b for b in ran.shown if MIME_TYPE in b]
    data = bundle[MIME_TYPE]
    return (json.loads(data) if isinstance(data, str) else data), bundle["text/plain"], bundle["text/html"]


def test_no_tensorflow_is_imported_for_a_cell_without_it(kernel):
    kernel.run("%%autograd_watch -q\na = 1")
    ran = kernel.run("import sys; print('tensorflow' in sys.modules, 'torch' in sys.modules)")
    assert ran.stream("stdout").strip() == "False False"


def test_founding_example_in_the_cell_that_imports_tensorflow(kernel):
    ran = kernel.run(FOUNDING, cell_id="founding")
    assert ran.status == "ok"
    assert ran.value == "np.float32(2.0)"
    report, text, html = shown(ran)
    assert report["verdict"] == "harmless"
    assert report["framework"] == "tensorflow"
    (write,) = report["mutations"]
    assert (write["site"]["text"], write["site"]["line"], write["framework"]) == ("x.assign(x * 0.5)", 6, "tensorflow")
    assert write["site"]["file"].startswith("In[")
    assert "gradient 2.0 is correct" in write["note"]
    assert "none harms" in text or "harms no gradient" in text
    assert "x.assign" in html


def test_founding_example_with_a_new_name(kernel):
    ran = kernel.run(REBOUND)
    assert ran.value == "np.float32(2.0)"
    report, _, _ = shown(ran)
    assert (report["verdict"], report["mutations"]) == ("harmless", [])


def test_a_cut(kernel):
    ran = kernel.run(CUT)
    assert ran.stream("stdout").strip() == "None"
    report, text, html = shown(ran)
    assert report["verdict"] == "cuts"
    assert "w.assign(3 * x)" in text
    assert 'data-ji-status="lost"' in html
    assert report["gradients"][0]["norm_reference"] == 36.0


def test_both_frameworks_in_one_report(kernel):
    ran = kernel.run(BOTH)
    assert ran.status == "error"
    assert "modified by an inplace operation" in ran.traceback
    report, _, html = shown(ran)
    assert report["verdict"] == "breaks"
    assert report["framework"] == "torch and tensorflow"
    found = {m["site"]["text"]: (m["framework"], m["verdict"]) for m in report["mutations"]}
    assert found == {"h.mul_(2)": ("torch", "breaks"), "v.assign(v * 2)": ("tensorflow", "mixes")}
    assert [m["id"] for m in report["mutations"]] == [0, 1]
    assert "v.assign" in html
    assert {t["name"]: t["status"] for t in report["tasks"]} == {"h": "raises", "u": "ok"}


def test_an_error_of_the_tape(kernel):
    ran = kernel.run(FAILS)
    assert ran.status == "error"
    assert "non-persistent GradientTape" in ran.traceback
    assert "jupyter_inplace" not in ran.traceback
    report, _, _ = shown(ran)
    assert report["error"]["type"] == "RuntimeError"


def test_every_cell_watched(kernel):
    kernel.run("%autograd_watch on")
    try:
        quiet = kernel.run(REBOUND.partition("\n")[2])
        loud = kernel.run(CUT.partition("\n")[2])
    finally:
        kernel.run("%autograd_watch off")
    assert not [b for b in quiet.shown if MIME_TYPE in b]
    report, _, _ = shown(loud)
    assert report["verdict"] == "cuts"
