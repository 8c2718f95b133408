"""Source rewrites of a cell for its harmful writes, and the proof of each by running it."""

from jupyter_inplace.rewrite.candidates import Candidate, candidates, combine
from jupyter_inplace.rewrite.code import RewriteError

__all__ = ["Candidate", "RewriteError", "candidates", "combine"]
