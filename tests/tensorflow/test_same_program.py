"""Watched and unwatched runs of every program: values, gradients, errors and random numbers are equal bit by bit."""

from __future__ import annotations

import gc
import traceback
import weakref

import numpy as np
import pytest
import tensorflow as tf
from programs import PROGRAMS

from jupyter_inplace import watch
from jupyter_inplace.report import Report

OURS = "jupyter_inplace/tensorflow/"


def plain(value):
    """Whatever a program returned as comparable data."""
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, float)):
        return repr(value)
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    return (array.shape, array.dtype.str, array.tobytes())


def outcome(f):
    tf.random.set_seed(1)
    try:
        return plain(f())
    except Exception as error:
        # Ours are taken out where the error leaves the watch, which is not here.
        entries = traceback.extract_tb(error.__traceback__)[1:]
        frames = [(entry.name, entry.lineno) for entry in entries if OURS not in entry.filename]
        return type(error).__name__, str(error), frames


@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_same_program(f):
    expected = outcome(f)
    again = outcome(f)
    assert again == expected, "the program itself is not deterministic"
    with watch() as report:
        watched = outcome(f)
    assert watched == expected
    assert outcome(f) == expected, "something stayed behind"
    assert isinstance(report.report, Report)
    assert not [spot for spot in report.blind_spots if "fault" in spot or "could not be worked out" in spot]
    assert Report.from_dict(report.to_dict()) == report.report


def test_an_error_leaves_the_watch_without_frames_of_ours():
    w = tf.Variable(1.0)
    with pytest.raises(TypeError, match="Argument `target`") as caught:
        with watch():
            with tf.GradientTape() as tape:
                y = w * 2
            assert y is not None
            tape.gradient(None, w)
    assert not [
        e
        for e in traceback.extract_tb(caught.value.__traceback__)
        if OURS in e.filename.replace("tests/tensorflow/", "")
    ]


def test_there_are_enough():
    assert len(PROGRAMS) >= 40


def test_nothing_is_held_after_the_watch():
    with watch():
        w = tf.Variable(tf.ones([100]))
        with tf.GradientTape() as tape:
            y = w * 2.0
            w.assign(y)
            z = tf.reduce_sum(w * y)
        tape.gradient(z, w)
    gone = [weakref.ref(y), weakref.ref(w), weakref.ref(tape)]
    del w, y, z, tape
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]


def test_nothing_is_held_while_steps_go_by():
    from jupyter_inplace.tensorflow.record.session import session_here

    w = tf.Variable(tf.ones([100]))
    with watch():
        sizes = []
        for _ in range(6):
            for _ in range(50):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(w * w)
                w.assign_sub(0.01 * tape.gradient(loss, w))
            track = session_here().track
            sizes.append(len(track.masks) + len(track.reads) + len(track.writes))
        calls = len(session_here().calls)
    assert max(sizes) < 50
    assert calls < 20


def test_a_persistent_tape_that_overlaps_the_next_one_does_not_pile_up(monkeypatch):
    from jupyter_inplace.tensorflow.record import track as module
    from jupyter_inplace.tensorflow.record.session import session_here

    monkeypatch.setattr(module, "_PRUNE", 500)
    w = tf.Variable(tf.ones([4]))
    with watch():
        for _ in range(300):
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_sum(w * w * w)
            w.assign_sub(0.01 * tape.gradient(loss, w))
        track = session_here().track
        assert len(track.masks) < 1_200
        assert len(track.reads) < 700
    assert tape is not None


def test_the_public_names_are_back():
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.eager import context

    before = (
        tf.GradientTape.gradient,
        tf.GradientTape._push_tape,
        tf.GradientTape.watch,
        pywrap_tfe.TFE_Py_FastPathExecute,
    )
    with pytest.raises(KeyboardInterrupt):
        with watch():
            x = tf.Variable(1.0)
            with tf.GradientTape():
                x.assign(2.0)
                raise KeyboardInterrupt
    after = (
        tf.GradientTape.gradient,
        tf.GradientTape._push_tape,
        tf.GradientTape.watch,
        pywrap_tfe.TFE_Py_FastPathExecute,
    )
    assert after == before
    assert list(context.context().op_callbacks) == []
