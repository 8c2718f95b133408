"""What is different under the watch because *any* dispatch mode changes it, an empty one too.

Every entry is proved in ``test_known_differences.py``: the empty mode changes the program, and the watch no more than it does.
"""

from __future__ import annotations

# `reshape` of a tensor that is not contiguous makes a node of the first name; under a mode it calls `view` instead.
RENAMED_NODES = {"ReshapeAliasBackward0": "ViewBackward0", "ReshapeAlias": "View"}
