"""One group of processes: started together, watched, and ended together.

Knows neither what they run nor whether they are started again. A single loop
reads all pipes, so that no process waits for another's output to be read and
each line comes out whole.
"""

import dataclasses
import selectors
import signal
import time
from collections.abc import Sequence

from tf_gnc.launch.addresses import RESTART_EXIT_CODE
from tf_gnc.launch.child import Child, Plan, Watchdog
from tf_gnc.launch.output import Screen

# What tells the launcher to stop, and not only to pass a signal on.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# How long the others may go on when one has died. They can't do anything
# together any more, so it is only for their last words.
_SECONDS_FOR_LAST_WORDS = 1.0

# The same when it ended because it was told to: all have been told, are
# saving what they have, and end at about the same time.
_SECONDS_TO_SAVE = 60.0

# How long to wait for output before looking whether a process has ended.
_TICK = 0.1


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        index: Its number in the cluster.
        status: Its exit code, or -n if signal n ended it.
    """

    index: int
    status: int

    @property
    def code(self) -> int:
        """The exit code as a shell gives it: 128 + n for signal n."""
        return self.status if self.status >= 0 else 128 - self.status

    def __str__(self) -> str:
        """Returns, for instance, "process 3 exited with code 1"."""
        if self.status >= 0:
            return f"process {self.index} exited with code {self.status}"
        text = f"process {self.index} was ended by {_name(-self.status)}"
        if self.status == -signal.SIGKILL:
            text += ", as the system does when memory runs out"
        return text


class Group:
    """Processes that live and die together.

    Use it in a `with`, at whose end none of them is left. A process is the
    first of a process group of its own, and what it leaves running in that
    group ends with it.

    Args:
        plans: The processes.
        screen: Where their output goes.
        watchdog: Is told of them.

    Attributes:
        first: How the one ended that was the first not to end with 0.
        codes: The exit codes of those that have ended.
        stopped_by: The first signal that told the group to stop.
    """

    def __init__(
        self, plans: Sequence[Plan], screen: Screen, watchdog: Watchdog
    ) -> None:
        """Starts nothing yet."""
        self.first: Ending | None = None
        self.codes: list[int] = []
        self.stopped_by: int | None = None
        self._plans = plans
        self._screen = screen
        self._watchdog = watchdog
        self._selector = selectors.DefaultSelector()
        self._running: list[Child] = []
        self._deadline = float("inf")
        self._told_of_stop = False

    def __enter__(self) -> "Group":
        """Starts nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kills what is left."""
        self.kill()
        for child in self._running:
            child.popen.wait()
            child.close()
        self._watchdog.watch([])
        self._selector.close()

    def start(self) -> None:
        """Starts the processes.

        Raises:
            OSError: If the system can't.
        """
        for plan in self._plans:
            self._running.append(Child(plan, self._screen, self._selector))
            self._tell_watchdog()

    def watch(self) -> None:
        """Passes on what they print until all have ended."""
        while self._running:
            for key, _ in self._selector.select(_TICK):
                key.data()
            self._collect()
            if self.stopped_by is not None and not self._told_of_stop:
                self._told_of_stop = True
                self._screen.say(
                    f"passed {_name(self.stopped_by)} on and waits for the "
                    "processes to end; Ctrl-C (SIGINT) kills them"
                )
            if time.monotonic() >= self._deadline:
                self.kill()

    def forward(self, number: int) -> None:
        """Passes a signal on; a SIGINT after a stop signal kills instead.

        Prints nothing, since a signal handler may call it at any time.

        Args:
            number: The signal's number.
        """
        if number == signal.SIGINT and self.stopped_by is not None:
            self.kill()
            return
        if number in STOP_SIGNALS and self.stopped_by is None:
            self.stopped_by = number
        for child in list(self._running):
            child.popen.send_signal(number)

    def kill(self) -> None:
        """Kills the processes and their children."""
        for child in list(self._running):
            child.kill()

    def _collect(self) -> None:
        """Takes those that have ended out of the group."""
        for child in list(self._running):
            status = child.popen.poll()
            if status is None:
                continue
            self._running.remove(child)
            child.kill()  # what it has left running
            child.drain()
            child.close()
            self._tell_watchdog()
            ending = Ending(child.index, status)
            self.codes.append(ending.code)
            if status != 0 and self.first is None:
                self._note_first(ending)

    def _note_first(self, ending: Ending) -> None:
        self.first = ending
        in_order = ending.code == RESTART_EXIT_CODE
        saving = in_order or self.stopped_by is not None
        patience = _SECONDS_TO_SAVE if saving else _SECONDS_FOR_LAST_WORDS
        self._deadline = time.monotonic() + patience
        if self.stopped_by is None:
            why = ", which asks for a restart" if in_order else ""
            self._screen.say(f"{ending}{why}")

    def _tell_watchdog(self) -> None:
        self._watchdog.watch([c.popen.pid for c in self._running])


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
