"""Tensors of every kind: sparse, nested, quantized, inference, subclasses, aliases, metadata changes, copies."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref

import numpy as np
import pytest
import torch
from sameness import same
from torch import nn


def overwritten(make, write=lambda t: t.mul_(2), read=lambda t: t.sum()):
    """Save `make(x)` for backward, write it, run backward: torch refuses."""
    x = torch.randn(3, 4, requires_grad=True)
    h = make(x)
    write(h)
    read(h).backward()
    return x


KINDS = {
    "float": lambda: overwritten(torch.sigmoid),
    "double": lambda: overwritten(lambda x: x.double().sigmoid()),
    "bfloat16": lambda: overwritten(lambda x: x.bfloat16().sigmoid()),
    "complex": lambda: overwritten(lambda x: torch.complex(x, x).sigmoid(), read=lambda t: t.real.sum()),
    "view": lambda: overwritten(lambda x: x.sigmoid(), write=lambda t: t[0].mul_(2)),
    "transposed": lambda: overwritten(lambda x: x.t().sigmoid()),
    "scalar": lambda: overwritten(lambda x: x.sum().sigmoid(), read=lambda t: t),
    "empty": lambda: overwritten(lambda x: x[:0].sigmoid()),
    "expanded": lambda: overwritten(lambda x: x.exp(), write=lambda t: t.expand(3, 4).mul_(2)),
    "metadata": lambda: overwritten(lambda x: x.sigmoid(), write=lambda t: t.unsqueeze_(0)),
    "several outputs": lambda: overwritten(lambda x: x.sort()[0].exp()),
    "an input": lambda: _an_input(),
    "a leaf": lambda: _a_leaf(),
    "a list": lambda: _a_list(),
    "a second backward": lambda: _a_second_backward(),
    "under anomaly detection": lambda: _under_anomaly(),
    "of a custom name": lambda: overwritten(lambda x: nn.functional.softplus(x).log_softmax(-1)),
}


def _an_input():
    x = torch.randn(3, requires_grad=True)
    h = x * 1
    y = h.pow(2).sum()
    h.add_(1)
    y.backward()


def _a_leaf():
    w = torch.randn(3, requires_grad=True)
    y = (w * w).sum()
    with torch.no_grad():
        w.mul_(2)
    y.backward()


def _a_list():
    x = torch.randn(3, requires_grad=True)
    h = [x.exp(), x.sin()]
    y = torch.einsum("i,i->", *h)
    h[0].zero_()
    y.backward()


def _a_second_backward():
    x = torch.randn(3, requires_grad=True)
    y = x.exp().sum()
    y.backward()
    y.backward()


def _under_anomaly():
    with (
        pytest.warns(UserWarning, match="^(Anomaly Detection has been enabled|Error detected in )"),
        torch.autograd.detect_anomaly(check_nan=False),
    ):
        return overwritten(torch.sigmoid)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_overwritten_tensors(kind):
    def program():
        return KINDS[kind]()

    same(program)


REFUSED = {
    "leaf": lambda: torch.randn(3, requires_grad=True).add_(1),
    "view of a leaf": lambda: torch.randn(3, requires_grad=True)[0].add_(1),
    "output of a multi-view function": lambda: [t.add_(1) for t in (torch.randn(4, requires_grad=True) * 1).unbind()],
    "expanded memory": lambda: torch.randn(1).expand(3).add_(1),
    "integers in place": lambda: torch.ones(3, dtype=torch.long).add_(1.5),
    "wrong shape": lambda: torch.randn(3).add_(torch.randn(4)),
    "view made without grad": lambda: _view_made_without_grad(),
    "overlapping": lambda: (
        torch.randn(4)[1:].copy_(torch.randn(4)[:-1]) and torch.randn(4).as_strided((3,), (0,)).mul_(2)
    ),
    "inference tensor": lambda: _inference_outside(),
    "inference tensor saved": lambda: _inference_saved(),
    "out with grad": lambda: torch.exp(torch.randn(3, requires_grad=True), out=torch.empty(3)),
    "set_": lambda: torch.randn(3, requires_grad=True).set_(torch.randn(4)),
}


def _view_made_without_grad():
    base = torch.randn(4, requires_grad=True) * 1
    with torch.no_grad():
        view = base[1:]
    base.mul_(2)
    view.mul_(2)


def _inference_outside():
    with torch.inference_mode():
        t = torch.ones(3)
    t.add_(1)


def _inference_saved():
    with torch.inference_mode():
        t = torch.ones(3)
    return torch.randn(3, requires_grad=True) * t


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_writes(kind):
    def program():
        return REFUSED[kind]()

    same(program)


def test_sparse_tensors():
    def program():
        i = torch.tensor([[0, 1, 1], [2, 0, 2]])
        v = torch.randn(3, requires_grad=True)
        s = torch.sparse_coo_tensor(i, v, (2, 3)).coalesce()
        dense = torch.randn(3, 2, requires_grad=True)
        out = torch.sparse.mm(s, dense)
        out.mul_(2)
        out.sum().backward()
        plain = torch.sparse_coo_tensor(i, torch.ones(3), (2, 3)).coalesce()
        plain.mul_(3)
        plain.add_(plain)
        csr = torch.eye(3).to_sparse_csr()
        return v, dense, plain, csr @ torch.ones(3, 1), csr

    same(program)


def test_a_saved_sparse_tensor_overwritten():
    def program():
        s = torch.eye(3).to_sparse()
        d = torch.randn(3, 2, requires_grad=True)
        y = torch.sparse.mm(s, d).sum()
        s.mul_(2)
        y.backward()
        return d

    same(program)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors(layout):
    def program():
        parts = [torch.randn(2, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)]
        n = torch.nested.as_nested_tensor(parts, layout=layout)
        w = torch.randn(4, 4, requires_grad=True)
        out = (n @ w).relu()
        loss = sum(t.sum() for t in out.unbind())
        loss.backward()
        return parts, w, loss

    same(program)


def test_quantized_tensors():
    def program():
        q = torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8)
        r = q.clone()
        r.copy_(torch.ones(4))
        fake = torch.fake_quantize_per_tensor_affine(x := torch.randn(4, requires_grad=True), 0.1, 0, -128, 127)
        fake.mul_(2)
        fake.sum().backward()
        return q, r, q.dequantize(), x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program()  # torch warns of quantized tensors once
    same(program)


def test_inference_mode():
    def program():
        net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True))
        with torch.inference_mode():
            y = net(torch.randn(5, 4))
            y.mul_(2)
            y[0] = 1
            z = torch.ones(3)
            z.add_(1)
            torch._foreach_add_([z, z], 1)
            with torch.inference_mode(False):
                x = torch.randn(3, requires_grad=True)
                x.exp().sum().backward()
        return net, y, z, x

    same(program)


class Named(torch.Tensor):
    """A class that follows functions."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        calls.append(getattr(func, "__name__", str(func)))
        return super().__torch_function__(func, types, args, kwargs or {})


calls: list[str] = []


def test_a_tensor_class_that_follows_functions():
    def program():
        calls.clear()
        x = torch.randn(3).as_subclass(Named).requires_grad_()
        y = x * 2
        y.mul_(3)
        y.data.add_(0)
        y.sum().backward()
        d = x.detach()
        d.numpy()
        d.data_ptr()
        d.untyped_storage()
        x.register_hook(lambda g: g)
        e = x * 1
        e.detach_()
        return type(y).__name__, x.grad.as_subclass(torch.Tensor), list(calls), type(x.grad).__name__

    same(program)


def test_a_table_of_functions_made_before_the_watch():
    """Tensor classes look functions up by identity."""
    table = {
        torch.Tensor.numpy: "numpy",
        torch.Tensor.data_ptr: "data_ptr",
        torch.Tensor.detach_: "detach_",
        torch.Tensor.untyped_storage: "storage",
    }
    seen = []

    class Looking(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func in table:
                seen.append(table[func])
            return super().__torch_function__(func, types, args, kwargs or {})

    def program():
        seen.clear()
        x = torch.randn(3).as_subclass(Looking)
        x.numpy()
        x.data_ptr()
        x.detach_()
        x.untyped_storage()
        return list(seen)

    same(program)


class Careful(torch.Tensor):
    """A class with a say in what is assigned to it."""

    def __setattr__(self, name, value):
        calls.append(name)
        super().__setattr__(name, value)


def test_attributes_that_are_assigned_and_deleted():
    def program():
        calls.clear()
        x = torch.randn(3, requires_grad=True)
        y = x.exp()
        y.sum().backward()
        kept = x.grad
        x.grad = None
        x.grad = kept * 2
        first = x.grad.clone()
        del x.grad
        x.requires_grad = False
        x.requires_grad = True
        x.note = "mine"
        del x.note
        said = []
        for wrong in (lambda: setattr(y, "requires_grad", False), lambda: setattr(x, "requires_grad", 0)):
            try:
                wrong()
            except (RuntimeError, TypeError) as error:
                said.append(str(error))
        try:
            x.grad = torch.ones(7)
        except RuntimeError as error:
            said.append(str(error))
        try:
            del x.missing
        except AttributeError as error:
            said.append(str(error))
        other = torch.zeros(2).as_subclass(Careful)
        other.requires_grad = True
        other.data = torch.ones(2)
        other.grad = torch.ones(2).as_subclass(Careful)
        return first, x.grad, said, other.as_subclass(torch.Tensor), list(calls), "note" in x.__dict__

    same(program)


class Wrapper(torch.Tensor):
    """A class that dispatches, around a plain tensor."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            dtype=inner.dtype,
            device=inner.device,
            requires_grad=inner.requires_grad,
            strides=inner.stride(),
            storage_offset=0,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"Wrapper({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def unwrap(t):
            return t.inner if isinstance(t, Wrapper) else t

        def wrap(t):
            return Wrapper(t) if isinstance(t, torch.Tensor) and not isinstance(t, Wrapper) else t

        from torch.utils._pytree import tree_map

        out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs or {}))
        if func._schema.name.endswith("_") and func._schema.name.partition("::")[2][0] != "_":
            return args[0]
        return tree_map(wrap, out)


def test_a_tensor_class_that_dispatches():
    def program():
        x = Wrapper(torch.randn(3)).requires_grad_()
        y = x.exp() * x
        z = y.sigmoid()
        z.sum().backward()
        return z.inner, x.grad.inner, type(z).__name__, z._version

    same(program)


def test_a_dispatching_saved_tensor_overwritten():
    def program():
        x = Wrapper(torch.randn(3)).requires_grad_()
        z = x.sigmoid()
        z.mul_(2)
        z.sum().backward()

    same(program)


class Tagged(nn.Parameter):
    pass


def test_parameters_and_buffers_of_other_classes():
    def program():
        net = nn.Linear(3, 2)
        net.weight = Tagged(net.weight.data)
        net.register_buffer("mean", nn.Buffer(torch.zeros(2)))
        optimizer = torch.optim.Adam(net.parameters())
        out = net(torch.randn(4, 3))
        net.mean.mul_(0.9).add_(out.detach().mean(0))
        out.sum().backward()
        optimizer.step()
        lazy = nn.LazyLinear(2)
        lazy(torch.randn(4, 3)).sum().backward()
        return net, type(net.weight).__name__, lazy

    same(program)


def test_copies_and_files():
    def program():
        net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        net(torch.randn(4, 3)).sum().backward()
        twin = copy.deepcopy(net)
        again = pickle.loads(pickle.dumps(net))
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        buffer.seek(0)
        loaded = torch.load(buffer)
        x = torch.randn(3, requires_grad=True)
        leaf = copy.deepcopy(x)
        with pytest.raises(RuntimeError):
            copy.deepcopy(x * 2)
        return net, twin, again, dict(loaded), leaf, len(buffer.getvalue())

    same(program)


def test_swapped_tensors():
    def program():
        a, b = torch.randn(3), torch.randn(4)
        torch.utils.swap_tensors(a, b)
        net = nn.Linear(3, 2)
        net(torch.randn(2, 3)).sum().backward()
        net.zero_grad()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            net.double()
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
        net(torch.randn(2, 3, dtype=torch.double)).sum().backward()
        return a, b, net

    same(program)


def test_tensors_that_change_their_memory():
    def program():
        x = torch.randn(3, requires_grad=True)
        a = torch.randn(4)
        a.set_(torch.ones(2))
        a.resize_(5).zero_()
        b = torch.zeros(2)
        b.data = torch.ones(3)
        w = torch.randn(3, requires_grad=True)
        y = (w * x).sum()
        w.data = torch.zeros(3)
        y.backward()
        c = torch.randn(2, 3)
        c.t_()
        c.unsqueeze_(0).squeeze_()
        c.transpose_(0, 1)
        c.resize_as_(torch.ones(7)).fill_(0)
        c.untyped_storage().fill_(0)
        h = x * 2
        h.detach_()
        h.requires_grad_()
        h.sum().backward()
        return x, a, b, w, c, h

    same(program)


def test_memory_shared_with_numpy():
    def program():
        array = np.arange(4, dtype=np.float32)
        t = torch.from_numpy(array)
        w = torch.ones(4, requires_grad=True)
        y = (t * w).sum()
        array[:] = 7
        y.backward()
        d = w.detach().numpy()
        d[0] = 3
        u = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(t))
        u.add_(1)
        f = torch.frombuffer(bytearray(8), dtype=torch.float32)
        f.add_(1)
        return array, t, w, u, f, torch.asarray(array)

    same(program)


@pytest.mark.parametrize("way", ["views", "chunks", "slices", "masks", "index", "scatter"])
def test_writes_through_views(way):
    def program():
        x = torch.randn(4, 6, requires_grad=True)
        h = x * 1
        if way == "views":
            h.view(-1)[3:7].mul_(2)
            h.t().diagonal().add_(1)
        elif way == "chunks":
            for part in h.unsafe_chunk(2):
                part.mul_(2)
        elif way == "slices":
            h[1:3, ::2] = x[0, :3]
            h[0] += h[1]
        elif way == "masks":
            h[h > 0] = 0
            h.masked_fill_(h < -1, 5)
        elif way == "index":
            h.index_add_(0, torch.tensor([0, 0]), x[:2])
            h.index_put_((torch.tensor([1]),), x[0])
        else:
            h.scatter_(1, torch.zeros(4, 1, dtype=torch.long), x[:, :1])
        h.pow(2).sum().backward()
        return x, h

    same(program)


def test_out_arguments():
    def program():
        out = torch.empty(0)
        torch.add(torch.ones(3), 2, out=out)
        torch.mm(torch.ones(2, 2), torch.ones(2, 2), out=torch.empty(2, 2))
        values, index = torch.empty(0), torch.empty(0, dtype=torch.long)
        torch.sort(torch.randn(4), out=(values, index))
        torch.cat([torch.ones(2), torch.zeros(1)], out=(joined := torch.empty(3)))
        return out, values, index, joined

    same(program)


def test_factories_leave_the_versions_that_they_leave():
    def program():
        return [
            torch.ones(2), torch.zeros(2), torch.full((2,), 3.0), torch.arange(3), torch.linspace(0, 1, 3), torch.eye(2), torch.rand(2), torch.randn(2),
            torch.randint(0, 5, (3,)), torch.randperm(4), torch.tensor([1.0]), torch.empty(2).normal_(), torch.zeros_like(torch.ones(2)), torch.tril(torch.ones(2, 2)),
            torch.nn.init.orthogonal_(torch.empty(3, 3)), torch.bernoulli(torch.full((3,), 0.5)), torch.hann_window(4), torch.logspace(0, 1, 3),
        ]  # fmt: skip

    same(program)


def test_lifetimes():
    class Thing:
        pass

    def program():
        out = []
        x = torch.randn(3, requires_grad=True)
        holder = Thing()
        alive = weakref.ref(holder)
        y = x.exp()
        y.thing = holder
        del holder
        out.append(alive() is None)
        z = (y * y).sum()
        del y
        gc.collect()
        out.append(alive() is None)  # a saved input keeps its object
        z.backward()
        gc.collect()
        out.append(alive() is None)
        del z
        gc.collect()
        out.append(alive() is None)
        return out

    same(program)


def test_lifetimes_without_the_collector():
    """Nothing of ours forms a cycle with what the program drops."""

    class Thing:
        pass

    def program():
        gc.collect()
        gc.disable()
        try:
            out = []
            for kind in range(4):
                holder = Thing()
                alive = weakref.ref(holder)
                w = torch.randn(3, requires_grad=True)
                w.thing = holder
                del holder
                h = w * 1
                if kind == 1:
                    h.mul_(2)
                elif kind == 2:
                    h.data.mul_(1)
                elif kind == 3:
                    h.sigmoid_()
                (h * h).sum().backward()
                del w, h
                out.append(alive() is None)
        finally:
            gc.enable()
        return out

    same(program)


def test_a_loop_holds_no_memory():
    def live():
        return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    def program():
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
        counts = []
        for _ in range(12):
            net(torch.randn(3, 4)).sum().backward()
            net.zero_grad()
            gc.collect()
            counts.append(live())
        return counts[-1] - counts[5]

    same(program)
