"""The command `tripletkit`, also as `python -m tripletkit`.

Python's own answer to Ctrl-C is a traceback, which shows while modules are still being imported,
when nothing of ours could catch it. So this module imports next to nothing, and takes the signal
before it imports the rest.
"""

import atexit
import contextlib
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

    def show_unraisable(problem: "sys.UnraisableHookArgs") -> None:
        # A callback that is interrupted cannot raise, so Python would print its traceback, and go
        # on as if nothing had happened.
        if not is_interrupted:
            sys.__unraisablehook__(problem)
        elif getattr(problem, "exc_type", None) is KeyboardInterrupt:
            _interrupt_again()

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
    if is_interrupted and code:
        _leave_at_once()
    sys.exit(code)


def _on_interrupt(handler: Callable[..., object] | int) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell sets it for `&`
        signal.signal(signal.SIGINT, handler)


def _interrupt_again() -> None:
    """Interrupt the main thread once more, when the callback that it was in has ended."""
    import _thread
    import threading

    def interrupt() -> None:
        # A real signal also ends a call of the system that waits; Windows has none for this.
        if os.name == "posix":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            _thread.interrupt_main()

    again = threading.Timer(0.1, interrupt)
    again.daemon = True
    again.start()


def _leave_at_once() -> None:
    """Clean up, and leave without taking Python apart: threads of TensorFlow may crash then."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        # Nobody may be there to read it.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    _leave()


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
