"""Programs with tapes and assigns, each of which returns all that a person could look at."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

PROGRAMS = []


def program(f):
    PROGRAMS.append(f)
    return f


def aligned(n, value):
    raw = np.zeros(n + 16, np.float32)
    found = raw[(-raw.ctypes.data % 64) // 4 :][:n]
    found[:] = value
    return found


@program
def founding():
    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = x * 2
        x.assign(x * 0.5)
        z = y + 3
    return z, tape.gradient(z, x), x


@program
def summed_versions():
    x = tf.Variable([2.0, -1.0])
    with tf.GradientTape() as tape:
        y = x * 2
        x.assign(x * 0.5)
        z = y + 3 * x
    return z, tape.gradient(z, x), x


@program
def cut():
    x, w = tf.Variable(2.0), tf.Variable(1.0)
    with tf.GradientTape() as tape:
        w.assign(3 * x)
        z = w * w * x
    return tape.gradient(z, {"x": x, "w": w})


@program
def unconnected_zero():
    x, w = tf.Variable(2.0), tf.Variable(1.0)
    with tf.GradientTape() as tape:
        w.assign(3 * x)
        z = w * w
    return tape.gradient(z, [x, w], unconnected_gradients=tf.UnconnectedGradients.ZERO)


@program
def persistent_twice():
    w = tf.Variable([1.0, 2.0, 3.0])
    with tf.GradientTape(persistent=True) as tape:
        a = tf.reduce_sum(w * w)
        w.assign_add([1.0, 1.0, 1.0])
        b = tf.reduce_prod(w)
    return tape.gradient(a, w), tape.gradient(b, w), tape.gradient([a, b], w), tape.gradient(a + b, w)


@program
def non_persistent_twice():
    w = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = w * w
    first = tape.gradient(y, w)
    second = tape.gradient(y, w)
    return first, second


@program
def non_persistent_inside():
    w = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = w * w
        g = tape.gradient(y, w)
        w.assign_sub(g)
    return g, w, tape.watched_variables()[0]


@program
def persistent_inside():
    w = tf.Variable(2.0)
    with tf.GradientTape(persistent=True) as tape:
        y = w * w * w
        g = tape.gradient(y, w)
        w.assign_sub(0.1 * g)
        z = g * w
    return g, tape.gradient(g, w), tape.gradient(z, w)


@program
def higher_order():
    x = tf.Variable(3.0)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = x**3
            x.assign(2.0)
            y = y + x**2
        first = inner.gradient(y, x)
    return first, outer.gradient(first, x)


@program
def third_order_loop():
    x = tf.Variable(1.5)
    with tf.GradientTape() as a, tf.GradientTape() as b, tf.GradientTape() as c:
        y = tf.sin(x) * x
        g = c.gradient(y, x)
        gg = b.gradient(g, x)
        ggg = a.gradient(gg, x)
    return g, gg, ggg


@program
def output_gradients():
    w = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = w * w
        w.assign(y)
        z = w * y
    return tape.gradient([y, z], w, output_gradients=[tf.constant([1.0, 0.5]), tf.constant([2.0, 0.0])])


@program
def stop_and_reset():
    w = tf.Variable(2.0)
    with tf.GradientTape(persistent=True) as tape:
        y = w * w
        with tape.stop_recording():
            hidden = w * 7
            w.assign(hidden)
        z = w * y
        first = tape.gradient(z, w)
        tape.reset()
        u = w * w
    return first, tape.gradient(u, w), tape.gradient(z, w)


@program
def gradient_inside_stop_recording():
    w = tf.Variable(2.0)
    with tf.GradientTape(persistent=True) as tape:
        y = w * w
        w.assign(3.0)
        y = y + w
        with tape.stop_recording():
            g = tape.gradient(y, w)
        z = y * w
    return g, tape.gradient(z, w)


@program
def watched_constants():
    x = tf.constant([1.0, 2.0])
    w = tf.Variable([0.0, 0.0], trainable=False)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x, w])
        w.assign(x * 2)
        y = tf.reduce_sum(w * x)
    return tape.gradient(y, [x, w])


@program
def no_watched_variables():
    w = tf.Variable(2.0)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        y = w * w
    return (tape.gradient(y, w),)


@program
def integers():
    n = tf.Variable(0)
    w = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        n.assign_add(1)
        y = w * tf.cast(n, tf.float32)
        n.assign_add(1)
        y = y + w * tf.cast(n, tf.float32)
    return y, tape.gradient(y, w), n


@program
def complex_values():
    w = tf.Variable(tf.constant([1 + 2j, 3 - 1j]))
    with tf.GradientTape() as tape:
        y = w * w
        w.assign(w * 1j)
        z = tf.reduce_sum(tf.abs(y * w))
    return z, tape.gradient(z, w)


@program
def half_and_double():
    a, b = tf.Variable(tf.ones(3, tf.float16)), tf.Variable(tf.ones(3, tf.float64))
    with tf.GradientTape() as tape:
        b.assign(b + tf.cast(a, tf.float64))
        y = tf.reduce_sum(b * tf.cast(a, tf.float64))
    return tape.gradient(y, [a, b])


@program
def slices():
    m = tf.Variable(tf.reshape(tf.range(6.0), [3, 2]))
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        m[1].assign(x * x)
        m[:, 0].assign([1.0, 2.0, 3.0])
        y = tf.reduce_sum(m * m) + tf.reduce_sum(m[2] * x)
    return y, tape.gradient(y, [m, x]), m


@program
def scatters():
    m = tf.Variable(tf.ones([4, 2]))
    x = tf.Variable([[2.0, 3.0]])
    with tf.GradientTape() as tape:
        m.scatter_add(tf.IndexedSlices(x, [0]))
        m.scatter_sub(tf.IndexedSlices(x, [1]))
        m.scatter_mul(tf.IndexedSlices(x, [2]))
        m.scatter_max(tf.IndexedSlices(x, [3]))
        m.scatter_nd_add([[0]], x)
        y = tf.reduce_sum(m * m)
    return y, tape.gradient(y, [m, x]), m


@program
def embeddings():
    table = tf.Variable(tf.reshape(tf.range(8.0), [4, 2]))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(tf.gather(table, [1, 1, 3]) ** 2)
        table.assign(table * 2)
        y = y + tf.reduce_sum(tf.nn.embedding_lookup(table, [0, 3]))
    g = tape.gradient(y, table)
    return y, tf.convert_to_tensor(g), type(g).__name__


@program
def implicit_reads():
    m, c = tf.Variable([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[1.0, 0.0], [1.0, 1.0]])
    with tf.GradientTape() as tape:
        y = c * m + tf.matmul(c, m) + tf.linalg.matmul(m, m)
        m.assign_add(c)
        y = y + tf.multiply(m, m) - m / (c + 1) + tf.concat([m[:1], m[1:]], 0)
    return y, tape.gradient(y, m)


@program
def stacking():
    a, b = tf.Variable(1.0), tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = tf.stack([a, b, a])
        a.assign(b)
        y = tf.reduce_sum(y * tf.stack([b, a, a]))
    return y, tape.gradient(y, [a, b])


@program
def control_flow():
    w = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = tf.constant(0.0)
        for i in range(5):
            if w > 3:
                w.assign(1.0)
            y = y + w * w * float(i)
            w.assign_add(w)
    return y, tape.gradient(y, w)


@program
def while_loop_eager():
    w = tf.Variable(1.1)
    with tf.GradientTape() as tape:
        _, y = tf.while_loop(lambda i, y: i < 4, lambda i, y: (i + 1, y * w), [0, tf.constant(1.0)])
    return y, tape.gradient(y, w)


@program
def recompute():
    v, x = tf.Variable(3.0), tf.Variable(2.0)
    block = tf.recompute_grad(lambda a: a * v * v)
    with tf.GradientTape() as tape:
        y = block(x)
    v.assign(10.0)
    return y, tape.gradient(y, [x, v]), v


@program
def recompute_within_outer_tape():
    v, x = tf.Variable(3.0), tf.Variable(2.0)
    block = tf.recompute_grad(lambda a: a * v * v)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            y = block(x)
        v.assign(10.0)
        g = tape.gradient(y, x)
        z = g * v
    return y, g, outer.gradient(z, v), v


@program
def custom_gradients():
    v = tf.Variable(3.0)

    @tf.custom_gradient
    def clip(a):
        def grad(dy):
            return tf.clip_by_norm(dy, 0.5)

        return tf.identity(a), grad

    with tf.GradientTape() as tape:
        y = clip(v) * 10
        v.assign(y)
        z = clip(v * v)
    return z, tape.gradient(z, v)


@program
def stop_gradient_and_straight_through():
    w = tf.Variable([0.3, 0.8])
    with tf.GradientTape() as tape:
        hard = tf.round(w)
        y = w + tf.stop_gradient(hard - w)
        w.assign(hard)
        z = tf.reduce_sum(y * tf.stop_gradient(w))
    return z, tape.gradient(z, w)


@program
def numpy_memory():
    a, w = aligned(16, 1.0), tf.Variable(tf.ones(16))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(w * a)
    a *= 7
    return y, tape.gradient(y, w), a


@program
def dlpack_memory():
    import torch

    w = tf.Variable(tf.ones(16))
    with tf.GradientTape() as tape:
        r = tf.square(w) + 2.0
        y = tf.reduce_sum(r * r)
    torch.from_dlpack(r).mul_(5)
    return y, tape.gradient(y, w), r


@program
def torch_memory_into_tensorflow():
    import torch

    t = torch.arange(4.0)
    x = tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(t))
    w = tf.Variable(tf.ones(4))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(w * x)
    t.add_(10)
    return y, tape.gradient(y, w), t


@program
def jacobians():
    x, w = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 1.0])
    with tf.GradientTape(persistent=True) as tape:
        w.assign(3 * x)
        y = w * x * x
    return tape.jacobian(y, x), tape.jacobian(y, w, experimental_use_pfor=False)


@program
def batch_jacobian():
    x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    return (tape.batch_jacobian(y, x),)


@program
def forward_accumulator():
    w = tf.Variable([1.0, 2.0])
    with tf.autodiff.ForwardAccumulator(w, tf.constant([1.0, 0.0])) as acc:
        with tf.GradientTape() as tape:
            y = w * w
            w.assign(w * 3)
            z = tf.reduce_sum(y * w)
        g = tape.gradient(z, w)
    return z, g, acc.jvp(z), acc.jvp(g)


@program
def random_numbers():
    tf.random.set_seed(7)
    w = tf.Variable(tf.random.normal([3]))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(w * tf.random.uniform([3]))
        w.assign(w * 2)
        y = y + tf.reduce_sum(w * tf.nn.dropout(w, 0.5))
    return y, tape.gradient(y, w), tf.random.normal([2])


@program
def generator_state():
    rng = tf.random.Generator.from_seed(3)
    w = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = w * rng.normal([])
        w.assign(2.0)
        y = y + w * rng.normal([])
    return y, tape.gradient(y, w), rng.state


@program
def traced_function():
    w, n = tf.Variable(1.0), tf.Variable(0)

    @tf.function
    def step(x):
        n.assign_add(1)
        y = w * x
        w.assign(w * 2)
        return y + w * x

    out = []
    for i in range(3):
        with tf.GradientTape() as tape:
            y = step(tf.constant(float(i)))
        out += [y, tape.gradient(y, w)]
    return out, w, n, step.experimental_get_tracing_count()


@program
def traced_with_tape_inside():
    w = tf.Variable([1.0, 2.0])

    @tf.function
    def train(x):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(w * x)
            w.assign(w * 0.5)
            y = y + tf.reduce_sum(w * w)
        g = tape.gradient(y, w)
        w.assign_sub(0.1 * g)
        return y, g

    return train(tf.constant([1.0, 3.0])), train(tf.constant([2.0, 0.0])), w


@program
def traced_loop():
    w = tf.Variable(1.0)

    @tf.function
    def f(n):
        total = tf.constant(0.0)
        for i in tf.range(n):
            if i % 2 == 0:
                w.assign_add(1.0)
            total += w
        return total

    with tf.GradientTape() as tape:
        y = f(tf.constant(4))
    return y, tape.gradient(y, w), w


@program
def gradient_checks_its_arguments():
    w = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = w * 2
    return tape.gradient(None, w), y


@program
def assign_of_a_wrong_shape():
    w = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = w * 2
        w.assign([1.0, 2.0, 3.0])
    return tape.gradient(y, w)


@program
def error_in_a_gradient():
    @tf.custom_gradient
    def f(a):
        def grad(dy):
            raise ValueError("no gradient here")

        return a * 2, grad

    w = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = f(w)
    return tape.gradient(y, w)


@program
def error_is_caught():
    w = tf.Variable(2.0)
    tape = tf.GradientTape()
    try:
        with tape:
            y = w * w
            w.assign(1.0)
            raise KeyError("k")
    except KeyError:
        pass
    return tape.gradient(y, w), w


@program
def keras_training():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Dense(4, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    optimizer = keras.optimizers.Adam(0.01)
    x, y = tf.random.normal([8, 3]), tf.random.normal([8, 1])
    losses = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        losses.append(loss)
    return losses, [w.numpy() for w in model.weights], [v.numpy() for v in optimizer.variables]


@program
def keras_fit():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.linspace(0, 1, 48, dtype="float32").reshape(16, 3), np.ones((16, 1), "float32")
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    return history.history["loss"], [w.numpy() for w in model.weights]


@program
def keras_train_step():
    import keras

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)
            self.seen = tf.Variable(0.0, trainable=False)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
                self.seen.assign_add(1.0)
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    model = Model()
    model.compile("adam", run_eagerly=True)
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    return history.history["loss"], [w.numpy() for w in model.weights], model.seen


@program
def both_frameworks():
    import torch

    torch.manual_seed(0)
    t = torch.randn(3, requires_grad=True)
    h = torch.sigmoid(t)
    x = tf.Variable(h.detach().numpy().copy())
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(x * x)
        x.assign(x * 2)
        y = y + tf.reduce_sum(x)
    h.sum().backward()
    return y, tape.gradient(y, x), t.grad.numpy()


@program
def deleted_tapes():
    w = tf.Variable(1.0)
    for _ in range(20):
        with tf.GradientTape(persistent=True) as tape:
            y = w * w
            w.assign_add(0.5)
        g = tape.gradient(y, w)
        del tape
    return y, g, w
