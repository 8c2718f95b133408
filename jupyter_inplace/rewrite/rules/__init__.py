"""The rewrite rules, one a file, in a folder for each kind; `registry.py` lists them."""
