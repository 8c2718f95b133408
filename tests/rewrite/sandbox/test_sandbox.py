"""Whatever a run does, this process sees nothing of it but its results."""

import os
import random
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from jupyter_inplace.rewrite.sandbox import linux
from jupyter_inplace.rewrite.sandbox.available import visible_device
from jupyter_inplace.rewrite.sandbox.outcome import Limits, SandboxUnavailableError
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forking is for Linux")
SHORT = Limits(seconds=0.7)


@pytest.fixture(scope="module")
def snapshot():
    with Snapshot.take({"x": torch.arange(3.0)}) as taken:
        yield taken


def run(snapshot, target, limits=None, **arguments):
    return snapshot.run(f"sandbox_targets:{target}", arguments, limits)


def test_each_run_starts_from_the_same_state():
    x = torch.arange(3.0)
    with Snapshot.take({"x": x}) as snapshot:
        x.add_(100)
        for _ in range(2):
            outcome = run(snapshot, "add_one")
            assert outcome.finished
            assert outcome.messages == ([1.0, 2.0, 3.0],)
    assert x.tolist() == [100, 101, 102]


def test_random_numbers_are_those_that_would_have_come(snapshot):
    random.seed(5)
    torch.manual_seed(5)
    with Snapshot.take({}) as snapshot:
        ((python, drawn, threads, _),) = run(snapshot, "look").messages
        assert (python, drawn, threads) == (random.random(), float(torch.rand(())), 1)
        ((python_again, drawn_again, _, _),) = run(snapshot, "look").messages
        assert (python_again, drawn_again) == (python, drawn)


def test_backward_works_and_threads_cannot_be_asked_for(snapshot):
    assert run(snapshot, "differentiate").messages == ([0.0, 2.0, 4.0],)
    assert run(snapshot, "set_threads").messages == (300.0**3,)


@pytest.mark.parametrize(
    ("target", "status", "detail", "messages"),
    [
        ("segfault", "crashed", "SIGSEGV", ("before",)),
        ("abort", "crashed", "SIGABRT", ()),
        ("leave", "exited", "3", ()),
        ("recurse_in_c", "crashed", "SIGSEGV", ()),
        ("fork_once", "finished", "", ("parent",)),
        ("fork_away", "finished", "", ("parent",)),
        ("fork_and_come_back", "finished", "", ("one of them",)),
    ],
)
def test_ends_of_a_process_are_outcomes(snapshot, target, status, detail, messages):
    outcome = run(snapshot, target)
    assert (outcome.status, outcome.detail, outcome.messages) == (status, detail, messages)
    assert_no_worker_left(snapshot)


@pytest.mark.parametrize("target", ["hang", "fork_and_hang"])
def test_time_limit(snapshot, target):
    began = time.monotonic()
    outcome = run(snapshot, target, SHORT)
    assert outcome.status == "timeout"
    assert "0.7 s" in outcome.in_words()
    assert time.monotonic() - began < 3
    assert outcome.messages == (("before",) if target == "hang" else ())
    assert_no_worker_left(snapshot)


def test_memory_limit(snapshot):
    outcome = run(snapshot, "eat_memory", Limits(memory_bytes=300 << 20))
    assert outcome.finished
    refused, size = outcome.messages
    assert refused
    assert size <= 300 << 20


def test_output_goes_nowhere_and_results_have_a_limit(snapshot, capfd):
    outcome = run(snapshot, "talk")
    assert outcome.messages == (b"w" * 3_000_000,)
    assert run(snapshot, "talk", Limits(result_bytes=1 << 20)).status == "too_large"
    assert capfd.readouterr() == ("", "")


def test_fault_of_the_target_is_told(snapshot):
    outcome = run(snapshot, "raise_out")
    assert outcome.status == "lost"
    assert "a fault of the target" in outcome.detail


@pytest.mark.parametrize("target", ["write_file", "save_tensor", "delete_file"])
def test_files_outside_stay_as_they_are(snapshot, tmp_path, target):
    path = tmp_path / "file"
    path.write_text("mine")
    outcome = run(snapshot, target, path=str(path))
    assert path.read_text() == "mine"
    assert outcome.messages[0] == "EscapeError"
    (escape,) = outcome.escapes
    assert str(path) in escape
    if target == "write_file":
        assert not Path(outcome.messages[1]).parent.exists()  # its private directory went with it


@pytest.mark.skipif(not sys.platform.startswith("linux") or not linux.landlock_version(), reason="no Landlock here")
def test_files_outside_are_safe_from_c_code(snapshot, tmp_path):
    outcome = run(snapshot, "write_in_c", path=str(tmp_path / "file"))
    assert outcome.messages == ((-1, "Permission denied"),)
    assert not list(tmp_path.iterdir())


def test_connections_and_programs_are_refused_and_told(snapshot):
    outcome = run(snapshot, "connect")
    assert outcome.messages == ("EscapeError",) * 3
    assert any("network" in escape for escape in outcome.escapes)
    outcome = run(snapshot, "start_program")
    assert outcome.messages == ("EscapeError",) * 2
    assert outcome.escapes == ("starts a program (true)",)


def test_signals_reach_its_own_children_only(snapshot):
    outcome = run(snapshot, "kill_keeper")
    assert outcome.messages == ("EscapeError", 15)
    assert "sends a signal" in outcome.escapes[0]


def test_data_loader_workers_are_contained_and_allowed(snapshot):
    outcome = run(snapshot, "load_data")
    assert (outcome.messages, outcome.escapes) == ((84.0,), ())
    assert_no_worker_left(snapshot)


def test_shared_memory_files_and_sockets_are_cut_off(tmp_path):
    path = tmp_path / "file"
    path.write_text("abcdefghi")
    ours, theirs = socket.socketpair()
    shared = torch.zeros(2).share_memory_()
    with path.open("r+") as handle, ours, theirs:
        assert handle.read(2) == "ab"
        position = os.lseek(handle.fileno(), 0, os.SEEK_CUR)
        with Snapshot.take({"shared": shared, "handle": handle, "socket": ours}) as snapshot:
            for _ in range(2):
                assert run(snapshot, "write_shared").messages == ([7.0, 7.0],)
            assert run(snapshot, "read_handle").messages == ("cde", "OSError")
            run(snapshot, "write_socket")
        assert os.lseek(handle.fileno(), 0, os.SEEK_CUR) == position
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
    assert shared.tolist() == [0, 0]
    assert path.read_text() == "abcdefghi"


def test_hundred_rounds_leave_nothing_behind():
    me = psutil.Process()
    with Snapshot.take({"x": torch.arange(3.0)}) as snapshot:
        keeper = psutil.Process(snapshot._process)
        targets = ["add_one", "segfault", "leave", "fork_away", "differentiate"]
        for target in targets:
            run(snapshot, target)
        before = (me.num_fds(), keeper.num_fds(), len(me.children(recursive=True)))
        held = [process.memory_full_info().uss for process in (me, keeper)]
        for i in range(100):
            run(snapshot, targets[i % len(targets)])
        assert (me.num_fds(), keeper.num_fds(), len(me.children(recursive=True))) == before
        grown = [p.memory_full_info().uss - h for p, h in zip((me, keeper), held, strict=True)]
        assert max(grown) < 4 << 20, grown
    assert not keeper.is_running()
    assert not directories_of(snapshot)


def test_snapshots_leave_nothing_behind():
    fds = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        Snapshot.take({}).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == fds
    assert not any(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process().children())


def test_cancelled_from_another_thread(snapshot):
    with Snapshot.take({}) as own:
        timer = threading.Timer(0.3, own.cancel)
        timer.start()
        began = time.monotonic()
        outcome = run(own, "wait", seconds=60)
        assert outcome.status == "cancelled"
        assert time.monotonic() - began < 5
        timer.join()
        assert run(own, "add_one").status == "cancelled"
        assert not psutil.pid_exists(own._process)


def test_interrupted_from_another_thread(snapshot):
    snapshot.interrupt()  # nothing is under way
    timer = threading.Timer(0.3, snapshot.interrupt)
    timer.start()
    outcome = run(snapshot, "wait", seconds=60)
    timer.join()
    assert outcome.status == "cancelled"
    assert_no_worker_left(snapshot)
    assert run(snapshot, "add_one").messages == ([1.0, 2.0, 3.0],)


def test_a_killed_keeper_takes_its_worker_along():
    with Snapshot.take({}) as own:
        workers = []

        def kill():
            deadline = time.monotonic() + 5
            while not workers and time.monotonic() < deadline:
                workers.extend(psutil.Process(own._process).children())
            os.kill(own._process, 9)

        thread = threading.Thread(target=kill)
        thread.start()
        outcome = run(own, "wait", seconds=60)
        thread.join()
        assert outcome.status == "lost"
        psutil.wait_procs(workers, timeout=5)
        assert not any(worker.is_running() for worker in workers)
        assert not directories_of(own)


def test_used_from_another_thread(snapshot):
    got = []
    thread = threading.Thread(target=lambda: got.append(run(snapshot, "add_one")))
    thread.start()
    thread.join()
    assert got[0].messages == ([1.0, 2.0, 3.0],)


def test_too_large_a_state_is_refused_in_words():
    big = torch.empty(3 << 20)
    state = {"model": torch.nn.Linear(2, 2), "view": big[10:], "again": [big]}
    with pytest.raises(SandboxUnavailableError, match=r"hold 12 MiB, more than the 1 MiB"):
        Snapshot.take(state, limit_bytes=1 << 20)
    Snapshot.take(state, limit_bytes=None).close()
    Snapshot.take(state, limit_bytes=13 << 20).close()


def test_only_the_main_thread_can_take_one():
    errors = []

    def take():
        try:
            Snapshot.take({})
        except SandboxUnavailableError as error:
            errors.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert errors == ["the cell does not run in the main thread"]


def test_not_where_a_device_is_visible(monkeypatch):
    assert visible_device() is None
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SandboxUnavailableError, match="sees a CUDA device"):
        Snapshot.take({})


def directories_of(snapshot):
    return list(Path(tempfile.gettempdir()).glob(f"jupyter_inplace-{snapshot._process}-*"))


def assert_no_worker_left(snapshot):
    assert psutil.Process(snapshot._process).children(recursive=True) == []
