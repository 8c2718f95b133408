"""Labels for the profiler are made as unwatched, and the mode is back in force after each."""

import pytest
import torch
from torch.autograd.profiler import record_function

from jupyter_inplace import watch


def labels_of(run):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return [event.name for event in profile.events() if event.name in ("outer", "inner", "fails", "decorated")]


@record_function("decorated")
def decorated(x):
    return x * 2


def program():
    with record_function("outer"):
        x = torch.ones(3)
        with record_function("inner"):
            x.mul_(2)
    with pytest.raises(ValueError, match="inside"), record_function("fails"):
        raise ValueError("inside")
    decorated(x)


def watched():
    with watch():
        program()


@pytest.mark.filterwarnings("ignore:.*Profiler clears events at the end of each cycle")
def test_a_profile_has_the_same_labels_watched_as_unwatched():
    plain = labels_of(program)
    assert sorted(plain) == ["decorated", "fails", "inner", "outer"]
    assert labels_of(watched) == plain


def test_writes_inside_and_after_a_label_are_seen():
    x = torch.ones(3)
    with watch() as report:
        with record_function("outer"):
            x.mul_(2)
        x.add_(1)
        with pytest.raises(ValueError, match="inside"), record_function("fails"):
            raise ValueError("inside")
        x.sub_(1)
    assert [m.op.split(".")[1].rstrip("_") for m in report.mutations] == ["mul", "add", "sub"]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is")
def test_a_scripted_function_with_a_label_compiles_as_unwatched():
    def scripted(x: torch.Tensor) -> torch.Tensor:
        with torch.autograd.profiler.record_function("scripted"):
            return x + 1

    with watch():
        compiled = torch.jit.script(scripted)
        assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]


def test_torch_has_its_own_methods_back_afterwards():
    before = record_function.__enter__, record_function.__exit__
    with watch():
        assert record_function.__enter__ is not before[0]
    assert (record_function.__enter__, record_function.__exit__) == before
