"""The command `tripletkit`, also as `python -m tripletkit`.

Python's own answer to Ctrl-C is a traceback, which shows while modules are still being imported,
when nothing of ours could catch it. So this module imports next to nothing, and takes the signal
before it imports the rest.
"""

import os
import signal
import sys
from collections.abc import Callable

INTERRUPTED = 130  # 128 + SIGINT, as shells count it


def main() -> None:
    """Run the command line; leave with 130 and without a traceback when it is interrupted."""
    is_interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        raise KeyboardInterrupt

    def show_unraisable(problem: object) -> None:
        # A callback that is interrupted cannot raise, so Python would print its traceback.
        if not is_interrupted:
            sys.__unraisablehook__(problem)

    _on_interrupt(_leave)
    # The process is ours: Keras runs on TensorFlow here, whatever other programs are told.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from tripletkit.cli.main import tripletkit

    sys.unraisablehook = show_unraisable
    code = None
    try:
        _on_interrupt(interrupt)
        tripletkit(prog_name="tripletkit")
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        # An import that is interrupted may say so by an error of its own.
        if not is_interrupted:
            raise
        code = INTERRUPTED
    finally:
        # The result is there; what Python does at its end is not interrupted any more.
        _on_interrupt(signal.SIG_IGN)
    # 0 where a command takes the interruption as its normal end.
    sys.exit(INTERRUPTED if is_interrupted and code else code)


def _on_interrupt(handler: Callable[..., object] | int) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell sets it for `&`
        signal.signal(signal.SIGINT, handler)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
