"""Learn from judgements "A looks more like B than like C" over a private image collection."""


def __getattr__(name: str) -> str:
    # Looked up on use: it takes longer than all other imports of the command's first moments.
    if name == "__version__":
        from importlib.metadata import version

        return version("tripletkit")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
