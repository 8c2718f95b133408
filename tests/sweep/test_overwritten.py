"""Every input and output of every differentiable operator overwritten after the forward: what torch does, and what we say.

The oracle is torch without the watch: whether it raises, and whether its gradients are those of the untouched run.
"""

from __future__ import annotations

import pytest
from sweep_cases import Case, Outcome, case, difference, operator_names, same_tensors, through_data, under_no_grad

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # many operators warn of their own; what they warn of is not asked here

ROUNDING = 1e-12  # of float64 gradients of small samples; nothing in the sweep comes near it from either side


def expected_verdicts(run: Outcome, untouched: Outcome, target: str) -> set[str]:
    """What the two unwatched runs say that the verdict is."""
    if run.stage == "write":
        return {"rejected"}
    if run.stage == "backward":
        return {"breaks"}
    assert run.stage == "done"
    if difference(run.grads, untouched.grads) > ROUNDING:
        return {"corrupts"}
    # An output is a root here: with the write recorded its gradient would be another one, and the watch may say so.
    return {"harmless", "cuts"} if target.startswith("out") else {"harmless"}


def check(name, write):
    c: Case = case(name)
    untouched = c.plain()
    assert not untouched.raised() or not untouched.grads
    for target in c.targets() if not untouched.raised() else ():
        plain, watched = c.plain(target, write), c.watched(target, write)
        report = watched.report
        assert (watched.stage, watched.error) == (plain.stage, plain.error), target
        assert watched.text.split("\n\njupyter_inplace: ")[0] == plain.text, target
        assert same_tensors(watched.grads, plain.grads), target
        assert report.verdict in expected_verdicts(plain, untouched, target), (target, report.summary)
        assert not [note for note in report.blind_spots if "failed" in note], target
        if report.verdict in ("breaks", "corrupts", "cuts"):
            worst = [m for m in report.mutations if m.verdict == report.verdict]
            assert [m.site.function for m in worst] == ["overwrite"], target


@pytest.mark.parametrize("name", operator_names(differentiable=True))
def test_under_no_grad(name):
    """`breaks` exactly where torch raises, with its words; elsewhere the gradients that torch gives."""
    check(name, under_no_grad)


@pytest.mark.parametrize("name", operator_names(differentiable=True))
def test_through_data(name):
    """torch does not notice: `corrupts` exactly where the gradients are no longer those of the untouched run."""
    check(name, through_data)


def test_the_sweep_holds_every_kind():
    """Of each outcome many: a sweep that meets nothing proves nothing."""
    names = operator_names(differentiable=True)[::20]
    found = {write: [] for write in (under_no_grad, through_data)}
    for name in names:
        c = case(name)
        untouched = c.plain()
        for target in c.targets() if not untouched.raised() else ():
            for write, kinds in found.items():
                kinds.append(min(expected_verdicts(c.plain(target, write), untouched, target)))
    assert found[under_no_grad].count("breaks") > 15
    assert found[under_no_grad].count("harmless") + found[under_no_grad].count("cuts") > 15
    assert found[through_data].count("corrupts") > 10
    assert found[through_data].count("harmless") + found[through_data].count("cuts") > 15
