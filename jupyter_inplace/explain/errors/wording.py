"""The text added to torch's message when a backward fails: the write, its line, and what it overwrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.report.data import Site


class ErrorWording:
    """Makes these texts, with the sources of the open watch.

    :param labels: what people call files, by file name.
    """

    def __init__(self, labels: Mapping[str, str], cell_file: str | None, cell_source: str | None) -> None:
        self.resolver = SiteResolver(labels, cell_file, cell_source)

    def sentence(self, writes: list[Any], node: str, saved_as: str, saved_site: Any) -> str:
        """`jupyter_inplace: z.mul_(2) (In[3], line 7) overwrote the result that TanhBackward0 saved at torch.tanh(x) (In[3], line 5).`"""
        done = [self._place(self.resolver.resolve(row.site), row.op) for row in writes[:3]]
        if not done:
            return ""
        first = " and ".join(dict.fromkeys(done))
        saved = self.resolver.resolve(saved_site) if saved_site is not None else None
        where = f" saved at {self._place(saved, '')}" if saved is not None else " saved before the watch began"
        return f"jupyter_inplace: {first} overwrote the {saved_as} that {node}{where}."

    @staticmethod
    def _place(site: Site | None, fallback: str) -> str:
        if site is None:
            return fallback or "code without a source"
        return f"{site.text or site.line_text} ({site.file}, line {site.line})"


_REFUSED = {
    "leaf": "{} is a leaf that requires grad",
    "view_of_leaf": "it is a view of {leaf}, a leaf that requires grad",
    "multi_view": "{} is one of several views that one function made",
    "custom_view": "{} is a view that a custom Function was given or made",
    "no_grad_view": "{} is a view made under no_grad",
    "inference_view": "{} is a view made in inference mode",
    "inference": "{} is an inference tensor, and inference mode is over",
    "expanded": "several elements of {} are one place in memory",
    "overlap": "what is read and what is written are the same memory",
    "out_grad": "autograd does not follow writes to out=",
    "detach_view": "{} is a view",
    "resize_grad": "{} requires grad",
    "untracked": "{} requires grad, and autograd does not follow this function",
    "captured": "{} comes from outside of the transformed function",
}


def why_refused(reason: str, tensor: str, leaf: str | None = None) -> str:
    """Why torch refused a write to `tensor`, in words; `reason` comes from `rejected.reason_of`, `leaf` is the leaf behind it."""
    return _REFUSED[reason].format(tensor, leaf=leaf or "what stands for a parameter")
