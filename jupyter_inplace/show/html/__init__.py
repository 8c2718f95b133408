"""The static page: one self-contained fragment without scripts."""
