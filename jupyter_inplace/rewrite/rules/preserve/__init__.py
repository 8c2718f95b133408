"""Rules that put statements under `preserve_saved`."""
