"""The shell that the cells here run in."""

from cell_oracle import cells

__all__ = ["cells"]
