"""What is not held, what is not there, and that it is said."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf

from jupyter_inplace import watch
from jupyter_inplace.tensorflow.record import private, track


def mixing():
    x = tf.Variable([2.0, 3.0])
    with tf.GradientTape() as tape:
        y = x * 2
        x.assign(x * 0.5)
        z = tf.reduce_sum(y + 3 * x)
    return tape.gradient(z, x)


def test_large_variables_are_not_held(monkeypatch):
    monkeypatch.setattr(track, "HELD_BYTES", 4)
    with watch() as report:
        gradient = mixing()
    assert gradient.numpy().tolist() == [5.0, 5.0]
    (write,) = report.mutations
    assert (write.op, write.tensor) == ("assign", "x")
    assert any("too large to be held" in spot for spot in report.blind_spots)
    assert not any(row.by_version for row in report.gradients)


@pytest.mark.parametrize("name", sorted(private.NAMES))
def test_without_a_private_name(name, monkeypatch):
    module, path, lost = private.NAMES[name]
    monkeypatch.setitem(private.NAMES, name, (module, path + "_of_another_version", lost))
    w = tf.Variable(1.0)

    @tf.function
    def bump():
        w.assign_add(1.0)

    with watch() as report:
        gradient = mixing()
        bump()
    assert gradient.numpy().tolist() == [5.0, 5.0]
    assert "x" in {m.tensor for m in report.mutations}
    assert any(lost in spot for spot in report.blind_spots)
    assert not any("fault" in spot for spot in report.blind_spots)
    with watch() as after:
        assert mixing() is not None
    assert after.verdict == "mixes" or name in ("push_tape", "imperative_grad", "op_callbacks")


def test_without_op_callbacks_the_methods_of_variables_tell(monkeypatch):
    module, _, lost = private.NAMES["op_callbacks"]
    monkeypatch.setitem(private.NAMES, "op_callbacks", (module, "gone", lost))
    x = tf.Variable(2.0)
    with watch() as report:
        x.assign(3.0)
        x.assign_add(1.0)
        x.assign_sub(1.0)
    assert [(m.op, m.versions, m.site.text) for m in report.mutations] == [
        ("assign", (0, 1), "x.assign(3.0)"),
        ("assign_add", (1, 2), "x.assign_add(1.0)"),
        ("assign_sub", (2, 3), "x.assign_sub(1.0)"),
    ]
    assert x.numpy() == 3.0


def test_every_private_name_is_there_in_this_version():
    assert [name for name in private.NAMES if private.owner_of(name) is None] == []


def test_nested_watches_both_see_it():
    with watch() as outer:
        a = tf.Variable(1.0)
        a.assign(2.0)
        with watch() as inner:
            mixing()
    assert inner.verdict == outer.verdict == "mixes"
    assert len(outer.mutations) == 2
    assert len(inner.mutations) == 1


def test_steps_of_a_loop():
    w = tf.Variable(1.0)
    with watch(every=2, progress=False) as report:
        for _ in report.steps(range(6)):
            with tf.GradientTape() as tape:
                loss = w * w
            w.assign_sub(0.1 * tape.gradient(loss, w))
    assert report.watched_steps == (3, 6)
    (write,) = report.mutations
    assert (write.count, write.framework) == (3, "tensorflow")


def test_other_threads_are_left_alone():
    import threading

    found = []

    def work():
        found.append(mixing().numpy().tolist())

    with watch() as report:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [[5.0, 5.0]]
    assert report.verdict == "harmless"


def test_gradients_asked_for():
    w = tf.Variable(3.0)
    with watch(gradients=True) as report:
        with tf.GradientTape() as tape:
            loss = w * w
        tape.gradient(loss, w)
    (row,) = report.gradients
    assert (row.task, row.leaf, row.status, row.norm_as_run, row.norm_reference) == ("loss", "w", "ok", 6.0, 6.0)


def test_named_tasks():
    w = tf.Variable(3.0)
    with watch("loss", "other") as report:
        with tf.GradientTape() as tape:
            loss = w * w
        tape.gradient(loss, w)
    assert [t.name for t in report.tasks] == ["loss"]
    missing = [spot for spot in report.blind_spots if "was not found" in spot]
    assert missing == ["task 'other' was not found; the tasks there are: loss"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_not_watched():
    from jupyter_inplace.tensorflow.record.session import session_here

    with watch():
        tf.Variable(1.0)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if session_here() is None else 1)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
