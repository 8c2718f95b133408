"""The file of a script: read as Python reads it, and replaced completely or not at all."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tokenize
from pathlib import Path

from jupyter_inplace.cli.arguments import BadInputError

_GIT_SECONDS = 10


class SourceFile:
    """The text of a script, with its encoding and line ends, so that another text can replace it.

    :param path: the file; a link is followed.
    :raises BadInputError: it cannot be read, or is not Python text.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(os.path.realpath(path))
        self._name = path
        try:
            self._bytes = self.path.read_bytes()
            self._encoding = tokenize.detect_encoding(io.BytesIO(self._bytes).readline)[0]
            text = self._bytes.decode(self._encoding)
        except OSError as error:
            raise BadInputError(f"the script `{path}` cannot be read ({error.strerror or error}).") from None
        except (SyntaxError, UnicodeDecodeError) as error:
            raise BadInputError(f"the script `{path}` is not Python text ({error}).") from None
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self.text = text.replace("\r\n", "\n")

    def replace(self, text: str) -> Path | None:
        """Replace the text of the file.

        :return: the file in which the old text is kept; None if git has it.
        :raises BadInputError: the file has changed since it was read, or cannot be written.
        """
        try:
            if self.path.read_bytes() != self._bytes:
                raise BadInputError(f"`{self._name}` has been changed since it was run; nothing was written.")
            backup = None
            if not self._is_in_git():
                backup = self._free_name()
                shutil.copy2(self.path, backup)
            draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
            try:
                draft.write_bytes(text.replace("\n", self._newline).encode(self._encoding))
                shutil.copymode(self.path, draft)
                draft.replace(self.path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise BadInputError(f"`{self._name}` cannot be written ({error.strerror or error}).") from None
        return backup

    def _is_in_git(self) -> bool:
        """Whether exactly this text is committed in git."""
        git = shutil.which("git")
        if git is None:
            return False
        command = [git, "-C", str(self.path.parent), "ls-files", "--error-unmatch", "--", self.path.name]
        clean = [git, "-C", str(self.path.parent), "diff", "--quiet", "HEAD", "--", self.path.name]
        try:
            return all(
                subprocess.run(words, capture_output=True, timeout=_GIT_SECONDS, check=False).returncode == 0
                for words in (command, clean)
            )
        except (OSError, subprocess.TimeoutExpired):
            return False

    def _free_name(self) -> Path:
        """An unused name next to the file: ``train.py.orig``, ``train.py.orig2`` ..."""
        first = self.path.with_name(f"{self.path.name}.orig")
        name, number = first, 2
        while name.exists():
            name, number = first.with_name(f"{first.name}{number}"), number + 1
        return name
