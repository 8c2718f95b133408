"""What tapes do with assigns, pattern by pattern. The numbers expected are those of the unwatched tape, and derivatives by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from jupyter_inplace import watch
from jupyter_inplace.report import Report


def one(report: Report, verdict: str):
    """The only write with that verdict."""
    found = [m for m in report.mutations if m.verdict == verdict]
    assert len(found) == 1, report
    assert found[0].framework == "tensorflow"
    return found[0]


def row(report: Report, task: str, leaf: str):
    return next(g for g in report.gradients if (g.task, g.leaf) == (task, leaf))


def aligned(n: int, value: float) -> np.ndarray:
    """An array that TensorFlow takes without a copy: 64-byte aligned."""
    raw = np.zeros(n + 16, np.float32)
    offset = (-raw.ctypes.data % 64) // 4
    found = raw[offset : offset + n]
    found[:] = value
    return found


def test_founding_assign_between_two_reads_is_harmless_and_its_gradient_is_right():
    x = tf.Variable(2.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            y = x * 2
            x.assign(x * 0.5)
            z = y + 3
        gradient = tape.gradient(z, x)
    assert gradient.numpy() == 2.0
    assert report.verdict == "harmless"
    assert report.framework == "tensorflow"
    (write,) = report.mutations
    assert (write.op, write.tensor, write.versions) == ("assign", "x", (0, 1))
    assert write.site.text == "x.assign(x * 0.5)"
    assert write.site.line_text == "x.assign(x * 0.5)"
    assert "gradient 2.0 is correct" in write.note
    assert [(t.name, t.status) for t in report.tasks] == [("z", "ok")]
    assert row(report, "z", "x").norm_as_run == 2.0


def test_founding_example_with_a_new_name_has_no_write():
    x = tf.Variable(2.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            y = x * 2
            x_modified = x * 0.5
            z = y + 3
        gradient = tape.gradient(z, x)
    assert gradient.numpy() == 2.0
    assert x_modified.numpy() == 1.0
    assert report.verdict == "harmless"
    assert report.mutations == ()
    assert report.summary == "no in-place write."


def test_several_versions_are_summed():
    x = tf.Variable(2.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            y = x * 2
            x.assign(x * 0.5)
            z = y + 3 * x
        gradient = tape.gradient(z, x)
    assert gradient.numpy() == 5.0
    write = one(report, "mixes")
    assert write.site.text == "x.assign(x * 0.5)"
    assert write.tasks == ("z",)
    assert write.leaves == ("x",)
    assert "2.0 + 3.0" in write.note
    assert "3.5" in write.note
    found = row(report, "z", "x")
    assert [(v.version, v.norm) for v in found.by_version] == [(0, 2.0), (1, 3.0)]
    assert found.status == "ok"
    assert found.norm_as_run == 5.0


def test_equal_values_do_not_mix():
    x = tf.Variable(2.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            y = x * 2
            x.assign(2.0)
            z = y + 3 * x
        assert tape.gradient(z, x).numpy() == 5.0
    assert report.verdict == "harmless"


def test_two_tasks_at_two_versions():
    w = tf.Variable([1.0, 2.0])
    with watch() as report:
        with tf.GradientTape() as tape:
            loss1 = tf.reduce_sum(w * w)
            w.assign(w * 2.0)
            loss2 = tf.reduce_sum(w * w * w)
            total = loss1 + loss2
        gradient = tape.gradient(total, w)
    np.testing.assert_array_equal(gradient, [2 + 12, 4 + 48])
    assert report.verdict == "mixes"
    assert {t.name for t in report.tasks} == {"loss1", "loss2"}
    assert row(report, "loss1", "w").norm_as_run == pytest.approx(np.hypot(2, 4))
    assert row(report, "loss2", "w").norm_as_run == pytest.approx(np.hypot(12, 48))
    (cosine,) = report.task_cosines
    assert cosine.as_run == pytest.approx(np.dot([2, 4], [12, 48]) / np.hypot(2, 4) / np.hypot(12, 48))


def test_an_assigned_value_gets_no_gradient():
    x, w = tf.Variable(2.0), tf.Variable(1.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            w.assign(3 * x)
            z = w * w
        to_x, to_w = tape.gradient(z, [x, w])
    assert to_x is None
    assert to_w.numpy() == 12.0
    write = one(report, "cuts")
    assert write.site.text == "w.assign(3 * x)"
    assert write.leaves == ("x",)
    lost = row(report, "z", "x")
    assert (lost.status, lost.norm_as_run, lost.norm_reference) == ("lost", None, 36.0)  # 2 * 3 * 6
    assert row(report, "z", "w").status == "ok"
    assert "w.assign(3 * x)" in report.summary
    assert "x gets no gradient" in report.summary


def test_a_gradient_may_be_silently_partial():
    x, w = tf.Variable(2.0), tf.Variable(1.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            w.assign(3 * x)
            z = w * x
        gradient = tape.gradient(z, x)
    assert gradient.numpy() == 6.0
    one(report, "cuts")
    found = row(report, "z", "x")
    assert (found.status, found.norm_reference, found.relative_difference) == ("wrong", 12.0, 0.5)


def test_an_accumulator_loses_all_of_its_addends():
    x, total = tf.Variable(2.0), tf.Variable(0.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            for _ in range(3):
                total.assign_add(x * x)
            loss = total * 1.0
        assert tape.gradient(loss, x) is None
    write = one(report, "cuts")
    assert (write.count, write.versions, write.site.text) == (3, (0, 3), "total.assign_add(x * x)")
    assert row(report, "loss", "x").norm_reference == pytest.approx(12.0)


def test_a_variable_as_the_target():
    x, total = tf.Variable(2.0), tf.Variable(0.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            total.assign_add(x * x)
        assert tape.gradient(total, x) is None
    one(report, "cuts")
    assert row(report, "total", "x").norm_reference == pytest.approx(4.0)


def test_slice_and_scatter_assigns():
    x = tf.Variable([2.0, 3.0])
    rows = tf.Variable(tf.zeros([3, 2]))
    with watch() as report:
        with tf.GradientTape() as tape:
            rows[0].assign(x * x)
            rows.scatter_nd_update([[1]], [2 * x])
            rows.scatter_sub(tf.IndexedSlices([3 * x], [2]))
            loss = tf.reduce_sum(rows * rows)
        assert tape.gradient(loss, x) is None
    assert [(m.op, m.site.text, m.verdict) for m in report.mutations] == [
        ("slice assign", "rows[0].assign(x * x)", "cuts"),
        ("scatter_nd_update", "rows.scatter_nd_update([[1]], [2 * x])", "cuts"),
        ("scatter_sub", "rows.scatter_sub(tf.IndexedSlices([3 * x], [2]))", "cuts"),
    ]
    # loss = x^4 + 4 x^2 + 9 x^2
    np.testing.assert_allclose(row(report, "loss", "x").norm_reference, np.hypot(4 * 8 + 52, 4 * 27 + 78), rtol=1e-6)


def test_a_chain_of_assigns():
    x, a, b = tf.Variable(3.0), tf.Variable(0.0), tf.Variable(0.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            a.assign(x * x)
            b.assign(2 * a)
            loss = b * b
        assert tape.gradient(loss, x) is None
    assert {m.tensor for m in report.mutations if m.verdict == "cuts"} >= {"a"}
    assert row(report, "loss", "x").norm_reference == pytest.approx(8 * 81 / 3 * 2 * 0.5 * 2)  # d(4 x^4) = 16 x^3


def test_a_watched_tensor_is_a_source_too():
    x, w = tf.constant(2.0), tf.Variable(1.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            tape.watch(x)
            w.assign(x * x)
            z = w * 3.0
        assert tape.gradient(z, x) is None
    assert one(report, "cuts").leaves == ("x",)
    assert row(report, "z", "x").norm_reference == pytest.approx(12.0)


def test_a_gradient_after_an_update_is_right_at_the_old_value():
    w = tf.Variable(3.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            loss = w * w
        w.assign_sub(1.0)
        assert tape.gradient(loss, w).numpy() == 6.0
    (write,) = report.mutations
    assert write.verdict == "harmless"
    assert "gradient 6.0 is correct" in write.note


def test_reads_that_happen_in_c_plus_plus():
    m, c = tf.Variable(2.0), tf.constant(3.0)
    with watch() as report:
        with tf.GradientTape() as tape:
            first = c * m
            m.assign(5.0)
            loss = first + c * m * m
        assert tape.gradient(loss, m).numpy() == 33.0
    assert one(report, "mixes").site.text == "m.assign(5.0)"
    assert [(v.version, v.norm) for v in row(report, "loss", "m").by_version] == [(0, 3.0), (1, 30.0)]


def test_recompute_grad_reads_the_new_value():
    v, x = tf.Variable(3.0), tf.Variable(2.0)

    @tf.recompute_grad
    def block(a):
        return a * v * v

    with watch() as report:
        with tf.GradientTape() as tape:
            y = block(x)
        v.assign(10.0)
        gradient = tape.gradient(y, x)
    assert gradient.numpy() == 100.0
    write = one(report, "corrupts")
    assert write.site.text == "v.assign(10.0)"
    assert write.leaves == ("x",)
    found = row(report, "y", "x")
    assert (found.status, found.norm_as_run, found.norm_reference) == ("wrong", 100.0, 9.0)
    (conflict,) = report.conflicts
    assert (conflict.tensor, conflict.saved_version, conflict.found_version) == ("v", 0, 1)
    assert "v" in conflict.saved_site.text
    assert v.numpy() == 10.0


def test_a_custom_gradient_reads_the_new_value():
    v, x = tf.Variable(3.0), tf.constant(2.0)

    @tf.custom_gradient
    def scale(a):
        def grad(dy, variables=None):
            return dy * v, [None] * len(variables or [])

        return a * tf.stop_gradient(v), grad

    with watch() as report:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = scale(x)
        v.assign(10.0)
        gradient = tape.gradient(y, x)
    assert gradient.numpy() == 10.0
    one(report, "corrupts")
    assert row(report, "y", "x").norm_reference == 3.0


def test_a_custom_gradient_whose_variable_stays_is_harmless():
    v, x = tf.Variable(3.0), tf.constant(2.0)

    @tf.custom_gradient
    def scale(a):
        def grad(dy, variables=None):
            return dy * v, [None] * len(variables or [])

        return a * tf.stop_gradient(v), grad

    with watch() as report:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = scale(x)
        assert tape.gradient(y, x).numpy() == 3.0
        v.assign(10.0)
    assert report.verdict == "harmless"


def test_numpy_memory_that_changes():
    a, w = aligned(16, 1.0), tf.Variable(tf.ones(16))
    with watch() as report:
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(w * a)
        a *= 7
        gradient = tape.gradient(y, w)
    np.testing.assert_array_equal(gradient, np.full(16, 7.0))
    write = one(report, "corrupts")
    assert (write.tensor, write.op) == ("a", "external")
    assert report.conflicts[0].saved_site.text == "w * a"
    found = row(report, "y", "w")
    assert (found.norm_as_run, found.norm_reference) == (28.0, 4.0)
    np.testing.assert_array_equal(a, np.full(16, 7.0))


def test_numpy_memory_that_is_copied_is_nobody_s():
    a, w = aligned(17, 1.0)[1:], tf.Variable(tf.ones(16))
    with watch() as report:
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(w * a)
        a *= 7
        gradient = tape.gradient(y, w)
    np.testing.assert_array_equal(gradient, np.ones(16))
    assert report.verdict == "harmless"


def test_torch_writes_into_a_tensor_s_memory():
    import torch

    w = tf.Variable(tf.ones(16))
    with watch() as report:
        with tf.GradientTape() as tape:
            read = tf.square(w) + 2.0
            y = tf.reduce_sum(read * read)
        torch.from_dlpack(read).mul_(5)
        gradient = tape.gradient(y, w)
    np.testing.assert_array_equal(gradient, np.full(16, 2 * 15.0 * 2))
    assert one(report, "corrupts").tensor == "read"
    found = row(report, "y", "w")
    assert found.norm_as_run == 240.0
    assert found.norm_reference == 48.0
    assert report.framework == "torch and tensorflow"
    assert {m.framework for m in report.mutations} == {"torch", "tensorflow"}


def test_jacobian():
    x, w = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 1.0])
    with watch() as report:
        with tf.GradientTape() as tape:
            w.assign(3 * x)
            y = w * x
        jacobian = tape.jacobian(y, x)
    np.testing.assert_array_equal(jacobian, np.diag([3.0, 6.0]))
    assert any("jacobian" in spot for spot in report.blind_spots)
    assert row(report, "y", "x").norm_as_run == pytest.approx(np.hypot(3, 6))
    assert row(report, "y", "x").norm_reference == pytest.approx(np.hypot(6, 12))
    assert one(report, "cuts").leaves == ("x",)


def test_higher_order_gradients_are_those_of_the_program():
    x = tf.Variable(3.0)
    with watch() as report:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                y = x * x * x
                x.assign(2.0)
                y = y + x * x
            first = inner.gradient(y, x)
        second = outer.gradient(first, x)
    assert first.numpy() == 31.0
    assert second.numpy() == 20.0
    assert report.verdict == "mixes"


def test_ordinary_training_is_harmless():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    optimizer = keras.optimizers.Adam()
    x = tf.random.normal([16, 3])
    with watch() as report:
        for _ in range(5):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x, training=True) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    assert report.verdict == "harmless"
    step = next(m for m in report.mutations if m.op == "Adam.apply_gradients")
    assert step.count == 5
    assert "model.layers[0].kernel" in step.tensors
    assert step.site.text.startswith("optimizer.apply_gradients(")
    assert "model.layers[1].moving_mean" in {m.tensor for m in report.mutations}


def test_two_losses_and_an_optimizer_between_them():
    import keras

    w = tf.Variable([1.0, 2.0])
    optimizer = keras.optimizers.SGD(0.1)
    with watch() as report:
        with tf.GradientTape(persistent=True) as tape:
            d_loss = tf.reduce_sum(w * w)
            g_loss = tf.reduce_sum(w * w * w)
        optimizer.apply_gradients([(tape.gradient(d_loss, w), w)])
        gradient = tape.gradient(g_loss, w)
    np.testing.assert_array_equal(gradient, [3.0, 12.0])
    assert report.verdict == "harmless"
    assert "g_loss read w before" in next(m.note for m in report.mutations if m.op.startswith("SGD") and m.note)
    assert {t.name for t in report.tasks} == {"d_loss", "g_loss"}


def test_an_inner_update_by_a_gradient_is_a_new_value_not_a_cut():
    w, u = tf.Variable(2.0), tf.Variable(3.0)
    with watch() as report:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = w * w * u
            gradient = inner.gradient(loss, w)
            w.assign_sub(0.1 * gradient)
            query = w * w
        assert outer.gradient(query, [w, u])[1] is None
    assert report.verdict == "harmless"


def test_a_fast_weight_that_is_assigned_loses_the_slow_one():
    w, fast = tf.Variable(2.0), tf.Variable(0.0)
    with watch() as report:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = w * w * w
            gradient = inner.gradient(loss, w)
            fast.assign(w - 0.1 * gradient)
            query = fast * fast
        assert outer.gradient(query, w) is None
    assert one(report, "cuts").tensor == "fast"
    # fast = w - 0.3 w^2; d(fast^2) = 2 fast (1 - 0.6 w)
    assert row(report, "query", "w").norm_reference == pytest.approx(abs(2 * (2 - 1.2) * (1 - 1.2)), rel=1e-5)
