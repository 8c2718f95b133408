"""What the sandbox tests run: each takes the state and a function that sends a message back."""

import ctypes
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch


def add_one(state, send):
    state["x"].add_(1)
    send(state["x"].tolist())


def look(state, send):
    send((random.random(), float(torch.rand(())), torch.get_num_threads(), os.environ["TMPDIR"]))


def set_threads(state, send):
    torch.set_num_threads(2)
    send(float((torch.ones(300, 300) @ torch.ones(300, 300)).sum()))


def differentiate(state, send):
    x = state["x"].requires_grad_()
    (x * x).sum().backward()
    send(x.grad.tolist())


def segfault(state, send):
    send("before")
    ctypes.string_at(0)


def abort(state, send):
    os.abort()


def leave(state, send):
    os._exit(3)


def raise_out(state, send):
    raise ValueError("a fault of the target")


def hang(state, send):
    send("before")
    ctypes.CDLL(None).sleep(100)


def fork_once(state, send):
    if os.fork() == 0:
        time.sleep(100)
    send("parent")


def fork_and_come_back(state, send):
    os.fork()
    send("one of them")


def fork_away(state, send):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(100)
        os._exit(0)
    send("parent")


def fork_and_hang(state, send):
    for _ in range(3):
        os.fork()
    while True:
        time.sleep(1)


def eat_memory(state, send):
    try:
        torch.ones(1 << 34, dtype=torch.uint8)
    except RuntimeError as error:
        send("can't allocate memory" in str(error))
    blocks = []
    try:
        while True:
            blocks.append(bytearray(1 << 24))
    except MemoryError:
        size = len(blocks) << 24
        del blocks
        send(size)


def recurse_in_c(state, send):
    sys.setrecursionlimit(10**9)

    def deeper(_):
        return sorted([1, 2], key=deeper)

    deeper(0)


def talk(state, send):
    print("x" * 2_000_000)
    print("y" * 2_000_000, file=sys.stderr)
    os.write(1, b"z" * 100_000)
    send(b"w" * 3_000_000)


def write_file(state, send, path):
    try:
        Path(path).write_text("outside")
    except Exception as error:
        send(type(error).__name__)
    with tempfile.NamedTemporaryFile() as inside:
        inside.write(b"inside")
        send(inside.name)


def save_tensor(state, send, path):
    try:
        torch.save([1], path)
    except Exception as error:
        send(type(error).__name__)


def write_in_c(state, send, path):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.open(os.fsencode(path), os.O_CREAT | os.O_WRONLY, 0o600)
    send((fd, os.strerror(ctypes.get_errno())))


def delete_file(state, send, path):
    try:
        Path(path).unlink()
    except Exception as error:
        send(type(error).__name__)


def connect(state, send):
    for act in (
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: socket.socket().bind(("127.0.0.1", 0)),
    ):
        try:
            act()
        except Exception as error:
            send(type(error).__name__)


def start_program(state, send):
    for act in (lambda: subprocess.run(["true"], check=False), lambda: os.system("true")):
        try:
            act()
        except Exception as error:
            send(type(error).__name__)


def kill_keeper(state, send):
    try:
        os.kill(os.getppid(), 9)
    except Exception as error:
        send(type(error).__name__)
    child = os.fork()
    if child == 0:
        time.sleep(100)
    os.kill(child, 15)
    send(os.waitpid(child, 0)[1])


class _Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.full((3,), float(i))


def load_data(state, send):
    loader = torch.utils.data.DataLoader(_Numbers(), batch_size=2, num_workers=2)
    send(sum(float(batch.sum()) for batch in loader))


def write_shared(state, send):
    state["shared"].fill_(7)
    send(state["shared"].tolist())


def read_handle(state, send):
    handle = state["handle"]
    send(handle.read(3))
    try:
        os.write(handle.fileno(), b"no")
    except OSError as error:
        send(type(error).__name__)


def write_socket(state, send):
    try:
        state["socket"].sendall(b"out")
        send("sent")
    except OSError as error:
        send(type(error).__name__)


def wait(state, send, seconds):
    send(os.getpid())
    time.sleep(seconds)


def run_cell(state, send, source):
    from jupyter_inplace.rewrite.proof.execute import RunnableCell

    error = RunnableCell(state, source).run()
    send(state.user_ns["total"] if error is None else repr(error))
