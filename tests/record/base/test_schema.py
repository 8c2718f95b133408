"""Which arguments an operator writes to, against torch's own alias analysis of every operator that it ships."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace import preserve_saved, watch
from jupyter_inplace.record.base.schema import ALIAS, make_plan

aten = torch.ops.aten

# Where torch's analysis and the plan differ, and why.
EXPECTED_DIFFERENCES = {
    # Writes that torch's analysis does not know of: kernels of batch norm across devices.
    "aten::batch_norm_update_stats": {"running_mean", "running_var"},
    "aten::batch_norm_gather_stats": {"running_mean", "running_var"},
    "aten::batch_norm_gather_stats_with_counts": {"running_mean", "running_var"},
    # Declared as writes, yet neither a value nor a shape changes.
    "aten::record_stream": {"self"},
    "aten::requires_grad_": {"self"},
    "aten::retain_grad": {"self"},
    # No function of torch calls the out variant.
    "aten::native_batch_norm.out": {"running_mean", "running_var"},
}
TRAINING = ("training", "train", "use_input_stats")


def all_overloads():
    names = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")}
    for name in sorted(names):
        packet = getattr(aten, name.removeprefix("aten::"))
        for overload in packet.overloads():
            yield getattr(packet, overload)


def written_by_torch(func, training):
    info = torch._C._SchemaInfo(func._schema)
    for argument in func._schema.arguments:
        if argument.name in TRAINING:
            info.add_argument_value(argument.name, training)
    return {argument.name for argument in func._schema.arguments if info.is_mutable(argument.name)}


def test_every_operator_of_torch():
    differences = {}
    compared = writing = 0
    for func in all_overloads():
        plan = make_plan(func)
        places = plan.places if plan is not None and plan is not ALIAS else []
        ours = {name for _, name in places}
        if difference := ours ^ written_by_torch(func, training=True):
            differences[func.name()] = difference
        assert ours == {func._schema.arguments[position].name for position, _ in places}
        compared += 1
        writing += bool(ours)
    assert differences == EXPECTED_DIFFERENCES
    assert compared > 2500
    assert writing > 1000


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("func", [
    aten.native_batch_norm.default, aten.cudnn_batch_norm.default, aten.miopen_batch_norm.default, aten.batch_norm.default,
    aten._batch_norm_impl_index.default, aten.instance_norm.default,
])  # fmt: skip
def test_running_statistics_are_written_in_training_alone(func, training):
    values = {
        "running_mean": torch.zeros(3),
        "running_var": torch.ones(3),
        "training": training,
        "use_input_stats": training,
    }
    args = [values.get(argument.name) for argument in func._schema.arguments]
    plan = make_plan(func)
    expected = written_by_torch(func, training)
    written = {name for name in ("running_mean", "running_var") for t in plan.tensors(args, {}) if t is values[name]}
    assert written == expected
    assert plan.tensors((), {a.name: v for a, v in zip(func._schema.arguments, args, strict=True)}) == plan.tensors(
        args, {}
    )
    assert plan.hidden
    assert not plan.bumps


def test_the_table_agrees_with_the_kernel():
    """The kernel itself: training moves the statistics and leaves their version, evaluation moves neither."""
    for training in (True, False):
        mean, var = torch.zeros(3), torch.ones(3)
        aten.native_batch_norm.default(torch.randn(5, 3), None, None, mean, var, training, 0.1, 1e-5)
        assert torch.equal(mean, torch.zeros(3)) is not training
        assert mean._version == 0


def test_tensors_by_position_keyword_and_in_lists():
    a, b, out = torch.ones(2), torch.ones(2), torch.empty(2)
    assert make_plan(aten.add_.Tensor).tensors((a, b), {}) == [a]
    assert make_plan(aten.add.out).tensors((a, b), {"out": out})[0] is out
    assert make_plan(aten._foreach_add_.Scalar).tensors(([a, b], 1), {}) == [a, b]
    assert make_plan(aten.index_put_.default).tensors((a, [None, torch.tensor(0)], b), {})[0] is a
    values, indices = torch.empty(2), torch.empty(2, dtype=torch.long)
    found = make_plan(aten.sort.values).tensors((a,), {"values": values, "indices": indices})
    assert [t is v for t, v in zip(found, (values, indices), strict=True)] == [True, True]


def test_operators_that_write_nothing_have_no_plan():
    assert make_plan(aten.add.Tensor) is None
    assert make_plan(aten.view.default) is None
    assert make_plan(aten.detach.default) is ALIAS
    assert make_plan(torch.ops.higher_order.cond) is None
    assert make_plan(torch.add) is None


def test_what_kind_of_write():
    assert make_plan(aten._foreach_mul_.Scalar).foreach
    assert not make_plan(aten.mul_.Tensor).foreach
    assert make_plan(aten.unsqueeze_.default).metadata_only
    assert make_plan(aten.t_.default).metadata_only
    assert not make_plan(aten.relu_.default).metadata_only
    assert not make_plan(aten._fused_adam_.default).bumps
    assert make_plan(aten.mul_.Tensor).bumps
    assert not make_plan(aten.mul_.Tensor).custom
    assert str(make_plan(aten.mul_.Tensor).name) == "aten.mul_.Tensor"


def test_a_fused_step_leaves_the_version_as_the_plan_says():
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1, fused=True)
    weight.sum().backward()
    before = weight._version
    optimizer.step()
    assert not torch.equal(weight, torch.ones(3))
    assert weight._version == before
    assert not make_plan(aten._fused_sgd_.default).bumps


def test_operators_that_write_an_input_besides_their_result_bump_no_version():
    noise, x = torch.zeros(4, 3), torch.randn(4, 3, requires_grad=True)
    aten.rrelu_with_noise.default(x, noise, 0.1, 0.3, True).sum().backward()  # torch does not count it as in-place
    assert bool(noise.any())
    assert noise._version == 0
    mean, var = torch.zeros(3), torch.ones(3)
    aten._native_batch_norm_legit.default(x, None, None, mean, var, True, 0.1, 1e-5)
    assert bool(mean.any())
    assert mean._version == 0
    for func in (
        aten.rrelu_with_noise.default,
        aten._native_batch_norm_legit.default,
        aten._batch_norm_with_update.default,
    ):
        assert make_plan(func).hidden
        assert not make_plan(func).bumps
    assert not make_plan(aten.mul_.Tensor).hidden
    assert not make_plan(aten.add.out).hidden
    assert not make_plan(aten._foreach_add_.Scalar).hidden


def test_lists_of_tensors_get_the_versions_that_they_have_unwatched():
    def program():
        pair = [torch.ones(2), torch.ones(3)]
        torch._foreach_mul_(pair, 2.0)
        torch._amp_foreach_non_finite_check_and_unscale_(pair, torch.zeros(1), torch.ones(1))
        sized, empty = [torch.empty(2), torch.empty(3)], [torch.empty(0), torch.empty(3)]
        torch.split_with_sizes_copy(torch.ones(5), [2, 3], out=sized)
        torch.split_with_sizes_copy(torch.ones(5), [2, 3], out=empty)
        return [t._version for t in pair + sized + empty]

    plain = program()
    assert plain == [1, 1, 1, 1, 2, 1]
    with watch() as report:
        assert program() == plain
    rows = [(m.op.partition(".")[2], m.versions) for m in report.mutations]
    assert ("_foreach_mul_.Scalar", (0, 1)) in rows
    assert ("_amp_foreach_non_finite_check_and_unscale_.default", (1, 1)) in rows


class Bumps(TorchDispatchMode):
    """As a torch that bumps the versions of lists under a mode, which is to come (pytorch#197502)."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = [t._version for t in args[0]]
        out = func(*args, **(kwargs or {}))
        if "_foreach_" in str(func) and [t._version for t in args[0]] == before:
            torch.autograd.graph.increment_version(args[0])
        return out


@pytest.mark.parametrize("where", ["watched", "preserved"])
def test_versions_of_lists_are_bumped_once_whether_torch_does_it_or_not(where):
    pair = [torch.ones(2), torch.ones(3)]
    torch._foreach_mul_(pair, 2.0)
    assert [t._version for t in pair] == [1, 1]
    with {"watched": watch, "preserved": preserve_saved}[where]():
        torch._foreach_mul_(pair, 2.0)
    assert [t._version for t in pair] == [2, 2]
    with Bumps(), {"watched": watch, "preserved": preserve_saved}[where]():
        torch._foreach_mul_(pair, 2.0)
    assert [t._version for t in pair] == [3, 3]


def test_custom_operators_run_their_body_through_us():
    @torch.library.custom_op("schema_test::twice", mutates_args=("x",))
    def twice(x: torch.Tensor, by: torch.Tensor) -> None:
        x.mul_(by)

    plan = make_plan(torch.ops.schema_test.twice.default)
    x, by = torch.ones(2), torch.ones(2)
    assert plan.custom
    assert plan.tensors((x, by), {})[0] is x
    assert len(plan.tensors((x, by), {})) == 1
