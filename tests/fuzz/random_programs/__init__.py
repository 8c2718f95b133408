"""Random programs with an oracle that is not ours.

Nothing in here imports the package under test. A generator writes one program as marked text (`text`), the oracle (`oracle`) runs it
unwatched and says whether it is harmful, and `reduce` makes a failing one small. `families` is the table of all kinds.
"""
