"""What the extension installs in a shell: the function that starts a watch, two magics, event callbacks, the transformer."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import no_var_expand

from jupyter_inplace.magic import options as words
from jupyter_inplace.magic.arrival import mentions_framework
from jupyter_inplace.magic.options import Options
from jupyter_inplace.magic.output import Output, can_hold_widgets, complain, save
from jupyter_inplace.magic.session import Session
from jupyter_inplace.magic.traces import TraceFilter
from jupyter_inplace.magic.transform import ENTRANCE, MagicLine
from jupyter_inplace.magic.warm import WarmUp
from jupyter_inplace.report.data import Cell

if TYPE_CHECKING:
    from jupyter_inplace.rewrite.rewind.rewind import Rewound


@dataclass(eq=False)
class _Running:
    """A cell that is running. Another cell may run inside of it, as with ``%%capture``."""

    info: Any  # IPython's ExecutionInfo, if IPython gave us one
    source: str
    id: str | None
    number: int
    session: Session | None = None
    automatic: bool = False
    silent: bool = False  # a silent request, for which IPython sends no cell events


class Watcher:
    """Everything that `%load_ext jupyter_inplace` installs and `%unload_ext` removes."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._running: list[_Running] = []
        # IPython counts a cell when it starts or when it is done, depending on its version: read between two cells, the count is right.
        self._number = shell.execution_count
        self._thread = threading.get_ident()
        self._labels: dict[str, str] = {}
        self._following: Options | None = None  # what `%autograd_watch on` asked for
        self._kept: Session | None = None  # the last watched cell with harmful writes, as long as it can be rewound
        self._sources: dict[str, str] = {}  # by the front end's id
        self._transformer = MagicLine(
            running=lambda: self._running[0].source if self._running else None,
            watches_all=lambda: self._following is not None or self._outer_session() is not None,
        )
        self._events = {
            "pre_run_cell": self._before_cell,
            "post_run_cell": self._after_cell,
            "post_execute": self._after_silent,
        }
        self._traces = TraceFilter(shell)
        self._warm_up = WarmUp(shell)

    # -- installing ----------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Install everything."""
        shell = self._shell
        setattr(shell, ENTRANCE, self)
        shell.input_transformers_cleanup.insert(0, self._transformer)
        self._magics: dict[str, Callable[..., Any]] = {"line": self._line_magic(), "cell": self._cell_magic()}
        for kind, magic in self._magics.items():
            shell.register_magic_function(magic, kind, ENTRANCE)
        for event, callback in self._events.items():
            shell.events.register(event, callback)
        self._warm_up.install()

    def uninstall(self) -> None:
        """Remove everything; end a running watch."""
        shell = self._shell
        self._following = None
        for running in self._running:
            _discard(running.session)
            running.session = None
        self._let_go()
        self._traces.remove()
        self._warm_up.remove()
        for event, callback in self._events.items():
            if callback in shell.events.callbacks[event]:
                shell.events.unregister(event, callback)
        for kind, magic in self._magics.items():
            if shell.magics_manager.magics[kind].get(ENTRANCE) is magic:
                del shell.magics_manager.magics[kind][ENTRANCE]
        vars(shell.magics_manager.user_magics).pop(ENTRANCE, None)
        if self._transformer in shell.input_transformers_cleanup:
            shell.input_transformers_cleanup.remove(self._transformer)
        vars(shell).pop(ENTRANCE, None)

    # -- the cell's first statement ------------------------------------------------------------------------------

    def __call__(self, line: str = "") -> None:
        """Start the watch: this is the statement that replaced the magic line, and `line` holds its options.

        :raises UsageError: the options are wrong; the cell ends here.
        """
        if words.asks_for_help(line):
            print(words.help_text())  # noqa: T201 (the person asked for it)
            return
        options = words.parse(line)
        if threading.get_ident() != self._thread:
            complain("this cell is not watched: it runs beside the main thread, in a subshell")
            return
        if not self._running:
            self._running.append(_Running(None, "", None, self._number, silent=True))
        running = self._running[-1]
        if running.session is not None:
            if not running.automatic:
                return  # the cell is in a loop, such as that of %%timeit: it is watched already
            _discard(running.session)
        self._begin(running, options, file=sys._getframe(1).f_code.co_filename)

    def _begin(self, running: _Running, options: Options, file: str, *, automatic: bool = False) -> None:
        self._labels.update({name: f"In[{n}]" for name, n in getattr(self._shell.compile, "_filename_map", {}).items()})
        self._labels[file] = f"In[{running.number}]"
        cell = Cell(source=running.source, id=running.id, execution_count=running.number)
        self._let_go()
        no_proof = _NOT_ONE_CELL if automatic else None
        session = Session(options, cell, file, self._labels, self._shell, no_proof)
        running.session, running.automatic = session, automatic
        self._traces.install()
        try:
            session.begin(expected=mentions_framework(running.source))
        except Exception as error:  # noqa: BLE001 (a fault of ours must not keep the cell from running)
            running.session = None
            _discard(session)
            complain(f"this cell is not watched: {error!r}")

    # -- events --------------------------------------------------------------------------------------------------

    def _before_cell(self, info: Any) -> None:
        if threading.get_ident() != self._thread:
            return  # a subshell: its events would mix with ours
        outer = self._running[0] if self._running else None
        if outer is None:
            running = _Running(info, info.raw_cell, _cell_id(self._shell, info), self._number)
            if running.id is not None:
                self._sources[running.id] = info.raw_cell
        else:
            running = _Running(info, outer.source, outer.id, outer.number)
            session = self._outer_session()
            if session is not None and outer.source.rstrip().endswith(info.raw_cell.rstrip()):
                # To IPython the body of ``%%capture`` is a cell of its own; to the person it is still the same cell.
                session.go_on_in(self._file_of(info.raw_cell, self._shell.execution_count), f"In[{outer.number}]")
        self._running.append(running)
        if self._following is not None and outer is None:
            self._begin(running, self._following, self._file_of(info.raw_cell, self._number), automatic=True)

    def _outer_session(self) -> Session | None:
        return next((running.session for running in self._running if running.session is not None), None)

    def _file_of(self, source: str, number: int) -> str:
        """The file name under which IPython is about to compile a cell; `number` is its execution count."""
        if source.lstrip().startswith("%%time\n"):
            return "<timed exec>"
        name: str = self._shell.compile.get_code_name(source, self._shell.transform_cell(source), number)
        return name

    def _after_cell(self, result: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        info = getattr(result, "info", None)
        if info is not None and not info.raw_cell.strip():
            return  # for an empty cell IPython has sent no event at its start
        # For an interrupted cell IPython does not pass the info from its start: then it is the innermost one.
        known = [i for i, running in enumerate(self._running) if running.info is info]
        error = _error_of(result)
        for running in reversed(self._running[known[0] if known else -1 :]):
            outer = self._outer_session()
            if error is not None and running.session is None and outer is not None:
                outer.swallowed = error  # used if the outer cell does not fail itself
            self._finish(running, error)
        if not self._running:
            self._number = self._shell.execution_count

    def _after_silent(self) -> None:
        if self._running and self._running[-1].silent:
            self._finish(self._running[-1], _error_of(self._shell.last_execution_result))

    def _finish(self, running: _Running, error: BaseException | None) -> None:
        """End the watch of a cell. Ctrl+C during this cancels our work and nothing else."""
        session, running.session = running.session, None
        try:
            if session is not None:
                self._conclude(session, error, quiet_when_clean=running.automatic)
        except KeyboardInterrupt:
            _discard(session)
            complain("interrupted; no report for this cell")
        except Exception as fault:  # noqa: BLE001 (the cell has run: our fault must not make it fail)
            _discard(session)
            complain(f"no report for this cell: {fault!r}")
        finally:
            self._running.remove(running)
            if not any(outer.session for outer in self._running):
                self._traces.remove()

    def _conclude(self, session: Session, error: BaseException | None, *, quiet_when_clean: bool) -> None:
        report = session.end(error)
        options, proofs = session.options, session.proofs
        if options.save is not None:
            save(report, options.save)
        output: Output | None = None
        if not options.quiet and not (quiet_when_clean and report.verdict == "harmless"):
            output = Output(live=can_hold_widgets(session.cell.id), replaces=hasattr(self._shell, "kernel"))
            if proofs is None or output.replaces:
                output.show(report)
        if proofs is None:
            return
        self._kept = session
        from jupyter_inplace.magic.follow import conclude

        conclude(self._shell, proofs, output, options.save)

    def _let_go(self) -> None:
        """Release what is kept of an earlier cell: another cell is watched now."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.proofs is not None:
            kept.proofs.release()

    # -- for the panel and for `report.apply` --------------------------------------------------------------------

    def rewind(self, cell_id: str) -> Rewound:
        """Restore what the watched run of a cell changed.

        :raises RewindError: nothing was restored; the message says why.
        """
        from jupyter_inplace.rewrite.rewind.rewind import RewindError

        kept = self._kept
        if kept is None or kept.proofs is None or kept.cell.id != cell_id:
            raise RewindError("no copy of the state from before that cell is kept")
        return kept.proofs.rewind(self._shell.user_ns)

    def source_of(self, cell_id: str) -> str | None:
        """The source of a cell when it last ran; None if unknown."""
        return self._sources.get(cell_id)

    # -- magics --------------------------------------------------------------------------------------------------

    def _line_magic(self) -> Callable[[str], None]:
        def autograd_watch(line: str) -> None:
            self._switch(line)

        autograd_watch.__doc__ = _LINE_HELP
        no_var_expand(autograd_watch)
        return autograd_watch

    def _cell_magic(self) -> Callable[[str, str], Any]:
        def autograd_watch(line: str, cell: str) -> Any:
            __tracebackhide__ = True
            return self._run_nested(line, cell)

        autograd_watch.__doc__ = words.help_text()
        no_var_expand(autograd_watch)
        return autograd_watch

    def _switch(self, line: str) -> None:
        """``%autograd_watch on|off|status``."""
        word, _, rest = line.strip().partition(" ")
        if word in ("", "status"):
            print(self._status())  # noqa: T201 (the person asked for it)
        elif word == "on":
            options = words.parse(rest)
            if options.result or options.save or options.tasks:
                raise UsageError(f"%autograd_watch on {rest.strip()}: tasks, --result and --save belong to one cell")
            self._following = options
        elif word == "off":
            self._following = None
            for running in self._running:
                if running.automatic:
                    _discard(running.session)
                    running.session = None
        else:
            raise UsageError(f"%autograd_watch {line.strip()}: on, off or status")

    def _status(self) -> str:
        if self._following is None:
            return "autograd_watch is off: cells that begin with %%autograd_watch are watched."
        asked = ", ".join(
            f"{name.replace('_', '-')}={value}"
            for name, value in vars(self._following).items()
            if value != getattr(Options(), name)
        )
        return "autograd_watch is on: every cell is watched" + (f" ({asked})." if asked else ".")

    def _run_nested(self, line: str, cell: str) -> Any:
        """``run_cell_magic("autograd_watch", ...)``: other code calls the magic; it is not the first line of a cell.

        The body runs like that of ``%%time``: in the user's namespace, and the value of its last expression is returned.
        """
        __tracebackhide__ = True  # IPython leaves such frames out of tracebacks
        options = words.parse(line)
        if not cell.strip():
            raise UsageError("%%autograd_watch: there is no cell below it (to watch all cells: %autograd_watch on)")
        compile_ = self._shell.compile
        source = self._shell.transform_cell(cell)
        number = self._running[0].number if self._running else self._number
        file = compile_.cache(source, number, raw_code=cell)
        tree = compile_.ast_parse(source, file)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        running = _Running(None, cell, None, number)
        self._running.append(running)
        namespace = self._shell.user_ns
        error: BaseException | None = None
        try:
            body = compile_(tree, file, "exec")
            value = None if last is None else compile_(ast.Expression(last.value), file, "eval")
            self._begin(running, options, file)
            exec(body, namespace)  # noqa: S102 (this is how a cell runs)
            return None if value is None else eval(value, namespace)  # noqa: S307 (the same)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._finish(running, error)


_NOT_ONE_CELL = "under %autograd_watch on no copy of the state is kept (put %%autograd_watch on this cell)"

_LINE_HELP = """%autograd_watch on|off|status

Watch all following cells (on), and be silent while they are clean; stop that (off); say which it is (status).
To watch one cell, put %%autograd_watch on its first line (%%autograd_watch --help).
"""


def _error_of(result: Any) -> BaseException | None:
    if result is None:  # an interrupted cell: its exception is being raised
        return sys.exc_info()[1]
    error: BaseException | None = result.error_in_exec or result.error_before_exec
    return error


def _discard(session: Session | None) -> None:
    """End a watch whose report is not needed."""
    if session is None:
        return
    try:
        session.end(None)
    except (Exception, KeyboardInterrupt):  # noqa: BLE001 (the report is not needed, so neither is the error)
        pass


def _cell_id(shell: InteractiveShell, info: Any) -> str | None:
    """The front end's id of the running cell; None if it sends none (a terminal, nbclient, Colab)."""
    told: str | None = getattr(info, "cell_id", None)
    if told is not None or not hasattr(shell, "kernel"):
        return told
    metadata = shell.kernel.get_parent("shell").get("metadata", {})
    found: str | None = metadata.get("cellId")
    return found
