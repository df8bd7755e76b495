"""One group of processes: started together, and none goes on alone."""

import dataclasses
import signal
from collections.abc import Sequence

from tf_gnc.launch.addresses import RESTART_EXIT_CODE
from tf_gnc.launch.child import ProcessSpec
from tf_gnc.launch.output import Screen
from tf_gnc.launch.processes import SECONDS_TO_SAVE, Processes

# How long the others may go on when one has died. They can't do anything
# together any more, so it is only for their last words.
_SECONDS_FOR_LAST_WORDS = 1.0


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a process ended."""

    index: int
    status: int  # its exit code, or -n if signal n ended it

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


def run_together(
    specs: Sequence[ProcessSpec], processes: Processes, screen: Screen
) -> list[Ending]:
    """Runs processes until all have ended; if one fails, it ends the others."""
    for spec in specs:
        processes.start(spec, screen)
    endings: list[Ending] = []
    has_failed = has_told_of_stop = False
    while processes:
        for child, status in processes.wait():
            endings.append(Ending(child.index, status))
            if status and not has_failed:
                has_failed = True
                _end_others(endings[-1], processes, screen)
        if processes.stopped_by is not None and not has_told_of_stop:
            has_told_of_stop = True
            screen.say(
                f"passed {_name(processes.stopped_by)} on and waits for the "
                "processes to end; Ctrl-C (SIGINT) kills them"
            )
    return endings


def _end_others(ending: Ending, processes: Processes, screen: Screen) -> None:
    # One that ended because it was told to: all have been told, are saving
    # what they have, and end at about the same time.
    in_order = ending.code == RESTART_EXIT_CODE
    saving = in_order or processes.stopped_by is not None
    processes.kill_after(SECONDS_TO_SAVE if saving else _SECONDS_FOR_LAST_WORDS)
    if processes.stopped_by is None:
        why = ", which asks for a restart" if in_order else ""
        screen.say(f"{ending}{why}")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
