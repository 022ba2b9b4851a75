from typing import Any

import tripletkit as tk
from tripletkit.cli.commands import command, takes


@command()
@takes("as_json")
def settings() -> Any:
    """List the settings of a training: what each is, may be, and is by default.

    \b
    tripletkit settings
    tripletkit train train.txt images/ -s margin=0.3 -s dropout=0.4
    tripletkit train train.txt images/ --settings mine.toml
    """
    return tk.list_settings()
