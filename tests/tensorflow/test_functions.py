"""`tf.function`, Keras training, and what `run_eagerly` adds."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from jupyter_inplace import watch


def make():
    w, n = tf.Variable(2.0), tf.Variable(0.0)

    @tf.function
    def step(x):
        n.assign_add(1.0)
        y = w * x
        w.assign(w * 3)
        return y + w * x

    return w, n, step


def test_the_static_order_with_true_lines():
    w, _, step = make()
    with watch() as report:
        for _ in range(3):
            with tf.GradientTape() as tape:
                y = step(tf.constant(1.0))
            gradient = tape.gradient(y, w)
    assert gradient.numpy() == 2.0
    first = step.python_function.__code__.co_firstlineno
    found = [(m.op, m.tensor, m.count, m.site.line, m.site.line_text, m.versions) for m in report.mutations]
    assert found == [
        ("assign_add", "n", 3, first + 2, "n.assign_add(1.0)", (0, 3)),
        ("assign", "w", 3, first + 4, "w.assign(w * 3)", (0, 3)),
    ]
    assert report.verdict == "harmless"
    (spot,) = report.blind_spots
    assert "not split by version" in spot
    assert "--run-eagerly" in spot


def test_a_function_that_was_traced_before_the_watch():
    _, _, step = make()
    step(tf.constant(1.0))
    with watch() as report:
        step(tf.constant(1.0))
    assert [m.site.line_text for m in report.mutations] == ["n.assign_add(1.0)", "w.assign(w * 3)"]


def test_writes_inside_of_loops_branches_and_inner_functions():
    w = tf.Variable(1.0)

    @tf.function
    def inner():
        w.assign_add(1.0)

    @tf.function
    def outer(k):
        inner()
        if k > 0:
            w.assign(5.0)
        for _ in tf.range(k):
            w.assign_sub(1.0)
        return w

    with watch() as report:
        outer(tf.constant(2))
    texts = {m.site.line_text for m in report.mutations}
    assert texts == {"w.assign_add(1.0)", "w.assign(5.0)", "w.assign_sub(1.0)"}


def test_run_eagerly_splits_by_version():
    w, _, step = make()
    with watch(run_eagerly=True) as report:
        with tf.GradientTape() as tape:
            y = step(tf.constant(1.0))
        gradient = tape.gradient(y, w)
    assert gradient.numpy() == 2.0
    assert report.verdict == "mixes"
    (write,) = [m for m in report.mutations if m.verdict == "mixes"]
    assert write.site.text == "w.assign(w * 3)"
    (row,) = report.gradients
    assert [(v.version, v.norm) for v in row.by_version] == [(0, 1.0), (1, 1.0)]
    assert "4.0" in write.note  # y = w x + 3 w x
    assert not tf.config.functions_run_eagerly()
    assert not report.blind_spots


def test_run_eagerly_is_taken_back_after_an_error():
    try:
        with watch(run_eagerly=True):
            raise KeyError
    except KeyError:
        pass
    assert not tf.config.functions_run_eagerly()


def test_keras_fit():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x, y = np.ones((32, 3), np.float32), np.ones((32, 1), np.float32)
    with watch() as report:
        model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert report.verdict == "harmless"
    assert report.mutations
    names = {name for m in report.mutations for name in (m.tensor, *m.tensors)}
    assert "model.layers[0].kernel" in names
    assert {m.site.line_text for m in report.mutations} <= {
        "model.fit(x, y, batch_size=8, epochs=2, verbose=0)",
        None,
    }


def test_a_model_s_own_train_step_run_eagerly():
    import keras

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
                self.dense.kernel.assign(self.dense.kernel * 0.5)
                loss = loss + tf.reduce_sum(self.dense.kernel)
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    model = Model()
    model.compile("adam", run_eagerly=True)
    x, y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)
    model(x)
    with watch() as report:
        model.fit(x, y, batch_size=4, epochs=1, verbose=0)
    assert report.verdict == "mixes"
    (write,) = [m for m in report.mutations if m.verdict == "mixes"]
    assert write.site.text == "self.dense.kernel.assign(self.dense.kernel * 0.5)"
    assert write.site.function.endswith("train_step")
    assert write.tensor == "model.dense.kernel"
