"""The rewrite rules, one per file, in a folder for each kind; `registry.py` lists them."""
