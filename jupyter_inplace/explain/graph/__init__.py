"""The autograd graph: walked, read with reference values, split into tasks."""
