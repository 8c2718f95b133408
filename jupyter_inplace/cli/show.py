"""``jupyter-inplace show``: a saved report, or several merged into one, as text or as an HTML page."""

from __future__ import annotations

import os
import sys

from jupyter_inplace.cli.arguments import BadInputError, Options
from jupyter_inplace.report.merge import merge
from jupyter_inplace.show import text
from jupyter_inplace.show.report import Report, load


def main(options: Options) -> int:
    """Print the reports that the person named, or write them as an HTML page."""
    found = [_load(name) for name in options.reports]
    report = found[0] if len(found) == 1 else merge(found)
    if options.html is None:
        print(text.render(report, color=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
        return 0
    try:
        report.to_html(options.html)
    except OSError as error:
        raise BadInputError(f"no page could be written at `{options.html}` ({error.strerror or error}).") from None
    print(options.html)
    return 0


def _load(name: str) -> Report:
    try:
        return load(name)
    except FileNotFoundError as error:
        raise BadInputError(str(error)) from None
    except OSError as error:
        raise BadInputError(f"`{name}` cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        raise BadInputError(str(error)) from None
