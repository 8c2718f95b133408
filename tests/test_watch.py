"""`with watch() as report:` in a script: tasks, verdicts and numbers. Expected values come from unwatched torch."""

import gc
import weakref

import pytest
import torch
from torch import nn

from jupyter_inplace import watch


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).requires_grad_()


def statuses(report):
    return {task.name: task.status for task in report.tasks}


def row(report, task, name):
    return next(g for g in report.gradients if (g.task, g.leaf) == (task, name))


class TestTasks:
    def test_summed_root_is_split_into_its_named_addends(self):
        with watch(gradients=True) as report:
            w = leaf(3)
            first, second = (w * w).sum(), (w * 3).sum()
            (first + 0.5 * second).backward()
        assert statuses(report) == {"first": "ok", "second": "ok"}
        (expected,) = torch.autograd.grad((w * w).sum(), w)
        assert row(report, "first", "w").norm_reference == pytest.approx(expected.norm().item())
        assert row(report, "second", "w").norm_reference == pytest.approx(1.5 * 3**0.5)  # its weight counts

    def test_named_root_stays_whole_unless_two_addends_are_named(self):
        with watch() as report:
            w = leaf(3)
            total = (w * w).sum() + (w * 3).sum()
            total.backward()
        assert statuses(report) == {"total": "ok"}
        with watch() as report:
            w = leaf(3)
            a, b = (w * w).sum(), (w * 3).sum()
            total = a + b
            total.backward()
        assert statuses(report) == {"a": "ok", "b": "ok"}

    def test_unnamed_addends_are_called_by_their_source(self):
        net = nn.Linear(3, 2)
        x = torch.ones(4, 3)
        with watch() as report:
            (net(x).pow(2).mean() + 0.1 * net(x).abs().mean()).backward()
        assert list(statuses(report)) == ["net(x).pow(2).mean()", "net(x).abs().mean()"]

    def test_items_of_a_container_are_told_apart(self):
        net = nn.Linear(3, 2)
        x = torch.ones(4, 3)
        with watch() as report:
            losses = {"seg": net(x).pow(2).mean(), "depth": net(x).abs().mean()}
            for loss in losses.values():
                loss.backward(retain_graph=True)
        assert list(statuses(report)) == ['losses["seg"]', 'losses["depth"]']
        with watch() as report:
            losses = {"seg": net(x).pow(2).mean(), "depth": net(x).abs().mean()}
            sum(losses.values()).backward()
        assert list(statuses(report)) == ['losses["seg"]', 'losses["depth"]']

    def test_rounds_of_a_loop_fold_into_one_task(self):
        net = nn.Linear(3, 2)
        history = []
        with watch() as report:
            for _ in range(4):
                loss = net(torch.ones(4, 3)).pow(2).mean()
                loss.backward()
                history.append(loss.detach())
        assert statuses(report) == {"loss": "ok"}

    def test_explicit_names_and_one_that_is_not_there(self):
        with watch("a", "nope", gradients=True) as report:
            w = leaf(3)
            a, b = (w * w).sum(), (w * 3).sum()
            total = a + 2 * b
            total.backward()
        assert statuses(report) == {"a": "ok"}
        assert "task 'nope' was not found; the tasks there are: a" in report.blind_spots

    def test_an_attribute_is_a_name(self):
        class Trainer:
            def step(self):
                self.loss = w.pow(2).sum()
                self.loss.backward()

        with watch() as report:
            w = leaf(3)
            trainer = Trainer()
            trainer.step()
        assert statuses(report) == {"trainer.loss": "ok"}


class TestVerdicts:
    def test_breaks_names_both_ends_and_spares_other_leaves(self):
        with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught, watch() as report:
            w, v = leaf(3), leaf(3, seed=1)
            h = w.sigmoid()
            loss = h.sum() + (v * v).sum()
            h.mul_(2)
            loss.backward()
        assert "jupyter_inplace: h.mul_(2)" in str(caught.value)
        (conflict,) = report.conflicts
        assert (conflict.node, conflict.saved_as, conflict.tensor) == ("SigmoidBackward0", "result", "h")
        assert (conflict.saved_version, conflict.found_version, conflict.bytes_overlapping) == (0, 1, 12)
        assert conflict.saved_site.text == "w.sigmoid()"
        assert {g.leaf: g.status for g in report.gradients} == {"w": "raises", "v": "ok"}
        expected = torch.autograd.grad(w.sigmoid().sum(), w)[0].norm().item()
        assert row(report, "loss", "w").norm_reference == pytest.approx(expected)

    def test_corrupts_gives_both_gradients(self):
        with watch() as report:
            w = leaf(3)
            h = w.sigmoid()
            loss = h.sum()
            h.data.mul_(2)
            loss.backward()
        assert report.verdict == "corrupts"
        found = row(report, "loss", "w")
        meant = torch.autograd.grad(w.sigmoid().sum(), w)[0]
        assert found.norm_reference == pytest.approx(meant.norm().item())
        assert found.norm_as_run == pytest.approx(w.grad.norm().item())
        assert found.relative_difference == pytest.approx(((w.grad - meant).norm() / meant.norm()).item())

    def test_overwritten_with_equal_consequence_is_harmless_where_torch_is_silent(self):
        with watch() as report:
            w = leaf(3)
            h = w.relu()
            loss = h.sum()
            h.data.mul_(2)  # the mask of the ReLU does not change
            loss.backward()
        assert report.verdict == "harmless"

    def test_a_slot_nobody_saved_still_breaks_and_says_that_no_value_changed(self):
        with pytest.raises(RuntimeError), watch() as report:
            w = leaf(2, 3)
            out = torch.zeros(2, 3)
            out[0] = w[0]
            y = out[0] * w[1]
            out[1] = y
            y.sum().backward()
        assert report.verdict == "breaks"
        assert all(c.value_changed is False for c in report.conflicts)

    def test_mixes_is_a_note_and_splits_by_version(self):
        with watch() as report:
            w, x, y = leaf(3), leaf(3, seed=1).detach(), leaf(3, seed=2).detach()
            first = (w * x).sum()
            with torch.no_grad():
                w.mul_(2)
            total = first + (w * y).sum()
            total.backward()
        assert report.verdict == "mixes"
        (gradient,) = report.gradients
        assert [(part.version, part.norm) for part in gradient.by_version] == [
            (0, pytest.approx(x.norm().item())),
            (1, pytest.approx(y.norm().item())),
        ]

    def test_a_write_that_breaks_one_task_and_mixes_another_in_names_the_one_that_it_breaks(self):
        w, encoder, x = leaf(3), leaf(3, 3, seed=1), torch.ones(4, 3)
        with watch() as report, pytest.raises(RuntimeError, match="modified by an inplace"):
            hidden = torch.tanh(x @ encoder)
            first = (hidden @ w).sum()
            with torch.no_grad():
                w.mul_(2)
            second = (hidden @ w).sum()
            (first + second).backward()
        # unwatched: `second` alone can be differentiated, `first` alone cannot
        assert statuses(report) == {"first": "raises", "second": "ok"}
        (write,) = report.mutations
        assert (write.verdict, write.tasks, set(write.leaves)) == ("breaks", ("first",), {"encoder", "w"})
        assert "second" not in report.summary

    def test_a_graph_still_alive_is_pending(self):
        with watch() as report:
            w = leaf(3)
            h = w.sigmoid()
            loss = h.sum()
            h.detach().mul_(2)
        assert (report.verdict, report.mutations[-1].pending) == ("breaks", True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()  # graphs that outlive the watch are still checked

    def test_a_graph_that_is_gone_is_harmless(self):
        with watch() as report:
            w = leaf(3)
            h = w.sigmoid()
            loss = h.sum()
            del loss
            h.detach().mul_(2)
            del h
        assert report.verdict == "harmless"

    def test_saved_before_the_watch(self):
        w = leaf(3)
        h = w.sigmoid()
        loss = h.sum()
        with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught, watch() as report:
            h.detach().zero_()
            loss.backward()
        assert "saved before the watch began" in str(caught.value)
        (conflict,) = report.conflicts
        assert (conflict.node, conflict.saved_before_watch, conflict.leaves) == ("SigmoidBackward0", True, ("w",))
        assert report.mutations[conflict.mutation].site.text == "h.detach().zero_()"

    def test_rejected_leaf(self):
        with pytest.raises(RuntimeError, match="leaf Variable"), watch() as report:
            x = leaf(3)
            x.add_(1)
            loss = x.sum()
            loss.backward()
        assert report.verdict == "rejected"
        assert statuses(report) == {"loss": "raises"}
        assert report.mutations[-1].leaves == ("x",)

    def test_both_watches_of_a_nest_see_the_damage(self):
        with watch() as outer:
            w = leaf(3)
            h = w.sigmoid()
            with watch() as inner:
                h.detach().mul_(2)
                with pytest.raises(RuntimeError):
                    h.sum().backward()
        assert (outer.verdict, inner.verdict) == ("breaks", "breaks")


class TestHandle:
    def test_nothing_ran(self):
        with watch() as report:
            pass
        assert report.verdict == "harmless"
        assert report.summary == "nothing to watch: no torch ran here."

    def test_attributes_come_with_the_report(self):
        handle = watch()
        with pytest.raises(AttributeError, match="verdict"):
            _ = handle.verdict
        with handle:
            torch.ones(3)
        assert handle.verdict == "harmless"

    @pytest.mark.parametrize(("tasks", "options"), [((1,), {}), ((" ",), {}), ((), {"fingerprint": "some"})])
    def test_bad_arguments_are_said_in_the_users_words(self, tasks, options):
        with pytest.raises(ValueError, match=r"1|' '|some"):
            watch(*tasks, **options)

    def test_a_watch_runs_once_at_a_time(self):
        handle = watch()
        with handle, pytest.raises(RuntimeError, match="running already"):
            handle.start()
        with pytest.raises(RuntimeError, match="never started"):
            watch().stop()

    def test_graphs_and_tensors_die_as_they_do_unwatched(self):
        class Marked(torch.Tensor):
            pass

        with watch():
            w = leaf(3)
            h = w.sigmoid()
            marked = torch.ones(3).as_subclass(Marked)
            gone = weakref.ref(marked)
            loss = (h * marked).sum()
            loss.backward()
            del marked, h, loss
            gc.collect()
            assert gone() is None
