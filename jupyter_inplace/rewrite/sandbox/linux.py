"""The few Linux calls that Python does not offer: prctl, Landlock, and mappings at a fixed address."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_CHANGES = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR ... MAKE_SYM: all changes of a directory
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_NET_TCP = 0b11  # bind, connect
_SCOPED = 0b11  # abstract UNIX sockets, signals

_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 0x02, 0x10, 0x20
_PROT_READ_WRITE = 0x1 | 0x2


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when the thread that forked it ends.

    :param parent: its process id, in case it ended before this call.
    """
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def landlock_version() -> int:
    """The version of Landlock that this kernel offers, 0 if none."""
    libc = _libc()
    libc.syscall.restype = ctypes.c_long
    return max(0, int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _RULESET_VERSION)))


def forbid_writes(except_beneath: Iterable[str]) -> bool:
    """Make the kernel permanently refuse this process any change of files, TCP connections, and signals to other processes.

    Files that are already open stay as they are.

    :param except_beneath: the directories and files that may be written.
    :return: whether the kernel took it.
    """
    version = landlock_version()
    if not version:
        return False
    libc = _libc()
    libc.syscall.restype = ctypes.c_long
    rights = _WRITE_FILE | _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = [rights]
    if version >= 4:
        attributes.append(_NET_TCP)
    if version >= 6:
        attributes.append(_SCOPED)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = libc.syscall(_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0)
    if ruleset < 0:
        return False
    try:
        for path in except_beneath:
            with contextlib.suppress(OSError):
                parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
                allowed = rights if os.path.isdir(path) else rights & (_WRITE_FILE | _TRUNCATE)  # noqa: PTH112
                rule = struct.pack("=Qi", allowed, parent)
                libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
                os.close(parent)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def make_shared_mappings_private(limit_bytes: int) -> int:
    """Replace the writable shared mappings of this process with private copies at the same addresses.

    :return: the bytes copied.
    :raises MemoryError: they are more than `limit_bytes`.
    """
    libc = _libc()
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    copied = 0
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
        lines = maps.read().splitlines()
    for line in lines:
        span, mode, *_ = line.split(None, 5)
        if mode[1] != "w" or mode[3] != "s" or "r" not in mode:
            continue
        low, high = (int(part, 16) for part in span.split("-"))
        size = high - low
        copied += size
        if copied > limit_bytes:
            raise MemoryError(f"{copied} bytes of shared memory")
        content = ctypes.string_at(low, size)
        flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS
        if libc.mmap(low, size, _PROT_READ_WRITE, flags, -1, 0) == low:
            ctypes.memmove(low, content, size)
    return copied


def children_of(parent: int) -> list[int]:
    """The process ids of the living children of `parent`."""
    processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return [process for process in processes if parent_of(process) == parent]


def parent_of(process: int) -> int | None:
    """The parent of a process, None if there is no such process."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:  # noqa: PTH123
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
