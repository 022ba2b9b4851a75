"""Ctrl-C at any moment, imports among them, ends with 130 and without a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

# From the first line of ours on; what Python does before that is out of reach.
SCRIPT = """
import os, sys
from tripletkit import __main__ as entry
entry._on_interrupt(entry._leave)
os.write(1, b"here\\n")
sys.argv[0] = "tripletkit"
entry.main()
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.integration
@pytest.mark.parametrize("moment", range(8))
def test_an_interruption_leaves_no_traceback(tmp_path, moment):
    path = tmp_path / "t.txt"
    path.write_text("a b c\n")
    process = start(SCRIPT, "audit", path)
    # From the pipe itself: a line's reader may take what comes after it too.
    assert os.read(process.stdout.fileno(), 5) == b"here\n"
    time.sleep(moment * 0.08)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=240)
    # A machine that is quick has the result before the last of the moments.
    assert process.returncode == (0 if stdout else 130), stderr
    assert "Traceback" not in stderr
    assert "Error" not in stderr


# What stands before and within the command; its exit code, its output, and a part of its errors.
INTERRUPTED = "os.kill(os.getpid(), signal.SIGINT)"
CASES = {
    "an error that an interruption becomes is not shown": (
        "",
        f"""
    try:
        {INTERRUPTED}
    except KeyboardInterrupt:
        raise ImportError("numpy says something else") from None
""",
        (130, "", ""),
    ),
    "one that a callback swallows comes again": (
        f"""
class Swallows:
    def __del__(self):
        {INTERRUPTED}
""",
        """
    Swallows()
    time.sleep(500)
""",
        (130, "", ""),
    ),
    "it cleans up and does not take Python apart": (
        """
class CrashesAtTheEnd:
    def __del__(self):
        os.abort()
""",
        f"""
    global kept
    kept = CrashesAtTheEnd()
    atexit.register(print, "cleaned", end="")
    print("said ", end="")
    {INTERRUPTED}
""",
        (130, "said cleaned", ""),
    ),
    "a bug keeps its traceback": ("", "\n    1 / 0\n", (1, "", "ZeroDivisionError")),
}


@pytest.mark.integration
@pytest.mark.parametrize(("before", "within", "expected"), CASES.values(), ids=CASES)
def test_how_a_command_ends(before, within, expected):
    process = start(
        "import atexit, os, signal, time\n"
        "from tripletkit.cli import main\n"
        "from tripletkit import __main__ as entry\n"
        f"{before}\ndef command(**_):{within}\n"
        "main.tripletkit = command\nentry.main()\n"
    )
    stdout, stderr = process.communicate(timeout=240)
    assert (process.returncode, stdout) == expected[:2]
    assert expected[2] in stderr if expected[2] else stderr == ""
