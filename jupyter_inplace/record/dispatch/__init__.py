"""How operators are seen: the dispatch mode, the tripwires that stand in for it, and other threads."""
