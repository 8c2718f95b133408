"""A browser and a Jupyter server for the whole session; a page for each test."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator

import pytest
from lab import Notebook
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from server import EXTENSION, ROOT, JupyterServer

ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def _samples():
    """`tests/show/samples.py`, which builds reports as real cells give them."""
    spec = importlib.util.spec_from_file_location("ji_samples", ROOT / "tests" / "show" / "samples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def samples():
    return _samples()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("Chromium is missing: apt-get install --no-install-recommends chromium fonts-dejavu-core")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    if not (EXTENSION / "package.json").is_file():
        pytest.fail("the front end is not built: npm ci && npm run build in labextension/")
    server = JupyterServer(tmp_path_factory.mktemp("jupyter"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One cache for all pages: JupyterLab is megabytes of script."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000}, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A fresh page; errors of ours that the page reports fail the test."""
    page = context.new_page()
    errors = _errors_of(page)
    yield page
    page.close()
    assert not _ours(errors)


@pytest.fixture(scope="session")
def _lab_page(context: BrowserContext, server: JupyterServer) -> Iterator[tuple[Page, list[str]]]:
    page = context.new_page()
    errors = _errors_of(page)
    page.goto(server.lab_url("lab?reset"))
    page.wait_for_function("() => window.jupyterapp", timeout=60_000)
    page.evaluate("async () => { await window.jupyterapp.restored; }")
    yield page, errors
    page.close()


@pytest.fixture
def lab(_lab_page: tuple[Page, list[str]]) -> Iterator[Notebook]:
    """The one JupyterLab that stays on the page, for tests that need no page of their own."""
    page, errors = _lab_page
    errors.clear()
    notebook = Notebook(page)
    yield notebook
    notebook.leave()
    assert not _ours(errors)


def _errors_of(page: Page) -> list[str]:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
    return errors


def _ours(errors: list[str]) -> list[str]:
    return [error for error in errors if "jupyter-inplace" in error or "panel.js" in error]
