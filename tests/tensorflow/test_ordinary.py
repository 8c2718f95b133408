"""Ordinary programs that write variables under a tape: none of them is to be called harmful."""

from __future__ import annotations

import pytest
import tensorflow as tf

from jupyter_inplace import watch
from jupyter_inplace.report import HARMFUL

PROGRAMS = []


def program(f):
    PROGRAMS.append(f)
    return f


@program
def batch_norm_twice_in_one_tape():
    import keras

    norm, dense = keras.layers.BatchNormalization(), keras.layers.Dense(3)
    x = tf.random.normal([8, 3])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(norm(dense(x), training=True) * norm(dense(2 * x), training=True))
    tape.gradient(loss, [*dense.trainable_variables, *norm.trainable_variables])


@program
def metrics_inside():
    import keras

    metric, w = keras.metrics.Mean(), tf.Variable(2.0)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = w * w
            metric.update_state(loss)
        w.assign_sub(0.1 * tape.gradient(loss, w))
    metric.result()


@program
def moving_average_inside():
    w, mean = tf.Variable([1.0, 2.0]), tf.Variable([0.0, 0.0], trainable=False)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((w - tf.stop_gradient(mean)) ** 2)
            mean.assign(0.9 * mean + 0.1 * w)
        w.assign_sub(0.1 * tape.gradient(loss, w))


@program
def spectral_norm():
    w, u = tf.Variable(tf.random.normal([3, 4])), tf.Variable(tf.random.normal([1, 4]), trainable=False)
    with tf.GradientTape() as tape:
        v = tf.stop_gradient(tf.math.l2_normalize(u @ tf.transpose(w)))
        new = tf.stop_gradient(tf.math.l2_normalize(v @ w))
        u.assign(new)
        loss = tf.reduce_sum(w / (v @ w @ tf.transpose(new)))
    tape.gradient(loss, w)


@program
def spectral_norm_that_reads_its_state_again():
    w, u = tf.Variable(tf.random.normal([3, 4])), tf.Variable(tf.random.normal([1, 4]), trainable=False)
    with tf.GradientTape() as tape:
        v = tf.math.l2_normalize(u @ tf.transpose(w))
        u.assign(tf.stop_gradient(tf.math.l2_normalize(v @ w)))
        loss = tf.reduce_sum(w / (tf.stop_gradient(v) @ w @ tf.transpose(u)))
    tape.gradient(loss, w)


@program
def gradient_accumulation():
    w = tf.Variable([1.0, 2.0])
    total = tf.Variable(tf.zeros(2), trainable=False)
    for i in range(4):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(w * w) * float(i)
        total.assign_add(tape.gradient(loss, w))
    w.assign_sub(0.1 * total)
    total.assign(tf.zeros(2))


@program
def persistent_tape_of_two_networks():
    import keras

    g, d = keras.layers.Dense(2), keras.layers.Dense(1)
    g_opt, d_opt = keras.optimizers.Adam(), keras.optimizers.Adam()
    z = tf.random.normal([4, 2])
    for _ in range(2):
        with tf.GradientTape(persistent=True) as tape:
            fake = d(g(z))
            d_loss, g_loss = tf.reduce_mean(fake), -tf.reduce_mean(fake)
        d_opt.apply_gradients(zip(tape.gradient(d_loss, d.trainable_variables), d.trainable_variables, strict=True))
        g_opt.apply_gradients(zip(tape.gradient(g_loss, g.trainable_variables), g.trainable_variables, strict=True))


@program
def gradient_penalty():
    import keras

    net, opt = keras.layers.Dense(1), keras.optimizers.SGD(0.1)
    x = tf.random.normal([4, 3])
    for _ in range(2):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                score = tf.reduce_sum(net(x) ** 2)
            penalty = tf.reduce_sum(inner.gradient(score, x) ** 2)
        opt.apply_gradients(zip(outer.gradient(penalty, net.trainable_variables), net.trainable_variables, strict=True))


@program
def update_inside_a_persistent_tape():
    w, b = tf.Variable(2.0), tf.Variable(1.0)
    with tf.GradientTape(persistent=True) as tape:
        for _ in range(3):
            loss = (w * 3.0 + b - 1.0) ** 2
            for p, g in zip([w, b], tape.gradient(loss, [w, b]), strict=True):
                p.assign_sub(0.01 * g)


@program
def mixed_precision():
    import keras

    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        net, opt = keras.layers.Dense(1), keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.1))
        x = tf.random.normal([4, 3])
        with tf.GradientTape() as tape:
            loss = opt.scale_loss(tf.reduce_sum(tf.cast(net(x), tf.float32) ** 2))
        opt.apply_gradients(zip(tape.gradient(loss, net.trainable_variables), net.trainable_variables, strict=True))
    finally:
        keras.mixed_precision.set_global_policy("float32")


@program
def target_network():
    online, target = tf.Variable([1.0, 2.0]), tf.Variable([0.0, 0.0], trainable=False)
    for _ in range(3):
        target.assign(0.5 * target + 0.5 * online)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((online - tf.stop_gradient(target)) ** 2)
        online.assign_sub(0.1 * tape.gradient(loss, online))


@program
def step_counter_and_schedule():
    step, w = tf.Variable(0.0, trainable=False), tf.Variable(2.0)
    with tf.GradientTape() as tape:
        step.assign_add(1.0)
        loss = w * w / step
    w.assign_sub(0.1 * tape.gradient(loss, w))


@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_is_not_harmful(f):
    tf.random.set_seed(0)
    with watch() as report:
        f()
    assert report.verdict not in HARMFUL, report
    assert not [spot for spot in report.blind_spots if "fault" in spot or "could not" in spot]
    assert report.framework == "tensorflow"
