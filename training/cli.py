"""How a script ends: one line and an exit code, whatever happens."""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Callable

from .errors import UserError

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PIPE_CLOSED = 141
# The second that a step may take to end by itself after a signal.
PATIENCE = 1.0

# Runs in a process of its own: while Jittor compiles kernels (up to half a minute in one call),
# Python cannot act on a signal, but its C handler writes the signal's number to a pipe at once.
_WATCHER = """
import glob, os, select, signal, sys, time
parent, checkpoint, patience = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
over = (b'', b'\\0')  # the end of the pipe, or what the parent writes when its run is over
number = os.read(0, 1)
while number not in over and number[0] not in (signal.SIGINT, signal.SIGTERM):
    number = os.read(0, 1)
if number in over:
    sys.exit()
end = time.monotonic() + patience
while time.monotonic() < end:
    if select.select([0], [], [], end - time.monotonic())[0] and os.read(0, 1) in over:
        sys.exit()  # the parent stopped by itself
state = 'kept ' + checkpoint if os.path.exists(checkpoint) else 'no epoch was complete'
os.write(2, ('\\ninterrupted: ' + state + '\\n').encode())
os.kill(parent, signal.SIGKILL)
for partial in glob.glob(glob.escape(os.path.dirname(checkpoint)) + '/.*.safetensors.*.tmp'):
    os.unlink(partial)
"""


@contextlib.contextmanager
def stop_promptly(checkpoint: Path):
    """Context in which Ctrl-C or SIGTERM stops the run within about a second and says whether `checkpoint`
    was kept. Inside a long call that Python cannot interrupt, the process is killed (status
    SIGKILL); every file of a run is complete at any moment."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-c", _WATCHER, str(os.getpid()), str(checkpoint), str(PATIENCE)],
        stdin=reader, start_new_session=True)
    os.close(reader)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"kept {checkpoint}" if checkpoint.exists()
                                else "no epoch was complete") from None
    finally:
        signal.set_wakeup_fd(before)
        # Closing alone is not enough: Jittor's forked compilers may hold the pipe open.
        with contextlib.suppress(OSError):  # somebody has killed the watcher
            os.write(writer, b"\0")
        os.close(writer)
        watcher.wait()


@contextlib.contextmanager
def _signals():
    """Context in which SIGTERM (of a scheduler, of `docker stop`) does what Ctrl-C does."""
    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it twice
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) not in (None, signal.SIG_IGN):  # what is ignored (nohup) stays ignored
            _replaced[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        while _replaced:
            signal.signal(*_replaced.popitem())


def _default_in_child() -> None:
    """Let a forked child, such as Jittor's compilers, end at once and without a word."""
    if _replaced:
        signal.set_wakeup_fd(-1)
    for number in _replaced:
        signal.signal(number, signal.SIG_DFL)


_replaced: dict = {}  # signal -> its handler before `main`
os.register_at_fork(after_in_child=_default_in_child)


def main(run: Callable[[], None]) -> int:
    """Run a script's body; returns its exit code.

    0: done. 2: bad input, or a file that cannot be read or written, with one line on stderr.
    130: interrupted by Ctrl-C or SIGTERM. 141: whoever read the output has gone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the caller has closed it (`>&-`)
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):  # not where a test has replaced it
            stream.reconfigure(errors="backslashreplace")
    with _signals():
        return _main(run)


def _main(run) -> int:
    try:
        run()
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # Python would complain once more as it closes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except MemoryError as error:
        return _refused(f"not enough memory: {error}")
    except UserError as error:
        return _refused(str(error))
    except OSError as error:
        if error.strerror is None:
            raise
        place = f": {error.filename}" if error.filename else ""
        return _refused(f"{error.strerror}{place}")
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted{': ' + str(interrupt) if str(interrupt) else ''}", file=sys.stderr)
        return INTERRUPTED


def _refused(why: str) -> int:
    print(f"error: {UserError(why)}", file=sys.stderr)  # which escapes and cuts
    return 2


def leave(main_: Callable[[], int]) -> None:
    """Run a script's main function and end the process. After a failure at once: other ranks of a training
    would wait for this one for ever, and so would what Jittor runs at exit for a compiler that was killed."""
    try:
        code = main_()
    except Exception:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # what it goes to is full; the code tells
            stream.flush()
    if code:
        os._exit(code)
    sys.exit()
