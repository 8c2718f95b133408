"""One JupyterLab (and Notebook 7) server for all browser tests, with nothing of the person's own settings."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "jupyter_inplace" / "labextension"
TOKEN = "browser-tests"


class JupyterServer:
    """A server on a free port of this machine; `stop` ends it and its kernels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.axe = ROOT / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir(parents=True)
        extensions = folder / "labextensions"
        extensions.mkdir()
        (extensions / "jupyter-inplace").symlink_to(EXTENSION)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        names = (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "IPYTHONDIR",
            "JUPYTERLAB_SETTINGS_DIR",
        )
        own = {name: str(folder / name.lower()) for name in names}
        own["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / "workspaces")
        settings = Path(own["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
                f"--ServerApp.root_dir={self.notebooks}", f"--IdentityProvider.token={TOKEN}",
                "--ServerApp.open_browser=False", "--LabApp.news_url=None",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True",
                f"--LabServerApp.extra_labextensions_path={extensions}",
                f"--JupyterNotebookApp.extra_labextensions_path={extensions}",
            ],
            env={**os.environ, **own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def wait(self, seconds: float = 60) -> None:
        """Until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/api/status?token={TOKEN}", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("JupyterLab did not start:\n" + (self.folder / "server.log").read_text()[-3000:])

    def stop(self) -> None:
        """End the server, which ends its kernels."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def write(self, name: str, cells: list[dict[str, object]]) -> str:
        """A notebook of those cells; returns its name."""
        notebook = {
            "cells": cells,
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.notebooks / name).write_text(json.dumps(notebook))
        return name

    def lab(self, name: str) -> str:
        """Where JupyterLab shows the notebook."""
        return f"{self.url}/doc/tree/{name}?token={TOKEN}&reset"

    def notebook(self, name: str) -> str:
        """Where Notebook 7 shows it."""
        return f"{self.url}/notebooks/{name}?token={TOKEN}"

    def lab_url(self, path: str) -> str:
        """Any other address of the server."""
        return f"{self.url}/{path}{'&' if '?' in path else '?'}token={TOKEN}"


def code_cell(
    source: str, outputs: list[dict[str, object]] | None = None, identity: str = "cell-1"
) -> dict[str, object]:
    """A code cell as notebooks store it."""
    return {
        "cell_type": "code",
        "id": identity,
        "metadata": {},
        "execution_count": 7 if outputs else None,
        "outputs": outputs or [],
        "source": source,
    }


def displayed(bundle: dict[str, object]) -> dict[str, object]:
    """An output as `display` stores it."""
    return {"output_type": "display_data", "metadata": {}, "data": bundle}
