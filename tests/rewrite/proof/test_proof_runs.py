"""What is said of a trial that did not end well."""

from __future__ import annotations

from jupyter_inplace.rewrite.proof.events import Ending
from jupyter_inplace.rewrite.proof.runs import Run
from jupyter_inplace.rewrite.proof.trial import Trial
from jupyter_inplace.rewrite.sandbox.outcome import Outcome


def ended(error=None, **outcome):
    ending = None if outcome else Ending(error=error)
    return Run(Trial(source="", manner="watched"), Outcome(**(outcome or {"status": "finished"})), (), ending)


def test_an_exception_in_one_line_without_torch_s_hint():
    text = "modified by an inplace operation: [torch.FloatTensor [3]]. Hint: enable anomaly detection\nand more"
    assert ended(("RuntimeError", text)).why_not() == "raises RuntimeError: " + text.partition(" Hint")[0]
    assert ended(("KeyError", "")).why_not() == "raises KeyError"


def test_a_long_one_ends_at_a_word():
    told = ended(("ValueError", "word " * 100)).why_not()
    assert told.endswith("word …")
    assert len(told) < 300


def test_a_fault_is_its_last_line():
    told = ended(status="lost", detail="Traceback (most recent call last):\n  File x\nMemoryError: no more\n").why_not()
    assert told == "was lost: MemoryError: no more"
