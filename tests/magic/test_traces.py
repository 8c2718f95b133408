"""Frames of ours are taken out of tracebacks, all others stay."""

from __future__ import annotations

import traceback
from pathlib import Path

import jupyter_inplace.report
from jupyter_inplace.explain.errors.tracebacks import hide_own_frames

OURS = str(Path(jupyter_inplace.report.__file__).with_name("somewhere.py"))


def function(file: str, body: str, name: str = "f", **names):
    """A function whose code claims to come from `file`."""
    exec(compile(f"def {name}(*args):\n    {body}", file, "exec"), names)
    return names[name]


def raised(call) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def files(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


def test_frames_of_ours_go():
    inner = function("user.py", "1 / 0")
    ours = function(OURS, "inner()", inner=inner)
    outer = function("outer.py", "ours()", ours=ours)
    error = raised(function(OURS, "outer()", outer=outer))
    assert files(error) == [__file__, OURS, "outer.py", OURS, "user.py"]
    hide_own_frames(error)
    assert files(error) == [__file__, "outer.py", "user.py"]


def test_torchs_carrier_of_a_handler_goes_with_it():
    ops = function("/env/torch/_ops.py", "1 / 0", "__call__")
    ours = function(OURS, "ops()", ops=ops)
    error = raised(function("user.py", "ours()", ours=ours))
    hide_own_frames(error)
    assert files(error) == [__file__, "user.py"]
    around = function("/env/torch/_compile.py", "ours()", "inner", ours=ours)
    wrapped = raised(function("user.py", "around()", around=around))
    hide_own_frames(wrapped)
    assert files(wrapped) == [__file__, "user.py"]
    called = raised(function("/env/torch/_ops.py", "ours()", "__call__", ours=ours))  # torch.ops.name() in the program
    hide_own_frames(called)
    assert files(called) == [__file__, "/env/torch/_ops.py"]
    alone = raised(function("user.py", "ops()", ops=ops))
    hide_own_frames(alone)
    assert files(alone) == [__file__, "user.py", "/env/torch/_ops.py"]


def test_causes_and_groups_too():
    def cause():
        ours()

    def effect():
        try:
            cause()
        except ZeroDivisionError as error:
            raise ExceptionGroup("several", [error]) from error

    ours = function(OURS, "inner()", inner=function("user.py", "1 / 0"))
    error = raised(effect)
    hide_own_frames(error)
    assert OURS not in files(error.__cause__)
    assert OURS not in files(error.exceptions[0])


def test_a_fault_of_our_own_is_seen_whole():
    error = raised(function(OURS, "1 / 0"))
    error.__traceback__ = error.__traceback__.tb_next
    hide_own_frames(error)
    assert files(error) == [OURS]
    hide_own_frames(None)
