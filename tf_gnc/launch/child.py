"""One process: starting it, its pipes, and killing it."""

import contextlib
import dataclasses
import functools
import io
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from tf_gnc.launch.output import PROGRESS_FD, LineCutter, Screen

_CHUNK = 2**16

# More chunks than a pipe holds.
_MOST_CHUNKS = 64


@dataclasses.dataclass(frozen=True)
class ProcessSpec:
    """A process to be started; its `index` is its number in the cluster."""

    index: int
    command: Sequence[str]
    environment: Mapping[str, str]  # all of it
    cores: set[int] | None  # None for those of this process


class Child:
    """A process that runs.

    It is the first of a session of its own: a terminal's signals reach it
    through the launcher only, and its own children can be killed with it. The
    selector gets its pipes; calling a key's data passes output on.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        screen: Screen,
        selector: selectors.BaseSelector,
    ) -> None:
        self.index = spec.index
        show = functools.partial(screen.show, f"[{spec.index}] ")
        environment = dict(spec.environment)
        environment.pop(PROGRESS_FD, None)
        self._pipes: list[_Pipe] = []
        with contextlib.ExitStack() as stack:
            inherited = []
            if screen.has_bar and spec.index == 0:
                ours, theirs = os.pipe()
                stack.callback(os.close, theirs)
                # A report that finds no room is dropped, and nobody waits.
                os.set_blocking(theirs, False)
                environment[PROGRESS_FD] = str(theirs)
                inherited = [theirs]
                reports = os.fdopen(ours, "rb", buffering=0)
                self._pipes.append(_Pipe(reports, screen.move_bar, selector))
            stack.enter_context(_on_cores(spec.cores))
            self.popen = subprocess.Popen(
                list(spec.command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if screen.is_one else subprocess.PIPE,
                bufsize=0,
                env=environment,
                pass_fds=inherited,
                start_new_session=True,
            )
        self._pipes.append(_Pipe(self.popen.stdout, show, selector))
        if self.popen.stderr is not None:
            show_error = functools.partial(show, error=True)
            self._pipes.append(_Pipe(self.popen.stderr, show_error, selector))

    def kill(self) -> None:
        """Kills it and all of its process group."""
        with contextlib.suppress(OSError):  # There is nobody left.
            os.killpg(self.popen.pid, signal.SIGKILL)

    def drain(self) -> None:
        """Passes on what it has left in its pipes when it ended."""
        for pipe in self._pipes:
            pipe.drain()

    def close(self) -> None:
        """Closes its pipes."""
        for pipe in self._pipes:
            pipe.close()


class Watchdog:
    """A tiny process that kills the others if this one is killed.

    It waits for the end of its input, which comes however this process ends.
    """

    _SOURCE = (
        "import os, signal, sys\n"
        "groups = []\n"
        "for line in sys.stdin:\n"
        "    groups = line.split()\n"
        "for group in groups:\n"
        "    try:\n"
        "        os.killpg(int(group), signal.SIGKILL)\n"
        "    except OSError:\n"
        "        pass\n"
    )

    def __init__(self) -> None:
        # In a session of its own no signal of a terminal reaches it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", self._SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def close(self) -> None:
        """Lets it go, and the processes live."""
        self.watch([])
        self._process.stdin.close()
        self._process.wait()

    def watch(self, groups: Sequence[int]) -> None:
        """Tells it which process groups there are from now on."""
        line = " ".join(map(str, groups)) + "\n"
        with contextlib.suppress(OSError):  # Somebody has killed it.
            self._process.stdin.write(line.encode())


class _Pipe:
    """The reading end of a pipe, from which whole lines are handed on."""

    def __init__(
        self,
        file: io.RawIOBase,
        show: Callable[[Sequence[str]], None],
        selector: selectors.BaseSelector,
    ) -> None:
        self._file, self._show, self._selector = file, show, selector
        self._cutter = LineCutter()
        os.set_blocking(file.fileno(), False)
        selector.register(file, selectors.EVENT_READ, self.pass_on)

    def pass_on(self) -> bool:
        """Passes on a chunk of what there is; returns whether there was any."""
        if self._file.closed:
            return False
        data = self._file.read(_CHUNK)
        if data:
            self._show(self._cutter.feed(data))
        elif data is not None:  # At its end; None is for "nothing just now".
            self._show(self._cutter.end())
            self.close()
        return bool(data)

    def drain(self) -> None:
        """Passes on what there is, a line without an end included."""
        # A process that has left its group may hold the pipe and write on.
        for _ in range(_MOST_CHUNKS):
            if not self.pass_on():
                break
        self._show(self._cutter.end())

    def close(self) -> None:
        """Closes the pipe."""
        if not self._file.closed:
            self._selector.unregister(self._file)
            self._file.close()


@contextlib.contextmanager
def _on_cores(cores: set[int] | None) -> Iterator[None]:
    """Has what is started inside begin its life on these cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
