"""Benign programs, written in the idioms of public libraries. No code of theirs: each is the recipe, small."""
