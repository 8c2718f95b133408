"""Every module of torch.nn in train mode, forward, backward and a step: harmless, and with the gradients it has unwatched."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.testing._internal.common_modules import module_db

from jupyter_inplace import watch

_SAMPLES = 4  # of each module
MODULES = {info.name: info for info in module_db}


def _run(info, number):
    """One training step on sample `number`; returns what it left behind, or None where there is no such sample."""
    torch.manual_seed(0)
    samples = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=True)
    sample = list(samples)[number]
    torch.manual_seed(1)
    module = (
        info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).to(torch.float64).train()
    )
    given = [*sample.forward_input.args, *sample.forward_input.kwargs.values()]
    out = module(*sample.forward_input.args, **sample.forward_input.kwargs)
    floats = [t for t in _tensors(out) if t.is_floating_point() and t.requires_grad]
    loss = sum((t * t).sum() for t in floats) if floats else None
    if loss is not None:
        loss.backward()
        parameters = [p for p in module.parameters() if p.grad is not None]
        if parameters:
            torch.optim.SGD(parameters, lr=0.1).step()
    leaves = [t for t in _tensors(given) if t.is_leaf and t.requires_grad]
    return [
        *(t.detach() for t in _tensors(out)),
        *(t.grad for t in leaves if t.grad is not None),
        *(p.grad for p in module.parameters() if p.grad is not None),
        *(t for t in module.state_dict().values() if isinstance(t, torch.Tensor)),
    ]


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in _tensors(item)]
    return [t for item in value.values() for t in _tensors(item)] if isinstance(value, dict) else []


def _count(info):
    torch.manual_seed(0)
    return len(
        list(info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=True))
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_training_step_of_each_module(name):
    info = MODULES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = _count(info)
        assert count
        for number in sorted({i * (count - 1) // max(1, _SAMPLES - 1) for i in range(_SAMPLES)}):
            alone = _run(info, number)
            with watch() as report:
                watched = _run(info, number)
            assert report.verdict in ("harmless", "mixes"), (number, report.summary)
            assert not [note for note in report.blind_spots if "recorder failed" in note], report.blind_spots
            assert len(alone) == len(watched)
            for a, b in zip(alone, watched, strict=True):
                a, b = (t.to_padded_tensor(0.0) if t.is_nested else t for t in (a, b))
                assert torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True), number
