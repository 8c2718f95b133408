"""Rules that copy a tensor: at the write, where it was saved, or where it was bound."""
