from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, say, takes
from tripletkit.cli.parameters import WholeRange


@click.group()
def cache() -> None:
    """Show, clear or prune the store of features that backbones have computed.

    \b
    tripletkit cache info
    tripletkit cache prune --unused-days 30
    tripletkit cache clear --yes
    """


@command("info", group=cache)
@takes("cache", "as_json")
def _info(cache: Path | None) -> Any:
    """Show where the store is and what it holds.

    \b
    tripletkit cache info --json
    """
    return tk.cache_info(cache)


@command("clear", group=cache)
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
@takes("cache")
def _clear(cache: Path | None, yes: bool) -> None:
    """Delete the store, and the networks written beside it. Both are made again when needed.

    \b
    tripletkit cache clear --yes
    """
    if not yes:
        click.confirm(f"Delete {tk.cache_info(cache).path}?", abort=True, err=True)
    say(f"Freed {tk.clear_cache(cache) / 1e6:,.1f} MB.")


@command("prune", group=cache)
@click.option(
    "--unused-days",
    type=WholeRange(0),
    default=defaults.PRUNE_UNUSED_DAYS,
    help="Drop the features of backbones that were not used for so many days, and their networks.",
)
@takes("cache")
def _prune(cache: Path | None, unused_days: int) -> None:
    """Delete features of images that are gone or changed, and of backbones long unused.

    \b
    tripletkit cache prune --unused-days 30
    """
    n_dropped = tk.prune_cache(cache, unused_days=unused_days)
    if n_dropped is None:
        say("There is no store.")
    else:
        say(f"Dropped the features of {n_dropped:,} images.")
