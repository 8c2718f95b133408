"""Random programs: watched as unwatched, by the mode or by tripwires, and the verdict that follows from torch's own outcome and the reference.

`make test` tries the same 500 programs each time. With `FUZZ_EXAMPLES` that many others are tried (`make fuzz`); on a failure
hypothesis prints the shrunk program and how to run it again.
"""

from __future__ import annotations

import os
import re

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.strategies import booleans
from programs import Outcome, programs, run, run_watched, run_with_copies

from jupyter_inplace.record.dispatch.wiring import Wiring

_EXAMPLES = os.environ.get("FUZZ_EXAMPLES")


def same_bits(a: Outcome, b: Outcome) -> None:
    assert a.tensors.keys() == b.tensors.keys()
    for name, value in a.tensors.items():
        assert value.dtype == b.tensors[name].dtype
        assert torch.equal(value.nan_to_num(), b.tensors[name].nan_to_num()), name
    assert a.versions == b.versions


def gradients_differ(a: Outcome, b: Outcome) -> bool:
    names = [name for name in {*a.tensors, *b.tensors} if name.endswith("grad") or name.startswith("g[")]
    return any(
        name not in a.tensors
        or name not in b.tensors
        or not torch.allclose(a.tensors[name], b.tensors[name], rtol=1e-4, atol=1e-6, equal_nan=True)
        for name in names
    )


@settings(
    max_examples=int(_EXAMPLES or 500),
    derandomize=_EXAMPLES is None,
    database=None if _EXAMPLES is None else DirectoryBasedExampleDatabase(".hypothesis"),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(programs(), booleans())
def test_random_programs(source: str, wired: bool) -> None:
    note(source)
    plain = run(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Wiring, "at_once", wired)
        watched, report = run_watched(source)
    note(str(report))
    assert (watched.error, watched.line) == (plain.error, plain.line)
    assert plain.message in watched.message
    same_bits(watched, plain)
    assert not [spot for spot in report.blind_spots if "failed" in spot or "could not be worked out" in spot]
    verdicts = {m.verdict for m in report.mutations if not m.pending}
    if plain.error is not None:
        if "modified by an inplace operation" in plain.message:
            assert "breaks" in verdicts
        elif re.search("leaf Variable|is a view and|single memory location|automatic differentiation", plain.message):
            assert "rejected" in verdicts
        return
    assert not verdicts & {"breaks", "rejected"}
    if gradients_differ(plain, run_with_copies(source)):
        assert "corrupts" in verdicts
    else:
        # Writes that autograd did not record are judged against another program: one that records them.
        hidden = re.search(r"no_grad|\.data|detach\(\)\.mul_|out=", source)
        assert "corrupts" not in verdicts or hidden
        assert "cuts" not in verdicts or hidden
