"""`merge`, where version 0.1.0 had it."""

from jupyter_inplace.report.merge import merge

__all__ = ["merge"]
