"""Work counted instead of timed: what the recorder does in Python, and what a program holds in memory."""

import contextlib
import gc
import sys
import sysconfig

import torch

import jupyter_inplace

OURS = jupyter_inplace.__file__.rpartition("__init__")[0]
assert not OURS.startswith(sysconfig.get_path("stdlib"))


@contextlib.contextmanager
def own_calls():
    """A list of the functions of ours that are called meanwhile."""
    called = []

    def event(frame, what, _):
        if what == "call" and frame.f_code.co_filename.startswith(OURS):
            called.append(frame.f_code.co_qualname)

    before, collecting = sys.getprofile(), gc.isenabled()
    # A collection would call finalizers of what other tests left, here or elsewhere by chance.
    gc.collect()
    gc.disable()
    sys.setprofile(event)
    try:
        yield called
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()


def peak_bytes(run):
    """The most bytes of tensors that `run` made and held at once, as torch's allocator counts them.

    What was there before is not counted, nor is it when it is let go: `run` makes whatever it works with.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    held = most = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    assert events
    return most


def session_now():
    """The session that records on this thread."""
    return sys.modules["jupyter_inplace.record.active"].active.session
