"""The magic in a real ipykernel, with the real watch."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import nbformat
import pytest
from kernels import Kernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from jupyter_inplace.report import MIME_TYPE, Report

pytestmark = pytest.mark.kernel

BROKEN = """\
%%autograd_watch --result rep
w = torch.ones(3, requires_grad=True)
h = torch.sigmoid(w)
h.mul_(2)
loss = h.sum()
loss.backward()
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("jupyter")
        patch.setenv("IPYTHONDIR", str(folder))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        kernel = Kernel()
    assert kernel.run("%load_ext jupyter_inplace").status == "ok"
    assert kernel.run("import torch").status == "ok"
    yield kernel
    kernel.stop()


def value(kernel: Kernel, expression: str) -> object:
    """What a Python expression is in the kernel, by way of JSON."""
    ran = kernel.run(f"import json as _json\n_json.dumps({expression})", store_history=False)
    assert ran.status == "ok", ran.traceback
    return json.loads(eval(ran.value))


def leftovers(kernel: Kernel) -> object:
    """What a watch could leave behind in torch and in the shell."""
    return value(
        kernel,
        "[len(__import__('torch.utils._python_dispatch', fromlist=['x'])._get_current_dispatch_mode_stack()),"
        "torch._C._autograd._top_saved_tensors_default_hooks(False) is not None,"
        "'showtraceback' in vars(get_ipython())]",
    )


def test_an_error_fails_the_cell_with_one_traceback_and_the_report_below(kernel):
    ran = kernel.run(BROKEN)
    assert ran.status == "error"
    assert [output["kind"] for output in ran.outputs][:2] == ["error", "display_data"]
    assert {output["kind"] for output in ran.outputs[2:]} == {"update_display_data"}  # the rewrites, as they are proved
    assert ran.traceback.count("Traceback (most recent call last)") == 1
    assert ran.traceback.count("RuntimeError") == 2  # in the head, in the last line
    assert "one of the variables needed for gradient computation has been modified" in ran.traceback
    number = value(kernel, "rep.to_dict()['cell']['execution_count']")
    assert f"In[{number}], line 6" in ran.traceback.replace("Cell ", "")
    assert "/jupyter_inplace/" not in ran.traceback
    assert "h.mul_(2) (In[" in ran.traceback.splitlines()[-1]  # the explanation, below torch's own text
    assert leftovers(kernel) == [0, False, False]


def test_the_report_of_a_failed_cell(kernel):
    ran = kernel.run(BROKEN)
    report = Report.from_dict(value(kernel, "rep.to_dict()"))
    assert report.verdict == "breaks"
    (write,) = (mutation for mutation in report.mutations if mutation.verdict == "breaks")
    assert write.site.file == f"In[{report.cell.execution_count}]"
    assert (write.site.line, write.site.cell_line) == (4, 4)
    assert write.site.text == "h.mul_(2)"
    assert report.cell.source == BROKEN
    assert report.error.type == "RuntimeError"
    (shown,) = ran.shown
    assert set(shown) == {"text/plain", "text/html", MIME_TYPE}
    assert json.loads(json.dumps(shown[MIME_TYPE]))["verdict"] == "breaks"
    assert "h.mul_(2)" in shown["text/plain"]
    assert "<script" not in shown["text/html"]


def test_a_clean_cell_shows_its_value_and_one_quiet_line(kernel):
    ran = kernel.run("%%autograd_watch\nx = torch.ones(2)\nx.add_(1)\n40 + 2")
    assert ran.status == "ok"
    assert ran.value == "42"
    assert [output["kind"] for output in ran.outputs] == ["execute_result", "display_data"]
    assert len(ran.shown[0]["text/plain"].splitlines()) == 1
    assert kernel.run("%%autograd_watch -q\n40 + 2;").outputs == []


def test_await(kernel):
    ran = kernel.run(
        "%%autograd_watch -r rep\nimport asyncio\nx = torch.zeros(1)\nawait asyncio.sleep(0.01)\nx.add_(1)"
    )
    assert ran.status == "ok"
    assert ran.value == "tensor([1.])"
    assert [m["site"]["line"] for m in value(kernel, "rep.to_dict()['mutations']")] == [5]
    assert leftovers(kernel) == [0, False, False]


def test_time_above(kernel):
    ran = kernel.run("%%time\n" + BROKEN)
    assert ran.status == "error"
    assert ran.traceback.count("Traceback (most recent call last)") == 1
    report = value(kernel, "rep.to_dict()")
    (write,) = (mutation for mutation in report["mutations"] if mutation["verdict"] == "breaks")
    assert (write["site"]["cell_line"], write["site"]["line_text"]) == (5, "h.mul_(2)")
    ok = kernel.run("%%time\n%%autograd_watch -q\nx = 1\nx + 1")
    assert ok.value == "2"
    assert "Wall time" in ok.stream("stdout")


def test_lines_of_an_ordinary_error(kernel):
    ran = kernel.run("%%autograd_watch -q\n\ndef f():\n    !true\n    1 / 0\n\nf()")
    assert "line 7" in ran.traceback
    assert "line 5" in ran.traceback
    assert "jupyter_inplace" not in ran.traceback


def test_an_error_inside_of_torch_shows_the_frames_that_it_shows_unwatched(kernel):
    body = "x = torch.ones(2)\ntorch.nn.functional.linear(x, torch.ones(3, 3))"
    plain = kernel.run("#\n" + body).traceback
    watched = kernel.run("%%autograd_watch -q\n" + body).traceback

    def frames(text):
        return [
            line.split(" in ")[0].split("], ")[-1] for line in text.splitlines() if line.startswith(("File", "Cell"))
        ]

    assert frames(watched) == frames(plain)


def test_syntax_error(kernel):
    ran = kernel.run("%%autograd_watch\nx = (")
    assert ran.status == "error"
    assert "SyntaxError" in ran.traceback
    assert "line 2" in ran.traceback
    assert ran.shown == []


def test_help_and_wrong_options(kernel):
    ran = kernel.run("%%autograd_watch --help\n1 / 0")
    assert ran.status == "ok"
    assert "--fingerprint" in ran.stream("stdout")
    ran = kernel.run("%%autograd_watch --bogus\nbogus_ran = 1")
    assert ran.status == "error"
    assert ran.stream("stderr").count("\n") == 1
    assert "--bogus" in ran.stream("stderr")
    assert not value(kernel, "'bogus_ran' in globals()")


def test_completion_and_question_mark(kernel):
    assert "%%autograd_watch" in kernel.complete("%%autograd_w")
    assert kernel.run("%autograd_watch?").status == "ok"
    assert kernel.run("%%autograd_watch?").status == "ok"


def test_on_off_status(kernel):
    try:
        assert kernel.run("%autograd_watch on").outputs == []
        assert "is on" in kernel.run("%autograd_watch status").stream("stdout")
        assert kernel.run("x = torch.ones(2)\nx.add_(1);").outputs == []
        ran = kernel.run(BROKEN.partition("\n")[2])
        assert ran.status == "error"
        assert ran.shown[0][MIME_TYPE]["verdict"] == "breaks"
        assert ran.shown[0][MIME_TYPE]["mutations"][0]["site"]["cell_line"] == 3
    finally:
        assert kernel.run("%autograd_watch off").outputs == []
    assert kernel.run(BROKEN.partition("\n")[2]).shown == []
    assert leftovers(kernel) == [0, False, False]


def test_a_front_end_that_holds_widgets_gets_the_panel_too(kernel):
    view = "application/vnd.jupyter.widget-view+json"
    assert set(kernel.run(BROKEN, cell_id="0123-abc").shown[0]) == {"text/plain", "text/html", MIME_TYPE, view}
    assert view not in kernel.run("%%autograd_watch\nx = torch.ones(1)", cell_id="0123-abc").shown[0]


def test_the_rewrites_come_in_place_of_the_first_report(kernel):
    ran = kernel.run(BROKEN)
    first, *updates = [output for output in ran.outputs if output["kind"].endswith("display_data")]
    assert first["data"][MIME_TYPE]["fixes"] == []
    assert {update["transient"]["display_id"] for update in updates} == {first["transient"]["display_id"]}
    fixes = updates[-1]["data"][MIME_TYPE]["fixes"]
    assert "passed" in {fix["verification"]["status"] for fix in fixes}
    assert not any(fix["verification"]["pending"] for fix in fixes)
    assert fixes == value(kernel, "rep.to_dict()['fixes']")


def test_proofs_that_take_long_go_on_beside_the_next_cell(kernel):
    """Where a person waits. Ctrl+C while nothing runs, which kernels else ignore, cancels them."""
    kernel.run("import jupyter_inplace.magic.follow as follow, time\nfollow.PATIENCE = 0.1")
    slow = BROKEN.replace("h.mul_(2)", "h.mul_(2); time.sleep(0.4)")
    ran = kernel.run(slow, cell_id="slow")
    assert ran.status == "error"
    assert value(kernel, "rep.proofs.done") is False
    assert kernel.run("sum(fix.verification.status == 'passed' for fix in rep.fixes) > 0").value == "True"  # it waited
    kernel.run(slow, cell_id="slow")
    time.sleep(0.3)
    kernel.interrupt()
    time.sleep(0.3)
    assert value(kernel, "rep.proofs.done") is True
    assert "the proofs were cancelled" in value(kernel, "[fix.verification.reason for fix in rep.fixes]")
    timer = threading.Timer(1.0, kernel.interrupt)
    timer.start()
    assert kernel.run("time.sleep(30)").status == "error"  # in a cell Ctrl+C is the cell's, as ever
    timer.join()
    kernel.run("follow.PATIENCE = 5.0")


def test_interrupt_while_the_rewrites_are_proved_cancels_them_alone(kernel):
    slow = "import time\n" + BROKEN.partition("\n")[2].replace("h.mul_(2)", "h.mul_(2); time.sleep(0.4)")
    slow = f"%%autograd_watch -r rep\n{slow.replace('loss.backward()', 'try: loss.backward()')}\nexcept RuntimeError: 7"
    timer = threading.Timer(2.5, kernel.interrupt)
    timer.start()
    ran = kernel.run(slow)
    timer.join()
    assert ran.status == "ok"
    assert value(kernel, "rep.verdict") == "breaks"
    assert "the proofs were cancelled" in value(kernel, "[fix.verification.reason for fix in rep.fixes]")
    assert leftovers(kernel) == [0, False, False]


def test_apply_replaces_the_cell(kernel):
    kernel.run(BROKEN, cell_id="some-cell")
    fix = value(kernel, "rep.to_dict()['fixes'][0]")
    ran = kernel.run(f"rep.apply({fix['id']});")
    assert ran.payload == [{"source": "set_next_input", "text": fix["source"], "replace": True}]
    missing = kernel.run("rep.apply(99)")
    assert "ValueError: there is no fix 99 in this report: they are 0, 1" in missing.traceback
    kernel.run("%%autograd_watch\nx = 1", cell_id="some-cell")
    edited = kernel.run(f"rep.apply({fix['id']})")
    assert "was edited since this report" in edited.traceback.splitlines()[-1]
    assert edited.payload == []


def test_the_panel_puts_back_what_the_cell_changed(kernel):
    def ask(cell_id):
        call = f'__import__("jupyter_inplace.magic", fromlist=["_"]).rewind_for_panel("{cell_id}")'
        ran = kernel.run("", silent=True, store_history=False, user_expressions={"answer": call})
        return json.loads(eval(ran.answers["answer"]["data"]["text/plain"]))

    kernel.run("p = torch.ones(2)")
    kernel.run(BROKEN.replace("h.mul_(2)", "h.mul_(2); p.mul_(5)"), cell_id="some-cell")
    assert value(kernel, "p.tolist()") == [5, 5]
    told = ask("another")
    assert told == {"restored": [], "not_restored": [], "reason": "no copy of the state from before that cell is kept"}
    told = ask("some-cell")
    assert value(kernel, "p.tolist()") == [1, 1]
    assert "p" in told["restored"]
    assert told["reason"] is None


def test_the_front_ends_cell_id(kernel):
    kernel.run("%%autograd_watch -q -r rep\nx = 1", cell_id="0123-abc")
    assert value(kernel, "rep.to_dict()['cell']['id']") == "0123-abc"
    kernel.run("%%autograd_watch -q -r rep\nx = 1")
    assert value(kernel, "rep.to_dict()['cell']['id']") is None


@pytest.mark.parametrize(
    "pause", ["import time; time.sleep(60)", "import asyncio\nwhile True: await asyncio.sleep(0.1)"]
)
def test_interrupt_leaves_nothing_behind(kernel, pause):
    timer = threading.Timer(1.0, kernel.interrupt)
    timer.start()
    began = time.monotonic()
    ran = kernel.run(f"%%autograd_watch -r rep\nx = torch.zeros(1)\nx.add_(1)\n{pause}")
    timer.join()
    assert time.monotonic() - began < 30
    assert ran.status == "error"
    assert len(value(kernel, "rep.to_dict()['mutations']")) == 1
    assert leftovers(kernel) == [0, False, False]


def test_run_all_stops(tmp_path, monkeypatch):
    """nbclient runs a notebook as Run All does."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    itself_imports_torch = BROKEN.replace("\n", "\nimport torch\n", 1)
    cells = ["%load_ext jupyter_inplace", itself_imports_torch, "after = 1"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    with pytest.raises(CellExecutionError):
        asyncio.run(client.async_execute())
    broken, after = notebook.cells[1:]
    assert [output.output_type for output in broken.outputs] == ["error", "display_data"]
    bundle = broken.outputs[1].data
    assert set(bundle) == {"text/plain", "text/html", MIME_TYPE}
    report = Report.from_dict(bundle[MIME_TYPE])
    assert report.verdict == "breaks"
    assert "passed" in {fix.verification.status for fix in report.fixes}  # the notebook that is saved has them all
    assert not any(fix.verification.pending for fix in report.fixes)
    assert [task.status for task in report.tasks] == ["raises"]
    assert after.outputs == []
    assert after.execution_count is None


def test_loading_is_fast_and_imports_no_torch():
    kernel = Kernel()
    try:
        ran = kernel.run(
            "import sys, time\nbegan = time.perf_counter()\n%load_ext jupyter_inplace\n"
            "(time.perf_counter() - began < 0.5, 'torch' in sys.modules, 'numpy' in sys.modules)"
        )
        assert ran.value == "(True, False, False)"
        nothing = kernel.run("%%autograd_watch -r rep\nx = 1\nx")
        assert nothing.value == "1"
        assert "nothing to watch" in nothing.shown[0]["text/plain"]
        kernel.run("%%autograd_watch -r rep\nt = __import__('to' + 'rch')\nx = t.zeros(1)\nx.add_(1)")
        assert [m["site"]["line"] for m in value(kernel, "rep.to_dict()['mutations']")] == [4]
        assert kernel.run("%reload_ext jupyter_inplace").status == "ok"
        assert kernel.run("%%autograd_watch -q\nx").value == "tensor([1.])"
        assert kernel.run("%unload_ext jupyter_inplace").status == "ok"
        assert kernel.run("%%autograd_watch\nx = 1").status == "error"
        assert kernel.run("x").status == "ok"
    finally:
        kernel.stop()
