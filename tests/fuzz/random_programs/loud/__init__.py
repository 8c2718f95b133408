"""Programs with a write that torch itself complains of: in the backward that meets it, or at once."""
