"""What is different under the watch because *any* dispatch mode changes it, an empty one too.

Every entry is proved where it is used: `same(program, known=...)` holds the program under the watch against the program under an
empty mode, and demands that the empty mode changes it. ``test_known_differences.py`` demands that every entry is used.
"""

from __future__ import annotations

# `reshape` of a tensor that is not contiguous makes a node of the first name; under a mode it calls `view` instead.
RENAMED_NODES = {"ReshapeAliasBackward0": "ViewBackward0"}

# Name -> what differs and why. `same(program, known=name)` proves each use: the empty mode must change the program, and the watch
# must give exactly what the empty mode gives.
KNOWN = {
    "gradients are added out of place": (
        "The engine adds two gradients into the first one's memory, unless a mode could see it: then the sum is a new tensor, whose "
        "version counter starts again. The watch lifts its mode where the engine runs C++ only; where it runs Python (custom "
        "Functions, hooks, checkpoints), the mode stays to see what that Python writes."
    ),
}
