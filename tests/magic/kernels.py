"""A real ipykernel, driven over its own protocol as a front end drives it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.manager import start_new_async_kernel

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Ran:
    """What a front end hears of one cell, in the order in which it hears it."""

    status: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    payload: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [output for output in self.outputs if output["kind"] == kind]

    def stream(self, name: str) -> str:
        return "".join(output["text"] for output in self.of("stream") if output["name"] == name)

    @property
    def value(self) -> str | None:
        """The plain text of the cell's last expression."""
        found = self.of("execute_result")
        return found[0]["data"]["text/plain"] if found else None

    @property
    def shown(self) -> list[dict[str, str]]:
        """The bundles that the cell displayed."""
        return [output["data"] for output in self.of("display_data")]

    @property
    def traceback(self) -> str:
        """The error as the notebook shows it, without colours."""
        (error,) = self.of("error")
        return _ANSI.sub("", "\n".join(error["traceback"]))


class Kernel:
    """One kernel process."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        options = {} if env is None else {"env": env}
        self._manager, self._client = self._wait(start_new_async_kernel(kernel_name="python3", **options))

    def _wait(self, coming: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(coming)

    def run(self, cell: str, *, cell_id: str | None = None, **keywords: Any) -> Ran:
        content = {
            "code": cell,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
            **keywords,
        }
        metadata = {"cellId": cell_id} if cell_id else {}
        message = self._client.session.msg("execute_request", content, metadata=metadata)
        self._client.shell_channel.send(message)
        return self._wait(self._listen(message["header"]["msg_id"]))

    async def _listen(self, request: str) -> Ran:
        ran = Ran()
        while True:
            message = await self._client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind in {"stream", "display_data", "update_display_data", "execute_result", "error"}:
                ran.outputs.append({"kind": kind, **content})
        while True:
            reply = await self._client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == request:
                ran.status = reply["content"]["status"]
                ran.payload = reply["content"].get("payload", [])
                ran.answers = reply["content"].get("user_expressions", {})
                return ran

    def interrupt(self) -> None:
        """Press Ctrl+C, from another thread."""
        asyncio.run(self._manager.interrupt_kernel())

    def complete(self, text: str) -> list[str]:
        return self._wait(self._client.complete(text, reply=True, timeout=60))["content"]["matches"]

    def stop(self) -> None:
        self._client.stop_channels()
        self._wait(self._manager.shutdown_kernel(now=True))
        self._loop.close()
