"""One sentence for each thing that can happen."""

from dataclasses import replace

import pytest
import samples

from jupyter_inplace.report import Error, Mutation, Site, Task
from jupyter_inplace.report.summary import build_summary

SENTENCES = {
    "breaks": "backward fails for seg and depth: z.mul_(0.5) (line 7) overwrote what torch.tanh(trunk(x)) (line 5) and "
    'heads["seg"](z) (line 6) saved.',
    "rejected": "torch refuses w.mul_(2) (line 5): a leaf Variable that requires grad is being used in an in-place "
    "operation.",
    "corrupts": "the gradient is wrong for loss and nothing raises: y.data.mul_(self.gain) (block.py:44, 12 times) "
    "overwrote what h.sigmoid_() (block.py:41) saved; the gradient of model.proj.weight is off by 50 %.",
    "cuts": "the gradient of loss does not see out[i] = w[i] * 2 (line 4, 3 times); w gets no gradient.",
    "mixes": "w has two values within one accumulated gradient: w.mul_(2) (line 3) stands between loss1 and loss2; each "
    "part is right at its own value.",
    "clean": "1,800 in-place writes; none harms a gradient.",
    "empty": "no in-place write.",
    "script": "backward fails for seg and depth: z.mul_(0.5) (train.py:37) overwrote what torch.tanh(trunk(x)) "
    '(train.py:35) and heads["seg"](z) (train.py:36) saved.',
}


@pytest.mark.parametrize("name", SENTENCES)
def test_samples(name):
    assert samples.SAMPLES[name]().summary == SENTENCES[name]


def said(change=None, **more):
    """The sentence of the multi-task sample with its harmful write changed."""
    report = samples.breaks()
    mutations = (replace(report.mutations[0], **(change or {})), *report.mutations[1:])
    parts = {"mutations": mutations, "conflicts": report.conflicts, "tasks": report.tasks, "cell": report.cell, **more}
    return build_summary(parts.pop("mutations"), **parts)


def test_pending():
    assert said({"pending": True}).startswith("a backward for seg and depth would fail: z.mul_(0.5) (line 7) overwrote")


def test_a_failure_that_happened_comes_before_a_pending_one():
    report = samples.breaks()
    first, *rest = report.mutations
    later = replace(first, id=9, tensor="h", site=replace(first.site, text="h.exp_()", line=8))
    sentence = build_summary((replace(first, pending=True), later, *rest), report.conflicts, cell=report.cell)
    assert sentence.startswith("backward fails for seg and depth: h.exp_() (line 8) overwrote the saved h.")
    assert sentence.endswith("1 more write does so too.")


def test_values_unchanged():
    assert said({"value_changed": False}).endswith("saved, with equal values: torch looks at the version only.")


def test_many_times_and_tasks():
    sentence = said({"count": 1200, "tasks": tuple("abcde")})
    assert sentence.startswith("backward fails for a, b and 3 more: z.mul_(0.5) (line 7, 1,200 times)")


def test_saved_before_the_watch():
    conflict = replace(samples.breaks().conflicts[0], saved_site=None, saved_before_watch=True)
    assert "overwrote what TanhBackward0 saved before the watch began." in said(conflicts=(conflict,))


def test_saved_in_another_cell():
    conflict = samples.breaks().conflicts[0]
    conflict = replace(conflict, saved_site=replace(conflict.saved_site, file="In[6]"))
    assert "overwrote what torch.tanh(trunk(x)) (In[6] line 5) saved." in said(conflicts=(conflict,))


def test_without_a_line():
    assert "mul_ on z (no Python line)" in said({"site": None})
    assert "a write to z from outside of torch (no Python line)" in said({"site": None, "op": "external"})
    assert "Adam.step on z" in said({"site": None, "op": "Adam.step"})


def test_a_long_call_loses_its_arguments():
    site = Site(file="In[7]", line=3, text="torch.nn.functional.relu_(\n    self.layers['a'](x + f(y)),\n    1,\n)")
    assert said({"site": site}).startswith("backward fails for seg and depth: torch.nn.functional.relu_(...) (line 3)")


def test_a_conflict_of_another_write_is_not_named():
    conflict = replace(samples.breaks().conflicts[0], mutation=1)
    assert "overwrote the saved z." in said(conflicts=(conflict,))


def test_wrong_gradient_of_a_cut():
    report = samples.cuts()
    lost = replace(report.gradients[0], status="wrong", relative_difference=12.0)
    sentence = build_summary(report.mutations, (), report.tasks, (lost,), cell=report.cell)
    assert sentence.endswith("the gradient of w is off by a factor of 12.")


def test_harmless_kinds():
    one = Mutation(id=0, op="aten.mul_.Tensor", tensor="h")
    assert build_summary((one,)) == "1 in-place write; it harms no gradient."
    assert build_summary((), framework_used=False) == "nothing to watch: no torch ran here."
    error = Error(type="KeyError", message="'x'", other_cause=True)
    assert (
        build_summary((one,), error=error) == "1 in-place write; it harms no gradient; the KeyError has another cause."
    )


def test_another_cause_is_said_only_where_it_is_known():
    one, error = Mutation(id=0, op="aten.mul_.Tensor", tensor="h"), Error(type="RuntimeError", message="m")
    many = replace(one, count=3)
    assert build_summary((), error=error) == "no in-place write that explains the RuntimeError."
    assert (
        build_summary((one,), error=error)
        == "1 in-place write; it harms no gradient, and it does not explain the RuntimeError."
    )
    assert (
        build_summary((many,), error=error)
        == "3 in-place writes; none harms a gradient, and none explains the RuntimeError."
    )
    lost = Task(name="loss", status="lost")
    assert build_summary((), (), (lost,)) == "no in-place write that explains what is wrong with loss."


def test_what_is_not_known():
    report = samples.breaks()
    write, conflict = replace(report.mutations[0], verdict="unknown"), report.conflicts[0]
    why = ("the copies did not fit into memory", "the recorder failed")
    assert build_summary((write,), (conflict,), cell=report.cell, unknown_because=why) == (
        "it is not known whether z.mul_(0.5) (line 7) harms the gradient of seg and depth: it overwrote what "
        "torch.tanh(trunk(x)) (line 5) saved. The copies did not fit into memory."
    )
    again = (replace(write, tasks=()), replace(write, id=5))
    assert build_summary(again, cell=report.cell) == (
        "it is not known whether z.mul_(0.5) (line 7) harms a gradient. Nor is it of 1 more write."
    )
    assert build_summary((), unknown_because=why) == (
        "it is not known whether a gradient is harmed: the copies did not fit into memory. There is 1 more reason."
    )
    assert build_summary(report.mutations, unknown_because=why).startswith("backward fails for seg and depth")


def test_rejected_reasons():
    report = samples.rejected()
    write = report.mutations[0]
    assert build_summary((write,), cell=report.cell) == "torch refuses w.mul_(2) (line 5): nothing was written to w."
    noted = replace(write, note="w is a leaf that requires grad")
    assert build_summary((noted,)) == "torch refuses w.mul_(2) (line 5): w is a leaf that requires grad."
    elsewhere = replace(report.error, site=replace(write.site, line=9))
    assert build_summary((write,), error=elsewhere).endswith("nothing was written to w.")
