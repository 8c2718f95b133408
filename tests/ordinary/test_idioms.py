"""Programs in the idioms of public libraries: nothing is said of them, and every number is the one that they have unwatched."""

from __future__ import annotations

import pytest
from cell_oracle import watched
from idioms import (
    differences,
    discrete,
    generative,
    language,
    optimizing,
    reinforcement,
    science,
    selfsupervised,
    unusual,
    vision,
    writing,
)
from idioms.program import HEAD, Idiom, numbers, quiet, run_source, seed, unequal

from jupyter_inplace import watch

FILES = (vision, language, reinforcement, selfsupervised, generative, optimizing, science, discrete, unusual, writing)
IDIOMS = [idiom for file in FILES for idiom in file.IDIOMS]
CELLS = IDIOMS[::3]


def params(idioms, alarmed):
    """One case for each; where there is a false alarm today, a failure is expected."""
    return [
        pytest.param(
            idiom,
            id=idiom.name,
            marks=pytest.mark.xfail(reason=idiom.false_alarm, strict=True) if alarmed and idiom.false_alarm else (),
        )
        for idiom in idioms
    ]


def check_report(report, idiom: Idiom):
    assert report["error"] is None
    assert report["verdict"] == idiom.verdict, report["summary"]
    assert {task["status"] for task in report["tasks"]} == {"ok"}, report["tasks"]
    notes = report["blind_spots"]
    assert len(notes) == bool(idiom.says), notes
    assert all(idiom.says in note for note in notes), notes


@pytest.mark.parametrize("idiom", params(IDIOMS, alarmed=True))
def test_as_a_script(idiom):
    with quiet():
        seed()
        alone = numbers(idiom.run())
        seed()
        with watch() as report:
            space = idiom.run()
        found = numbers(space)
    assert unequal(alone, found) == []
    check_report(report.to_dict(), idiom)


@pytest.mark.parametrize("idiom", params(CELLS, alarmed=True))
def test_as_a_cell(cells, idiom):
    seed()
    report = watched(cells, HEAD + idiom.source)
    check_report(report, idiom)
    alone = numbers(run_source(idiom.source))
    assert unequal(alone, numbers(cells.ns)) == []


@pytest.mark.parametrize("idiom", params([i for i in IDIOMS if not i.no_differences], alarmed=False))
def test_the_gradients_are_right(idiom):
    with quiet():
        assert differences.check(idiom.source)


NUDGED = """
w, x = torch.randn(3, requires_grad=True), torch.rand(3)
# differences: w
h = torch.exp(w)
"""
SAYS_RIGHT = {
    "a gradient of what was computed": "h.sum().backward()",
    "what is cut off is a constant": "(h + (x.sign() - h).detach()).sum().backward()",
    "a factor that is a number": "(h * h.sum().item()).sum().backward()",
}
SAYS_WRONG = {
    "a saved tensor overwritten unseen": "loss = h.sum(); h.data.mul_(2); loss.backward()",
    "a read that autograd did not see": "y = torch.zeros(3); y.copy_(h.data); (y * h).sum().backward()",
}


@pytest.mark.parametrize("end", SAYS_RIGHT.values(), ids=SAYS_RIGHT)
def test_differences_agree_with_a_right_gradient(end):
    assert differences.check(NUDGED + end) == 1


@pytest.mark.parametrize("end", SAYS_WRONG.values(), ids=SAYS_WRONG)
def test_differences_refuse_a_wrong_gradient(end):
    with pytest.raises(AssertionError):
        differences.check(NUDGED + end)
