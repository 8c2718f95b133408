"""Work that is done in another thread or another process, to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch.multiprocessing as mp


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_process(work: Callable[[], object]) -> None:
    process = mp.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
