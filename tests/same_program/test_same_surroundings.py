"""What stands around the tensors: autocast, profilers, anomaly mode, threads, workers, other modes, generators, interruptions."""

from __future__ import annotations

import signal
import threading

import pytest
import torch
from sameness import installed, same
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from jupyter_inplace import watch
from jupyter_inplace.record import session as session_module
from jupyter_inplace.record.writes import write_entry


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))


def test_autocast_and_a_scaler():
    def program():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(torch.randn(5, 4))
                loss = nn.functional.mse_loss(out.float(), torch.ones(5, 3))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
        return model, out, loss, scaler.get_scale()

    same(program)


def test_a_profiler_and_its_labels():
    def program():
        model = net()
        with torch.profiler.profile() as profile, torch.profiler.record_function("step"):
            model(torch.randn(5, 4)).square().sum().backward()
        counts = {event.key: event.count for event in profile.key_averages()}
        # Of what ran: the dispatcher itself counts differently under any mode.
        return model, counts["step"], counts["aten::linear"]

    same(program)


def test_anomaly_mode():
    def program():
        with pytest.warns(UserWarning, match=r"^Anomaly Detection"):
            anomaly = torch.autograd.detect_anomaly()
        with anomaly:
            model = net()
            model(torch.randn(5, 4)).square().sum().backward()
        return model

    same(program)


class Counting(TorchDispatchMode):
    """A mode of the program's own."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Counting, FlopCounterMode])
def test_modes_of_the_program_inside(mode):
    def program():
        model, x = net(), torch.randn(5, 4)
        mine = mode(display=False) if mode is FlopCounterMode else mode()
        with mine:
            h = model(x)
            h.mul_(2)
            h.sum().backward()
        told = mine.get_total_flops() if mode is FlopCounterMode else mine.seen
        return model, h, told

    same(program)


def test_a_mode_of_the_program_around():
    def steps():
        model, x = net(), torch.randn(5, 4)
        h = model(x)
        h.mul_(2)
        h.sum().backward()
        return model

    torch.manual_seed(0)
    plain = Counting()
    with plain:
        expected = steps()
    torch.manual_seed(0)
    watched = Counting()
    with watched, watch() as report:
        found = steps()
    assert watched.seen == plain.seen
    for a, b in zip(expected.parameters(), found.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.grad, b.grad)
    assert report.verdict == "harmless"
    assert [m.op for m in report.mutations if m.tensor == "h"] == ["aten.mul_.Tensor"]


def test_function_modes():
    class Renaming(TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen.append(getattr(func, "__name__", str(func)))
            return func(*args, **(kwargs or {}))

    def program():
        w = torch.ones(3, requires_grad=True)
        with Renaming() as mode:
            h = w.exp()
            h[0] = 2.0
            (h * 1).sum().backward()
        return w, h, mode.seen

    same(program)


def test_threads_of_the_program():
    def program():
        results = {}

        def work(name, seed):
            generator = torch.Generator().manual_seed(seed)
            w = torch.randn(3, generator=generator).requires_grad_()
            h = w.exp()
            out = (h * h).sum()
            out.backward()
            results[name] = (w, h)

        threads = [threading.Thread(target=work, args=(i, i)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results[i] for i in range(3)]

    same(program)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader(workers):
    def program():
        data = TensorDataset(torch.arange(24.0).view(12, 2), torch.arange(12))
        model = nn.Linear(2, 1)
        seen = []
        for x, index in DataLoader(data, batch_size=4, shuffle=True, num_workers=workers):
            x.div_(10)
            model(x).square().mean().backward()
            seen.append(index)
        return model, seen

    same(program)


def test_generators_that_live_on():
    def losses(model):
        for _ in range(4):
            h = model(torch.randn(5, 4))
            yield h.square().sum()

    def program():
        model = net()
        coming = losses(model)
        next(coming).backward()
        total = sum(coming)
        total.backward()
        return model, total

    same(program)


def test_a_generator_begun_in_the_watch_and_ended_after_it():
    def steps():
        with torch.no_grad():
            yield torch.is_grad_enabled()
            yield torch.is_grad_enabled()

    before = installed()
    with watch():
        coming = steps()
        assert next(coming) is False
    assert list(coming) == [False]
    torch.set_grad_enabled(True)  # a block that a generator keeps open ends where that does
    assert installed() == before


def test_watches_in_watches():
    def program():
        model = net()
        with watch() as inner:
            h = model(torch.randn(5, 4))
            h.mul_(2)
            h.sum().backward()
        assert inner.verdict == "harmless"
        assert [m.tensor for m in inner.mutations if m.op == "aten.mul_.Tensor"] == ["h"]
        return model, h

    same(program)


class _OwnError(Exception):
    pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, _OwnError, GeneratorExit])
@pytest.mark.parametrize("where", ["forward", "backward", "step"])
def test_nothing_stays_after_it(kind, where):
    def stop(*_):
        raise kind

    def program():
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        if where == "forward":
            model.register_forward_hook(stop)
        if where == "step":
            optimizer.register_step_pre_hook(stop)
        h = model(torch.randn(5, 4))
        if where == "backward":
            h.register_hook(stop)
        h.square().sum().backward()
        optimizer.step()

    before = installed()
    with pytest.raises(kind), watch() as report:
        program()
    assert installed() == before
    assert report.error.type == kind.__name__
    same_error(program, kind)


def same_error(program, kind):
    with pytest.raises(kind) as plain:
        program()
    with pytest.raises(kind) as watched, watch():
        program()
    assert str(plain.value) == str(watched.value)


# One that comes in a callback of torch's own, when a weakly held tensor dies, is lost there with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_from_outside():
    """As a person's Ctrl+C comes: between two bytecodes of whatever runs, ours too."""
    before, handler = installed(), signal.getsignal(signal.SIGINT)
    main = threading.get_ident()
    interrupted = 0
    for delay in range(60):
        timer = threading.Timer(delay * 3e-4, signal.pthread_kill, (main, signal.SIGINT))
        try:
            try:
                timer.start()
                with watch():
                    model = net()
                    for _ in range(20):
                        h = model(torch.randn(5, 4))
                        h.mul_(2)
                        h.sum().backward()
            finally:
                timer.join()
        except KeyboardInterrupt:
            interrupted += 1
        assert installed() == before, delay
        assert signal.getsignal(signal.SIGINT) is handler
    assert interrupted > 50


@pytest.mark.faulty
@pytest.mark.parametrize(
    ("owner", "place"),
    [(write_entry.WriteEntry, "before"), (write_entry.WriteEntry, "after"), (session_module.Session, "note_place")],
)
def test_a_fault_of_ours_is_a_blind_spot_and_nothing_more(monkeypatch, owner, place):
    original = getattr(owner, place)

    def fail(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise ZeroDivisionError("injected")

    def program():
        w = torch.ones(3, requires_grad=True)
        h = w.exp()
        k = h * 2
        k.mul_(3)
        k.sum().backward()
        return w, h, k

    torch.manual_seed(0)
    plain = program()
    monkeypatch.setattr(owner, place, fail)
    before = installed()
    with watch() as report:
        found = program()
    assert installed() == before
    for a, b in zip(plain, found, strict=True):
        assert torch.equal(a, b)
        assert a._version == b._version
    assert torch.equal(plain[0].grad, found[0].grad)
    assert any("ZeroDivisionError: injected" in note for note in report.blind_spots), report.blind_spots
