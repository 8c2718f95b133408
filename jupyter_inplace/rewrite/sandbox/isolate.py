"""Isolates a forked process: its open files, shared memory, output, and what it may write."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import stat
import sys
from collections.abc import Collection
from typing import Any

from jupyter_inplace.rewrite.sandbox import linux
from jupyter_inplace.rewrite.sandbox.private import use_directory


def isolate_snapshot(keep: Collection[int], shared_limit: int) -> None:
    """Once, in the snapshot process: drop sockets, pipes and terminals of the parent, and memory shared with it.

    :param keep: descriptors that stay as they are.
    :param shared_limit: bytes of shared memory that may be copied.
    :raises MemoryError: there is more.
    """
    faulthandler.disable()
    sys.dont_write_bytecode = True
    _replace_descriptors(keep)
    linux.make_shared_mappings_private(shared_limit)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def isolate_worker(keep: Collection[int], directory: str, memory_bytes: int) -> None:
    """For one run: separate file offsets, read only; a private temporary directory; and a memory limit.

    :param directory: the only place that it may write to.
    :param memory_bytes: how much it may allocate beyond what it holds now.
    """
    _reopen_files(keep)
    use_directory(directory)
    limit_memory(memory_bytes)
    _one_thread()


def limit_memory(memory_bytes: int) -> None:
    """Limit this process to so many bytes beyond what it holds now, and each file that it writes to as many."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _data_bytes() + memory_bytes
    for what, value in ((resource.RLIMIT_DATA, limit), (resource.RLIMIT_FSIZE, memory_bytes)):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, hard))


def _replace_descriptors(keep: Collection[int]) -> None:
    """Replace every descriptor that leads out of this process with /dev/null. Files and harmless devices stay."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in _descriptors():
        if fd in keep or fd <= 2 or fd == null:
            continue
        with contextlib.suppress(OSError):
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or _is_null_like(fd, mode)):
                os.dup2(null, fd, inheritable=False)
    os.close(null)


def _reopen_files(keep: Collection[int]) -> None:
    """Reopen files, since an open file shares its offset and write permission with the process that opened it."""
    for fd in _descriptors():
        if fd in keep:
            continue
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                continue
            position = os.lseek(fd, 0, os.SEEK_CUR)
            try:
                own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # deleted, or no permission to read it
                own = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            else:
                os.lseek(own, position, os.SEEK_SET)
            os.dup2(own, fd, inheritable=False)
            os.close(own)


def _descriptors() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        fd = int(name)
        with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed by now
            os.fstat(fd)
            found.append(fd)
    return found


def _is_null_like(fd: int, mode: int) -> bool:
    # Character devices that stay: /dev/null, /dev/zero, /dev/random and the like, all of major number 1.
    return stat.S_ISCHR(mode) and os.major(os.fstat(fd).st_rdev) == 1


def _data_bytes() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123
        for line in status:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def _one_thread() -> None:
    """Use one thread: worker threads did not survive the fork, and waiting for them would hang."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.set_num_threads = lambda *_count: None
        torch.set_num_interop_threads = lambda *_count: None
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
