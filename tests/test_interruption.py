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


def wait_until_here(process):
    # From the pipe itself: a line's reader may take what comes after it too.
    assert os.read(process.stdout.fileno(), 5) == b"here\n"


@pytest.mark.integration
@pytest.mark.parametrize("moment", range(8))
def test_an_interruption_leaves_no_traceback(tmp_path, moment):
    path = tmp_path / "t.txt"
    path.write_text("a b c\n")
    process = start(SCRIPT, "audit", path)
    wait_until_here(process)
    time.sleep(moment * 0.08)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=240)
    # A machine that is quick has the result before the last of the moments.
    assert process.returncode == (0 if stdout else 130), stderr
    assert "Traceback" not in stderr
    assert "Error" not in stderr


@pytest.mark.integration
def test_an_error_that_an_interruption_becomes_is_not_shown():
    fake = """
import os, signal, sys
from tripletkit.cli import main
from tripletkit import __main__ as entry

def interrupted(**_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("numpy says something else") from None

main.tripletkit = interrupted
entry.main()
"""
    process = start(fake)
    _, stderr = process.communicate(timeout=240)
    assert (process.returncode, stderr) == (130, "")


@pytest.mark.integration
def test_an_interruption_that_a_callback_swallows_comes_again():
    fake = """
import os, signal, time
from tripletkit.cli import main
from tripletkit import __main__ as entry

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def interrupted(**_):
    Swallows()
    time.sleep(500)

main.tripletkit = interrupted
entry.main()
"""
    process = start(fake)
    _, stderr = process.communicate(timeout=240)
    assert (process.returncode, stderr) == (130, "")


def test_an_interruption_cleans_up_and_does_not_take_python_apart():
    fake = """
import atexit, os, signal
from tripletkit.cli import main
from tripletkit import __main__ as entry

class CrashesAtTheEnd:
    def __del__(self):
        os.abort()

def interrupted(**_):
    global kept
    kept = CrashesAtTheEnd()
    atexit.register(print, "cleaned", end="")
    print("said ", end="")
    os.kill(os.getpid(), signal.SIGINT)

main.tripletkit = interrupted
entry.main()
"""
    process = start(fake)
    assert process.communicate(timeout=240) == ("said cleaned", "")
    assert process.returncode == 130


@pytest.mark.integration
def test_a_bug_keeps_its_traceback():
    fake = """
from tripletkit.cli import main
from tripletkit import __main__ as entry
main.tripletkit = lambda **_: 1 / 0
entry.main()
"""
    process = start(fake)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "ZeroDivisionError" in stderr
