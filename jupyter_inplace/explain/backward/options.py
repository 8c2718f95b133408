"""What a watch asks of the analysis of its backward calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jupyter_inplace.explain.errors.wording import ErrorWording


@dataclasses.dataclass(frozen=True)
class AnalysisOptions:
    """The options of one watch.

    :param wanted: names of tasks, given by the user.
    :param namespace: gives the names of the cell.
    :param gradients: True: compute every gradient; False: none; None: only if there is damage.
    :param wording: knows the sources of the watch.
    """

    wanted: tuple[str, ...] = ()
    namespace: Callable[[], Mapping[str, Any]] | None = None
    gradients: bool | None = None
    wording: ErrorWording | None = None

    @property
    def always(self) -> bool:
        return self.gradients is True

    @property
    def never(self) -> bool:
        return self.gradients is False

    @property
    def space(self) -> Mapping[str, Any] | None:
        """The names of the cell as they are now."""
        return self.namespace() if self.namespace is not None else None

    def text_at(self, site: Any) -> str:
        """The source text of a site; empty if it cannot be read."""
        found = self.wording.resolver.resolve(site) if self.wording is not None and site is not None else None
        return found.text if found is not None else ""
