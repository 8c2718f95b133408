"""`merge`: this is where version 0.1.0 had it, and programs import it from here."""

from jupyter_inplace.report.merge import merge

__all__ = ["merge"]
