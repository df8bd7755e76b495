"""The processes that run now: started, watched, told to stop, and ended.

A single loop reads all pipes, so that no process waits for another's output to
be read and each line comes out whole.
"""

import contextlib
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from tf_gnc.launch.child import Child, ProcessSpec, Watchdog
from tf_gnc.launch.output import Screen

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What tells this process to stop, and not only to pass a signal on."""

SECONDS_TO_SAVE = 60.0
"""How long a process that was told to stop may take to save what it has."""

# How long to wait for output before looking whether a process has ended.
_TICK = 0.1


@contextlib.contextmanager
def taking(
    signals: Sequence[int], handler: Callable[[int, object], None]
) -> Iterator[None]:
    """Has a function take signals, but for those that are ignored (nohup)."""
    before = {}
    try:
        for number in signals:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


class Processes:
    """Processes of which none is left at the end, however it comes.

    Use it in a `with`, in the main thread. Inside, signals go to the processes
    instead of this one; a SIGINT that follows a signal to stop kills them. A
    process is the first of a process group of its own, and what it leaves
    running in that group ends with it. If this process is killed, so are they.

    `signals` are passed on, `stop_signal` in place of one of `STOP_SIGNALS`;
    what is ignored (nohup) stays so, here and in the processes. `stopped_by`
    is the first signal that told this process to stop.
    """

    def __init__(
        self,
        signals: Sequence[int] = STOP_SIGNALS,
        stop_signal: int | None = None,
    ) -> None:
        self.stopped_by: int | None = None
        self._stop_signal = stop_signal
        self._signals = signals
        self._running: list[Child] = []
        self._deadline = float("inf")

    def __enter__(self) -> "Processes":
        """Takes the signals; starts nothing yet."""
        self._selector = selectors.DefaultSelector()
        self._watchdog = Watchdog()
        self._taking = taking(self._signals, self._on_signal)
        self._taking.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Kills what is left and gives the signals back."""
        self.kill()
        for child in self._running:
            child.popen.wait()
            child.close()
        self._taking.__exit__(None, None, None)
        self._watchdog.close()
        self._selector.close()

    def __len__(self) -> int:
        """How many run."""
        return len(self._running)

    def start(self, spec: ProcessSpec, screen: Screen) -> Child:
        """Starts a process, whose output goes to the screen."""
        if not self._running:
            self._deadline = float("inf")  # It was for those before.
        child = Child(spec, screen, self._selector)
        self._running.append(child)
        self._tell_watchdog()
        if self.stopped_by is not None:  # It came in the meantime.
            child.popen.send_signal(self._stop_signal or self.stopped_by)
        return child

    def wait(self) -> list[tuple[Child, int]]:
        """Passes on what they print, for a moment; returns those that ended.

        Each with its exit code, or -n if signal n ended it.
        """
        for key, _ in self._selector.select(_TICK):
            key.data()
        ended = []
        for child in list(self._running):
            status = child.popen.poll()
            if status is None:
                continue
            self._running.remove(child)
            child.kill()  # what it has left running
            child.drain()
            child.close()
            ended.append((child, status))
        if ended:
            self._tell_watchdog()
        if time.monotonic() >= self._deadline:
            self.kill()
        return ended

    def kill_after(self, seconds: float) -> None:
        """Has `wait` kill what still runs when so many seconds are over."""
        self._deadline = time.monotonic() + seconds

    def kill(self) -> None:
        """Kills them and their children."""
        for child in list(self._running):
            child.kill()

    def _on_signal(self, number: int, frame: object) -> None:
        # Prints nothing: a signal may come in the middle of a print.
        if number == signal.SIGINT and self.stopped_by is not None:
            self.kill()
            return
        if number in STOP_SIGNALS:
            if self.stopped_by is None:
                self.stopped_by = number
            number = self._stop_signal or number
        for child in list(self._running):
            child.popen.send_signal(number)

    def _tell_watchdog(self) -> None:
        self._watchdog.watch([child.popen.pid for child in self._running])
