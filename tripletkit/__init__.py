"""Learn from judgements "A looks more like B than like C" over a private picture collection."""

from importlib.metadata import version

__version__ = version("tripletkit")
