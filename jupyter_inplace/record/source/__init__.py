"""Places in the source: which expression of which file an instruction stands for."""
