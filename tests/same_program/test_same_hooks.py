"""Checkpoints, saved-tensor hooks of the program's own, hooks on tensors, nodes and modules."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from sameness import same
from torch import nn
from torch.autograd.graph import (
    allow_mutation_on_saved_tensors,
    disable_saved_tensors_hooks,
    save_on_cpu,
    saved_tensors_hooks,
)
from torch.utils.checkpoint import checkpoint, checkpoint_sequential


def block():
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(8, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("preserve", [True, False])
def test_checkpoint(reentrant, preserve):
    def program():
        model, last = block(), nn.Linear(4, 2)
        x = torch.randn(6, 4, requires_grad=True)
        y = checkpoint(model, x, use_reentrant=reentrant, preserve_rng_state=preserve)
        last(y).square().sum().backward()
        return model, last, x, y

    same(program)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_region_runs_as_often_as_unwatched(reentrant):
    runs = []

    def program():
        runs.clear()
        model = block()
        x = torch.randn(6, 4, requires_grad=True)

        def run(x):
            runs.append(len(runs))
            return model(x)

        y = checkpoint(run, x, use_reentrant=reentrant)
        y.square().sum().backward()
        return model, x, list(runs)

    same(program)


@pytest.mark.parametrize("reentrant", [True, False])
def test_nested_checkpoints(reentrant):
    def program():
        inner, outer = block(), block()
        x = torch.randn(6, 4, requires_grad=True)

        def run(x):
            return outer(checkpoint(inner, x.sin(), use_reentrant=reentrant)).exp()

        y = checkpoint(run, x, use_reentrant=reentrant)
        y.mean().backward()
        return inner, outer, x, y

    same(program)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_of_a_sequence(reentrant):
    def program():
        model = nn.Sequential(*[block() for _ in range(4)])
        x = torch.randn(6, 4, requires_grad=True)
        checkpoint_sequential(model, 2, x, use_reentrant=reentrant).sum().backward()
        return model, x

    same(program)


def test_checkpoint_stops_early():
    calls = []

    def program():
        calls.clear()
        x = torch.randn(4, requires_grad=True)

        def run(x):
            y = x.exp()
            calls.append("saved")
            z = y.sin() * 2 + 1
            calls.append("past the last one")
            return z + 3

        with torch.utils.checkpoint.set_checkpoint_early_stop(True):
            y = checkpoint(run, x, use_reentrant=False)
        y.sum().backward()
        with torch.utils.checkpoint.set_checkpoint_early_stop(False):
            y = checkpoint(run, x, use_reentrant=False)
        y.sum().backward()
        return x, list(calls)

    same(program)


def test_checkpoint_with_double_backward():
    def program():
        x = torch.randn(4, requires_grad=True)
        y = checkpoint(lambda x: x.sin().exp(), x, use_reentrant=False)
        (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        g.pow(2).sum().backward()
        return x, g

    same(program, known="gradients are added out of place")


def test_checkpoint_that_recomputes_something_else():
    def program():
        x = torch.randn(4, requires_grad=True)
        turns = iter([1, 2])

        def run(x):
            for _ in range(next(turns)):
                x = x.exp().sin()
            return x

        y = checkpoint(run, x, use_reentrant=False, determinism_check="default")
        try:
            y.sum().backward()
        except torch.utils.checkpoint.CheckpointError as error:
            return str(error).splitlines()[0]
        return x

    same(program)


def test_checkpoint_whose_region_raises_again():
    def program():
        x = torch.randn(4, requires_grad=True)
        turns = iter([False, True])

        def run(x):
            if next(turns):
                raise KeyError("second time")
            return x.exp()

        checkpoint(run, x, use_reentrant=False).sum().backward()

    same(program)


def test_checkpoint_of_an_overwritten_input():
    def program():
        x = torch.randn(4, requires_grad=True)
        h = x * 1
        y = checkpoint(lambda h: h.sin().exp(), h, use_reentrant=False)
        h.mul_(2)
        y.sum().backward()
        return x

    same(program)


def test_selective_checkpoint():
    def program():
        from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

        def policy(context, op, *args, **kwargs):
            return CheckpointPolicy.MUST_SAVE if op is torch.ops.aten.mm.default else CheckpointPolicy.PREFER_RECOMPUTE

        w = torch.randn(4, 4, requires_grad=True)
        x = torch.randn(4, 4, requires_grad=True)
        y = checkpoint(
            lambda x: (x @ w).sin().exp() @ w,
            x,
            use_reentrant=False,
            context_fn=lambda: create_selective_checkpoint_contexts(policy),
        )
        y.sum().backward()
        return x, w

    same(program, known="gradients are added out of place")


def test_save_on_cpu():
    def program():
        x = torch.randn(4, requires_grad=True)
        before = x.exp()
        with save_on_cpu():
            y = before.sin() * x
        z = y.exp()
        z.sum().backward()
        return x, z

    same(program, known="gradients are added out of place")


def test_save_on_cpu_keeps_what_was_saved():
    """Its copies make the write harmless, watched as unwatched."""

    def program():
        x = torch.randn(4, requires_grad=True)
        y = x * 1
        with save_on_cpu():
            z = y.pow(2)
        y.mul_(5)
        z.sum().backward()
        return x

    same(program)


def test_hooks_of_the_program_around_the_watch():
    from sameness import compare, run, run_watched

    def program():
        x = torch.randn(4, requires_grad=True)
        y = x.exp()
        z = y.sin()
        y.mul_(2)
        z.sum().backward()
        return x

    packed = []

    def pack(t):
        packed.append(t.shape)
        return t.clone()

    with saved_tensors_hooks(pack, lambda t: t):
        plain = run(program)
        seen, _ = list(packed), packed.clear()
        watched, report = run_watched(program)
        assert packed == seen
    compare(plain, watched)
    assert any("saved-tensor hooks of the program were in force" in spot for spot in report.blind_spots)


def test_hooks_of_the_program_inside():
    log = []

    def program():
        log.clear()
        x = torch.randn(4, requires_grad=True)

        def pack(t):
            log.append(("pack", tuple(t.shape), t.grad_fn.name() if t.grad_fn else None, t._version))
            return t * 2

        def unpack(t):
            log.append(("unpack", tuple(t.shape)))
            return t / 2

        y = x.exp()
        with saved_tensors_hooks(pack, unpack):
            z = y.sin() * x
            with saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
                z = z * z.exp()
            z = z.cos()
        z = z.tanh()
        z.sum().backward()
        return x, list(log)

    same(program, known="gradients are added out of place")


def test_a_hook_of_the_program_that_raises():
    class Refused(Exception):
        pass

    def program():
        x = torch.randn(4, requires_grad=True)

        def pack(t):
            raise Refused("not this one")

        with saved_tensors_hooks(pack, lambda t: t):
            x.exp()

    same(program)


def test_an_unpack_hook_of_the_program_that_raises():
    def program():
        x = torch.randn(4, requires_grad=True)
        with saved_tensors_hooks(lambda t: "name", lambda name: {}[name]):
            y = x.exp()
        y.sum().backward()

    same(program)


def test_a_pack_hook_that_writes_is_refused():
    def program():
        x = torch.randn(4, requires_grad=True)

        def pack(t):
            with torch.no_grad():
                t.add_(1)
            return t

        with saved_tensors_hooks(pack, lambda t: t):
            return x.exp()

    same(program)


def test_hooks_forbidden_inside():
    def program():
        x = torch.randn(4, requires_grad=True)
        with disable_saved_tensors_hooks("not here"):
            y = x.exp()
            with disable_saved_tensors_hooks("nor here"):
                z = y.sin()
                try:
                    with saved_tensors_hooks(lambda t: t, lambda t: t):
                        pass
                except RuntimeError as error:
                    text = str(error)
        z.sum().backward()
        with saved_tensors_hooks(lambda t: t, lambda t: t):
            w = x.cos()
        w.sum().backward()
        return x, text

    same(program)


def test_hooks_registered_on_saved_tensors():
    def program():
        x = torch.randn(4, requires_grad=True)
        y = x.exp()
        try:
            y.grad_fn._raw_saved_result.register_hooks(lambda t: t.clone(), lambda t: t)
        except RuntimeError as error:
            return str(error)
        y.sum().backward()
        return x

    # Registering a second pair is refused where a default pair is in force, which ours is.
    from sameness import run, run_watched

    plain, (watched, _) = run(program), run_watched(program)
    assert plain.error == watched.error == ()


def test_mutation_allowed_inside():
    def program():
        x = torch.randn(4, requires_grad=True)
        with allow_mutation_on_saved_tensors():
            y = x * 1
            z = y.pow(2)
            y.mul_(3)
            z.sum().backward()
            b = torch.randn(3)
            w = (b * x[:3]).sum()
            b.add_(1)
            w.backward()
        return x, y

    same(program)


def test_mutation_allowed_around():
    from sameness import compare, run, run_watched

    def program():
        x = torch.randn(4, requires_grad=True)
        y = x * 1
        z = y.pow(2)
        y.mul_(3)
        z.sum().backward()
        return x, y

    with allow_mutation_on_saved_tensors():
        plain = run(program)
        watched, report = run_watched(program)
    compare(plain, watched)
    assert report.verdict == "harmless"


def test_saved_attributes_of_nodes():
    """As values: what was an input comes back as another object over the same memory, as with any saved-tensor hooks."""

    def program():
        x = torch.randn(4, requires_grad=True)
        y = x.exp()
        z = y * x
        first = y.grad_fn._saved_result, z.grad_fn._saved_self, z.grad_fn._saved_other.detach()
        shared = torch.randn(3, requires_grad=True)
        w = shared.pow(2)
        second = w.grad_fn._saved_self.detach(), w.grad_fn._saved_exponent
        raw = w.grad_fn._raw_saved_self is not None
        w.sum().backward()
        try:
            w.grad_fn._saved_self
        except RuntimeError as error:
            return first, second, raw, str(error)

    same(program)


def test_saved_attribute_of_an_overwritten_tensor():
    def program():
        x = torch.randn(4, requires_grad=True)
        y = x.exp()
        y.mul_(2)
        return y.grad_fn.next_functions[0][0]._saved_result

    same(program)


def test_tensor_hooks():
    def program():
        log = []
        x = torch.randn(4, requires_grad=True)
        y = x.exp()
        y.register_hook(lambda g: log.append(("y", g.clone())))
        y.register_hook(lambda g: g * 2)
        handle = x.register_hook(lambda g: log.append("removed"))
        handle.remove()
        x.register_hook(lambda g: g + 1)
        y.retain_grad()
        z = y.sin()
        y.mul_(1.5)  # the hooks stay with the value that they were registered on
        z2 = (y * 3).sum()
        z2.backward()
        return x, y, log, z

    same(program)


def test_retained_gradients_of_what_is_written_in_place():
    def program():
        x = torch.randn(4, requires_grad=True)
        y = x * 2
        y.retain_grad()
        y.mul_(3)
        y.retain_grad()
        y.sum().backward()
        return x, y, y.retains_grad

    same(program)


def test_hooks_that_write():
    def program():
        x = torch.randn(4, requires_grad=True)
        y = x.exp()

        def double(g):
            g.mul_(2)

        y.register_hook(double)
        (y * 3).sum().backward()
        return x

    same(program)


def test_post_accumulate_hooks():
    def program():
        model = nn.Linear(3, 2)
        optimizers = {p: torch.optim.Adam([p], lr=0.1) for p in model.parameters()}

        def step(p):
            optimizers[p].step()
            optimizers[p].zero_grad()

        handles = [p.register_post_accumulate_grad_hook(step) for p in model.parameters()]
        for _ in range(3):
            model(torch.randn(4, 3)).square().mean().backward()
        for handle in handles:
            handle.remove()
        return model

    same(program)


def test_node_hooks():
    def program():
        log = []
        x = torch.randn(4, requires_grad=True)
        y = x.exp()
        y.grad_fn.register_hook(lambda gi, go: log.append(("hook", gi[0].clone(), go[0].clone())))
        y.grad_fn.register_prehook(lambda go: (go[0] * 2,))
        accumulate = y.grad_fn.next_functions[0][0]
        accumulate.register_prehook(lambda g: log.append(("leaf", g[0].clone())))
        y.sum().backward()
        return x, log, accumulate.variable is x

    same(program)


@pytest.mark.parametrize("mode", ["all", "any"])
def test_multi_gradient_hooks(mode):
    def program():
        log = []
        x, y = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
        a, b = x.exp(), y.sin()
        torch.autograd.graph.register_multi_grad_hook((a, b), lambda g: log.append(g), mode=mode)
        (a * b).sum().backward()
        return x, y, log

    same(program)


def test_module_hooks():
    def program():
        log = []
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        model[0].register_forward_pre_hook(lambda m, args: (args[0] * 2,))
        model[0].register_forward_hook(lambda m, args, out: out + 1)
        model[2].register_full_backward_hook(lambda m, gi, go: log.append((gi[0].clone(), go[0].clone())))
        model[2].register_full_backward_pre_hook(lambda m, go: (go[0] * 3,))
        model.register_state_dict_pre_hook(lambda m, prefix, keep: log.append("state"))
        model(torch.randn(3, 4)).sum().backward()
        return model, log, model.state_dict()

    same(program)


def test_global_module_hooks():
    from torch.nn.modules.module import register_module_forward_hook, register_module_full_backward_hook

    def program():
        log = []
        handles = [
            register_module_forward_hook(lambda m, args, out: log.append(type(m).__name__)),
            register_module_full_backward_hook(lambda m, gi, go: log.append("back " + type(m).__name__)),
        ]
        try:
            model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
            model(torch.randn(3, 4, requires_grad=True)).sum().backward()
        finally:
            for handle in handles:
                handle.remove()
        return model, log

    same(program)


@pytest.mark.parametrize("where", ["tensor", "node", "prehook", "leaf", "post", "module"])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_hook_that_raises(where, kind):
    def program():
        x = torch.randn(4, requires_grad=True)
        model = nn.Linear(4, 4)
        y = x.exp()

        def refuse(*args):
            raise kind("in a hook")

        if where == "tensor":
            y.register_hook(refuse)
        elif where == "node":
            y.grad_fn.register_hook(refuse)
        elif where == "prehook":
            y.grad_fn.register_prehook(refuse)
        elif where == "leaf":
            x.register_hook(refuse)
        elif where == "post":
            x.register_post_accumulate_grad_hook(refuse)
        else:
            model.register_full_backward_hook(refuse)
        model(y).sum().backward()

    same(program)


def test_lifetime_of_what_hooks_hold():
    class Thing:
        pass

    def program():
        thing = Thing()
        alive = weakref.ref(thing)
        x = torch.randn(4, requires_grad=True)
        y = x.exp()
        y.register_hook(lambda g, thing=thing: None)
        del thing
        first = alive() is not None
        y.sum().backward()
        del y
        gc.collect()
        return first, alive() is not None, x

    same(program)
