"""Explanations of channels that need one of their own; the common one is in `explain/backward`."""
