"""The version of the package, in a module that imports nothing: reports carry it."""

__version__ = "0.1.0"
