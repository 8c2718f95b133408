"""torch.func, torch.autograd.functional, gradcheck: transforms around and inside of watched code."""

from __future__ import annotations

import pytest
import torch
from sameness import same
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.func import grad_and_value as value_and_grad


def energy(x):
    return (x.sin() * x).sum()


def writes(x):
    y = x.clone()
    y.mul_(2)
    y[0] = 3.0
    return y.pow(3).sum()


class Scaled(torch.autograd.Function):
    """A custom Function of the new style, which transforms accept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, factor):
        return x * factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, factor = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.factor = factor

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * ctx.factor + 0 * x, None

    @staticmethod
    def jvp(ctx, tangent, _):
        return tangent * ctx.factor


class ScaledByHand(torch.autograd.Function):
    """The same with its own vmap."""

    @staticmethod
    def forward(x):
        return x * 3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 + 0 * x

    @staticmethod
    def vmap(info, in_dims, x):
        return ScaledByHand.apply(x), in_dims[0]


TRANSFORMS = {
    "grad": lambda f, x: grad(f)(x),
    "grad_and_value": lambda f, x: value_and_grad(f)(x),
    "vjp": lambda f, x: vjp(f, x)[1](torch.tensor(2.0)),
    "jvp": lambda f, x: jvp(f, (x,), (torch.ones_like(x),)),
    "linearize": lambda f, x: linearize(f, x)[1](torch.ones_like(x)),
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "hessian": lambda f, x: hessian(f)(x),
    "vmap": lambda f, x: vmap(f)(torch.stack([x, x + 1])),
    "vmap of grad": lambda f, x: vmap(grad(f))(torch.stack([x, x + 1])),
    "grad of vmap": lambda f, x: grad(lambda x: vmap(f)(torch.stack([x, x + 1])).sum())(x),
    "grad of grad": lambda f, x: grad(lambda x: grad(f)(x).sum())(x),
    "vmap in chunks": lambda f, x: vmap(f, chunk_size=1)(torch.stack([x, x + 1])),
    "random vmap": lambda f, x: vmap(lambda x: f(x * torch.rand_like(x)), randomness="different")(torch.stack([x, x])),
}


@pytest.mark.parametrize("function", [energy, writes], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, function):
    transform = TRANSFORMS[name]

    def program():
        x = torch.randn(3)
        leaf = torch.randn(3, requires_grad=True)
        ordinary = (leaf.exp() * leaf).sum()  # a graph of the plain kind on both sides of the transform
        out = transform(function, x)
        late = leaf.sigmoid().prod()
        (ordinary + late).backward()
        return x, leaf, out

    same(program)


@pytest.mark.parametrize("name", ["grad", "vjp", "jacrev", "vmap", "hessian"])
def test_a_transform_of_tensors_with_graphs(name):
    transform = TRANSFORMS[name]

    def program():
        leaf = torch.randn(3, requires_grad=True)
        out = transform(energy, leaf.exp())
        total = sum(t.sum() for t in (out if isinstance(out, tuple) else (out,)))
        total.backward()
        return leaf, out

    same(program)


@pytest.mark.parametrize("function", [Scaled, ScaledByHand])
@pytest.mark.parametrize("name", ["grad", "vmap", "vmap of grad", "jacrev", "vjp"])
def test_transforms_of_custom_functions(name, function):
    transform = TRANSFORMS[name]

    def f(x):
        return (function.apply(x, 3.0) if function is Scaled else function.apply(x)).pow(2).sum()

    def program():
        leaf = torch.randn(3, requires_grad=True)
        f(leaf).backward()
        return transform(f, torch.randn(3)), leaf

    same(program)


def test_functional_call_and_per_sample_gradients():
    def program():
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        parameters = dict(model.named_parameters())
        x, y = torch.randn(5, 4), torch.randint(0, 2, (5,))

        def loss(parameters, x, y):
            return nn.functional.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

        each = vmap(grad(loss), in_dims=(None, 0, 0))({k: v.detach() for k, v in parameters.items()}, x, y)
        whole = nn.functional.cross_entropy(functional_call(model, parameters, (x,)), y)
        whole.backward()
        return each, model, whole

    same(program)


def test_ensembling():
    def program():
        models = [nn.Linear(3, 2) for _ in range(4)]
        parameters, buffers = torch.func.stack_module_state(models)
        base = nn.Linear(3, 2).to("meta")
        out = vmap(lambda p, b, x: functional_call(base, (p, b), (x,)), in_dims=(0, 0, None))(
            parameters, buffers, torch.randn(5, 3)
        )
        out.square().mean().backward()
        return out, parameters

    same(program)


def test_functionalize():
    def program():
        return torch.func.functionalize(writes)(torch.randn(3)), torch.func.functionalize(grad(writes))(torch.randn(3))

    same(program)


def test_a_transform_that_raises():
    def program():
        x = torch.randn(3)
        leaf = torch.randn(3, requires_grad=True)
        before = leaf.exp().sum()
        with pytest.raises(RuntimeError):
            grad(lambda x: x.sin())(x)  # not a scalar
        with pytest.raises(ZeroDivisionError):
            vmap(grad(lambda x: x.sum() / (1 // 0)))(torch.stack([x, x]))
        leaf.sigmoid().sum().backward()
        before.backward()
        return leaf

    same(program)


def test_a_transform_that_raises_out_of_the_block():
    def program():
        grad(lambda x: x.sin())(torch.randn(3))

    same(program)


def test_a_saved_tensor_overwritten_inside_of_grad():
    def broken(x):
        y = x.sigmoid()
        z = y.pow(2)
        y.mul_(2)
        return z.sum()

    def program():
        return grad(broken)(torch.randn(3))

    same(program)


def test_a_saved_tensor_of_a_plain_graph_overwritten_inside_of_a_transform():
    def program():
        leaf = torch.randn(3, requires_grad=True)
        held = leaf.exp()
        loss = held.sum()

        def f(x):
            with torch.no_grad():
                held.mul_(2)
            return x.sin().sum()

        out = grad(f)(torch.randn(3))
        try:
            loss.backward()
        except RuntimeError as error:
            return str(error).partition("\n\n")[0], out
        return leaf, out

    same(program)


def test_the_user_is_refused_as_ever():
    """torch.func still refuses the hooks of the program itself."""

    def program():
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            grad(energy)(torch.randn(3))

    same(program)


def test_hooks_inside_of_a_transform_are_refused_as_ever():
    def f(x):
        with torch.autograd.graph.save_on_cpu():
            return x.sin().sum()

    def program():
        return grad(f)(torch.randn(3))

    same(program)


FUNCTIONAL = {
    "jacobian": lambda f, x: torch.autograd.functional.jacobian(f, x),
    "jacobian, vectorized": lambda f, x: torch.autograd.functional.jacobian(f, x, vectorize=True),
    "jacobian, forward": lambda f, x: torch.autograd.functional.jacobian(f, x, vectorize=True, strategy="forward-mode"),
    "jacobian, with a graph": lambda f, x: torch.autograd.functional.jacobian(f, x, create_graph=True),
    "hessian": lambda f, x: torch.autograd.functional.hessian(lambda x: f(x).sum(), x),
    "hessian, vectorized": lambda f, x: torch.autograd.functional.hessian(lambda x: f(x).sum(), x, vectorize=True),
    "vjp": lambda f, x: torch.autograd.functional.vjp(f, x, torch.ones(3)),
    "jvp": lambda f, x: torch.autograd.functional.jvp(f, x, torch.ones(3)),
    "vhp": lambda f, x: torch.autograd.functional.vhp(lambda x: f(x).sum(), x, torch.ones(3)),
    "hvp": lambda f, x: torch.autograd.functional.hvp(lambda x: f(x).sum(), x, torch.ones(3)),
}


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_autograd_functional(name):
    def program():
        x = torch.randn(3, requires_grad=True)
        return FUNCTIONAL[name](lambda x: x.sin() * x.exp(), x), x

    same(program)


def test_forward_mode():
    def program():
        import torch.autograd.forward_ad as forward

        x = torch.randn(3, requires_grad=True)
        with forward.dual_level():
            dual = forward.make_dual(x, torch.ones(3))
            out = (dual * 2).sin()
            out.mul_(dual)
            tangent = forward.unpack_dual(out).tangent
            out.sum().backward()
        return x, tangent

    same(program)


def test_gradcheck():
    def program():
        x = torch.randn(3, dtype=torch.double, requires_grad=True)

        def f(x):
            y = x.exp()
            y.mul_(x)
            return y.sin()

        return (
            torch.autograd.gradcheck(f, x), torch.autograd.gradgradcheck(f, x), torch.autograd.gradcheck(f, x, fast_mode=True),
            torch.autograd.gradcheck(f, x, check_forward_ad=True, check_batched_grad=True),
        )  # fmt: skip

    same(program)


def test_gradcheck_that_fails():
    def program():
        x = torch.randn(3, dtype=torch.double, requires_grad=True)
        with pytest.raises(torch.autograd.gradcheck.GradcheckError) as caught:
            torch.autograd.gradcheck(lambda x: x.exp().detach() * x, x)
        return str(caught.value)

    same(program)


def test_double_backward():
    def program():
        x = torch.randn(3, requires_grad=True)
        y = x.sin() * x.exp()
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), x, create_graph=True)
        second.sum().backward()
        return x, first, second

    same(program)


def test_gradient_penalty():
    def program():
        model = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 1))
        x = torch.randn(4, 3, requires_grad=True)
        (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        ((g.norm(dim=1) - 1) ** 2).mean().backward()
        return model, x

    same(program)


def test_backward_with_create_graph():
    def program():
        x = torch.randn(3, requires_grad=True)
        x.sin().sum().backward(create_graph=True)
        x.grad.pow(2).sum().backward()
        grad_of = x.grad.detach().clone()
        x.grad = None  # breaks the cycle
        return grad_of

    same(program)


def test_batched_gradients():
    def program():
        x = torch.randn(3, requires_grad=True)
        y = x.sin() * 2
        (rows,) = torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True, retain_graph=True)
        y.mul_(2)
        (again,) = torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)
        return rows, again

    same(program)


def test_batched_gradients_of_an_overwritten_tensor():
    def program():
        x = torch.randn(3, requires_grad=True)
        y = x.exp()
        y.mul_(2)
        torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)

    same(program)


def test_gradient_edges_and_inputs():
    def program():
        x = torch.randn(3, requires_grad=True)
        y = x.sin()
        z = y.exp()
        edge = torch.autograd.graph.get_gradient_edge(z)
        given = torch.autograd.grad(edge, [y, x], torch.ones(3), retain_graph=True)
        torch.autograd.backward(z.sum(), inputs=[y, x], retain_graph=True)
        z.sum().backward(inputs=x)
        unused = torch.autograd.grad(
            z.sum(), torch.zeros(2, requires_grad=True), allow_unused=True, materialize_grads=True
        )
        return given, x, unused

    same(program)
