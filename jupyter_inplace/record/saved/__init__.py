"""Saved tensors: the hooks that see them, the copies made before they are overwritten, torch's own errors."""
