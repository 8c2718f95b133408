"""Runs the source of a cell as IPython would, but without output, history and the magic line."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

_MAGIC_LINE = re.compile(r"[ \t]*%%autograd_watch\b.*")
_CAPTURE = re.compile(r"[ \t]*%%capture\b.*")  # it swallows errors, and nothing is displayed here anyway
_PLAIN_FILE = "<cell>"

OnMark = Callable[[], None]


def _nothing(*_arguments: Any, **_options: Any) -> None:
    return None


def without_magic(source: str) -> str:
    """The cell with its `%%autograd_watch` line turned into a comment, so that line numbers stay the same."""
    lines = source.split("\n")
    for place, line in enumerate(lines):
        if _CAPTURE.fullmatch(line):
            lines[place] = "#"
            continue
        if _MAGIC_LINE.fullmatch(line):
            lines[place] = "#"
            below = next((i for i in range(place + 1, len(lines)) if lines[i].strip()), len(lines))
            if below < len(lines) and _CAPTURE.fullmatch(lines[below]):
                lines[below] = "#"
                below += 1
            if below < len(lines) and lines[below].startswith("%%"):
                from IPython.core.inputtransformer2 import cell_magic

                rest = cell_magic([text + "\n" for text in lines[below:]])
                return "\n".join(lines[:below]) + "\n" + "".join(rest)
        if line.strip() and not line.startswith("%%"):
            break
    return "\n".join(lines)


class RunnableCell:
    """A cell that can be run once.

    :param state: the shell that runs it, or the dictionary of its names.
    :param marks: line numbers; `on_mark` is called before each execution of a statement on one of them, `on_leave` after it.
    """

    def __init__(
        self,
        state: Any,
        source: str,
        marks: tuple[int, ...] = (),
        on_mark: OnMark = _nothing,
        on_leave: OnMark = _nothing,
    ) -> None:
        self.source = without_magic(source)
        self._shell = None if isinstance(state, dict) else state
        self._namespace: dict[str, Any] = state if isinstance(state, dict) else state.user_ns
        self._marks = marks
        self._names = dict(zip(Marker.NAMES, (on_mark, on_leave), strict=True)) if marks else {}
        self.file = _PLAIN_FILE if self._shell is None else _file_of(self._shell, self.source)

    def run(self) -> BaseException | None:
        """Run it and return what it raised, if anything."""
        return self._run_plain() if self._shell is None else self._run_in_shell(self._shell)

    def _run_plain(self) -> BaseException | None:
        try:
            tree = ast.parse(self.source, _PLAIN_FILE)
            if self._marks:
                tree = Marker(self._marks).visit(tree)
                self._namespace.update(self._names)
            exec(compile(tree, _PLAIN_FILE, "exec"), self._namespace)  # noqa: S102  it is what the user wants to run
        except BaseException as error:  # noqa: BLE001  whatever it is, the program raised it
            return error
        finally:
            for name in self._names:
                self._namespace.pop(name, None)
        return None

    def _run_in_shell(self, shell: Any) -> BaseException | None:
        quieten(shell)
        if self._marks:
            shell.ast_transformers.append(Marker(self._marks))
            self._namespace.update(self._names)
        raised: BaseException | None
        try:
            result = shell.run_cell(self.source, store_history=False, silent=True)
            raised = result.error_before_exec or result.error_in_exec
        except BaseException as error:  # noqa: BLE001  SystemExit and the like
            raised = error
        finally:
            for name in self._names:
                self._namespace.pop(name, None)
        return raised


class Marker(ast.NodeTransformer):
    """Puts calls around each innermost statement that covers one of some lines."""

    NAMES = ("__jupyter_inplace_enter__", "__jupyter_inplace_leave__")

    def __init__(self, lines: tuple[int, ...]) -> None:
        self._lines = lines

    def visit(self, node: ast.AST) -> Any:
        """Visit a node; see `ast.NodeTransformer`."""
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, field, [new for statement in value for new in self._marked(statement)])
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, ast.excepthandler | ast.match_case):
                        self.visit(item)
        return node

    def _marked(self, statement: ast.stmt) -> list[ast.stmt]:
        covered = [line for line in self._lines if statement.lineno <= line <= (statement.end_lineno or 0)]
        inner = [s for s in ast.walk(statement) if isinstance(s, ast.stmt) and s is not statement]
        own = [line for line in covered if not any(s.lineno <= line <= (s.end_lineno or 0) for s in inner)]
        self.visit(statement)
        if not own:
            return [statement]
        enter, leave = (ast.Expr(ast.Call(ast.Name(name, ast.Load()), [], [])) for name in self.NAMES)
        ast.copy_location(enter, statement)
        guarded = ast.copy_location(ast.Try(body=[statement], handlers=[], orelse=[], finalbody=[leave]), statement)
        return [ast.fix_missing_locations(enter), ast.fix_missing_locations(guarded)]


def quieten(shell: Any) -> None:
    """Silence a forked shell: no tracebacks, displays, or messages to a front end."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    for name in ("_showtraceback", "showtraceback", "showsyntaxerror", "show_usage_error"):
        setattr(shell, name, _nothing)
    shell.display_pub = CapturingDisplayPublisher()
    shell.display_trap.hook = _nothing
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        kernel.session.send = _nothing
        kernel._allow_stdin = False


def _file_of(shell: Any, source: str) -> str:
    """The name under which the shell will compile a cell."""
    try:
        transformed = shell.transform_cell(source)
        return str(shell.compile.get_code_name(source, transformed, shell.execution_count))
    except Exception:  # noqa: BLE001  an older shell, or a cell that does not parse: then the run says so
        return ""
