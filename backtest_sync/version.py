"""The version of the package, in one place: the metadata reads it from here."""

__version__ = "0.1.0.dev0"
