"""What a watch costs, against the peers and as the work grows. Run by `make bench`; every figure is a ratio of one run."""
