"""Pickled messages over a pipe, each after its length, so that a reader can tell complete messages from truncated ones."""

from __future__ import annotations

import os
import pickle
import select
import struct
import time
from collections.abc import Iterator
from typing import Any

_LENGTH = struct.Struct("=Q")
_CHUNK = 1 << 20


class GoneError(Exception):
    """The other side has gone."""


def frame(message: Any) -> bytes:
    """A message as it is written to the pipe."""
    payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(payload)) + payload


def send(fd: int, message: Any) -> None:
    """Write one message, blocking.

    :raises GoneError: the reader has gone.
    """
    send_raw(fd, frame(message))


def send_raw(fd: int, data: bytes) -> None:
    """Write all of `data`, blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view[:_CHUNK]) :]
        except (BrokenPipeError, OSError) as error:
            raise GoneError from error


class Receiver:
    """Reads messages from a pipe, or from bytes that were read from one elsewhere."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes as they came."""
        self._buffer += data

    def whole(self) -> Iterator[Any]:
        """The complete messages so far."""
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield pickle.loads(payload)  # noqa: S301  our own forked process wrote it

    def receive(self, deadline: float | None = None) -> Any:
        """The next message.

        :param deadline: in the time of `time.monotonic`.
        :raises GoneError: the writer has gone.
        :raises TimeoutError: the deadline passed.
        """
        assert self._fd is not None
        while True:
            for message in self.whole():
                return message
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._fd], [], [], wait)[0]:
                raise TimeoutError
            try:
                data = os.read(self._fd, _CHUNK)
            except OSError as error:
                raise GoneError from error
            if not data:
                raise GoneError
            self.feed(data)
