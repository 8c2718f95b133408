"""A program of the user's, run as Python would run it: as ``__main__``, with its own arguments and import path."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from jupyter_inplace.cli.arguments import BadInputError
from jupyter_inplace.explain.errors.tracebacks import without_own_frames

#: The exit status of Python after Ctrl+C, if it is not ended by the signal itself.
_INTERRUPTED = 130


class Program:
    """A script, or a module, that can be run once.

    :param name: its reports are named after this.
    :param path: its ``sys.argv[0]``.
    """

    def __init__(self, name: str, path: str, arguments: Sequence[str], search: str) -> None:
        self.name = name
        self.path = path
        self._arguments = list(arguments)
        self._search = search  # the first entry of the import path
        self._spec: importlib.machinery.ModuleSpec | None = None
        self._in_folder = False
        self.namespace: dict[str, Any] = {}

    @property
    def file(self) -> str:
        """The absolute path of the script, as in its ``__file__`` and in tracebacks."""
        return os.path.abspath(self.path)  # noqa: PTH100  like Python, which does not resolve links

    @classmethod
    def script(cls, path: str, arguments: Sequence[str]) -> Program:
        """A file, or a folder or zip archive with a ``__main__``.

        :raises BadInputError: there is none.
        """
        if not os.path.exists(path):  # noqa: PTH110  the program must see the `./`, which a Path would drop
            raise BadInputError(f"no script at `{path}`.")
        name = Path(path).resolve().stem
        if Path(path).is_dir() or _is_archive(path):
            whole = os.path.abspath(path)  # noqa: PTH100  like Python, which does not resolve links
            program = cls(name, path, arguments, whole)
            program._spec = importlib.machinery.PathFinder.find_spec("__main__", [whole])
            program._in_folder = True
            if program._spec is None:
                raise BadInputError(f"`{path}` holds no `__main__.py` to run.")
            return program
        if not os.access(path, os.R_OK):
            raise BadInputError(f"the script `{path}` cannot be read.")
        return cls(name, path, arguments, str(Path(path).resolve().parent))

    @classmethod
    def module(cls, name: str, arguments: Sequence[str]) -> Program:
        """A module, or the ``__main__`` of a package, as ``python -m`` finds it."""
        return cls(name, "-m", arguments, os.getcwd())  # noqa: PTH109  the same text as Python puts there

    def prepare(self) -> None:
        """Make this process look as if Python had started the program directly: argv, import path, ``__main__``."""
        sys.argv = [self.path, *self._arguments]
        if not sys.flags.safe_path and sys.path:
            sys.path[0] = self._search
        elif self._in_folder:
            sys.path.insert(0, self._search)
        main = ModuleType("__main__")
        main.__dict__["__builtins__"] = sys.modules["builtins"]
        sys.modules["__main__"] = main  # so the module and its variables live until the process ends
        self.namespace = main.__dict__

    def find(self) -> None:
        """Find a module, which imports its parent packages. Does nothing for a script.

        :raises BadInputError: there is no such module.
        """
        if self.path != "-m":
            return
        name = self.name
        try:
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.submodule_search_locations is not None:
                name = f"{name}.__main__"
                spec = importlib.util.find_spec(name)
        except (ModuleNotFoundError, ValueError) as error:
            missing = getattr(error, "name", None)
            if missing is not None and not self.name.startswith(missing):
                raise  # a parent package imports a module that does not exist
            spec = None
        if spec is None or spec.loader is None:
            raise BadInputError(f"no module named `{name}` to run.")
        self._spec = spec
        sys.argv[0] = spec.origin or self.name

    def code(self) -> CodeType:
        """Compile the program.

        :raises SyntaxError: it is not valid Python.
        """
        if self._spec is not None:
            loader: Any = self._spec.loader
            found: CodeType | None = loader.get_code(self._spec.name)
            if found is None:
                raise BadInputError(f"`{self.name}` has no Python code to run.")
            return found
        with io.open_code(self.file) as file:
            source = file.read()
        return compile(source, self.file, "exec", dont_inherit=True)

    def enter(self) -> None:
        """Set the names that Python sets in the namespace of a program: ``__file__``, ``__spec__`` and others."""
        spec = self._spec
        own = importlib.machinery.SourceFileLoader("__main__", self.file)
        self.namespace.update(
            __file__=spec.origin if spec is not None else self.file,
            __cached__=spec.cached if spec is not None else None,
            __loader__=spec.loader if spec is not None else own,
            __package__=spec.parent if spec is not None else None,
            __spec__=spec,
        )

    def run(self) -> None:
        """Compile and run the program; raises what it raises."""
        code = self.code()
        self.enter()
        exec(code, self.namespace)  # noqa: S102  this is how the program runs


def _is_archive(path: str) -> bool:
    import zipfile

    return not path.endswith((".py", ".pyw")) and zipfile.is_zipfile(path)


def conclude(error: BaseException | None) -> None:
    """Print what Python prints when a program ends with `error`: a traceback, or the text passed to ``sys.exit``."""
    if error is None:
        return
    _flush(sys.stdout)
    if isinstance(error, SystemExit):
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        return
    kept = without_own_frames(error.__traceback__)
    error.__traceback__ = None if kept is None or _is_ours(kept) else kept
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:  # noqa: BLE001  like Python: if the program's own hook fails, the error is still printed
        traceback.print_exception(error)


def _is_ours(tb: TracebackType) -> bool:
    """Whether the frame is ours. All frames of a SyntaxError in the script itself are."""
    return str(tb.tb_frame.f_globals.get("__name__", "")).startswith("jupyter_inplace.")


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass


def status_of(error: BaseException | None) -> int:
    """The exit status of a program that ends with `error`, as Python sets it."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        return error.code if isinstance(error.code, int) else 1
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def die_of_interrupt() -> None:
    """End as Python does after Ctrl+C: by the signal itself, so that a loop in a shell stops too."""
    if os.name != "posix":
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = lambda *_: None  # the traceback has been printed already
    raise KeyboardInterrupt
