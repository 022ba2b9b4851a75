"""Learn from judgements "A looks more like B than like C" over a private image collection."""

from importlib.metadata import version

__version__ = version("tripletkit")
