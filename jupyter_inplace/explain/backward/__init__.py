"""Explains one backward call: which overwritten values it read, and which gradients that changes."""
