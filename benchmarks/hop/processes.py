"""Programs that we started: pinned to a core, measured, paused while another's turn is on, and ended.

All of it is Linux: process clocks, `/proc`, affinity. Only what was started here is ever signalled.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE = CORES[0]
LOAD_CORE = CORES[min(1, len(CORES) - 1)]
"""Of the back end and the client."""

PR_SET_PDEATHSIG = 1


class Memory(NamedTuple):
    """In MB, of a program and all that it started."""

    resident: float
    proportional: float
    """What several processes share is divided among them."""


class Program:
    """A program in a session of its own, whose output goes to a file."""

    def __init__(
        self, command: Sequence[str], core: int, log: Path, env: Mapping[str, str], *, piped: bool = False
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
                env=dict(env),
                cwd=log.parent,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: _settle(core),
            )
        self.pid = self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def cpu(self) -> float:
        """Seconds of CPU so far, of all threads, ended ones too, and of all processes that still run."""
        return sum(_cpu(pid) for pid in self._pids())

    def memory(self) -> Memory:
        rolls = [_rollup(pid) for pid in self._pids()]
        return Memory(sum(roll.resident for roll in rolls), sum(roll.proportional for roll in rolls))

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Politely at first."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self._signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-400:]

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader, and its id is not given away while it does.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _pids(self) -> list[int]:
        return [pid for pid in _all_pids() if _session(pid) == self.pid]


def _settle(core: int) -> None:
    """In the child, before it becomes the program: its core, and that it doesn't survive us."""
    os.sched_setaffinity(0, {core})
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pin(core: int) -> None:
    """Ourselves. What we start chooses its own core."""
    os.sched_setaffinity(0, {core})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def allow_many_files() -> None:
    """A stream that is held takes two descriptors of a hop. What we start inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def idle_share(seconds: float) -> float:
    """How much of the machine nobody uses: measured before anything is started."""

    def read() -> tuple[int, int]:
        numbers = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return numbers[3] + numbers[4], sum(numbers)

    idle, whole = read()
    time.sleep(seconds)
    idle_now, whole_now = read()
    return (idle_now - idle) / max(1, whole_now - whole)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _session(pid: int) -> int | None:
    try:
        # The name, in parentheses, may contain anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, IndexError):
        return None


def _cpu(pid: int) -> float:
    # What clock_getcpuclockid(3) makes of a process id: nanoseconds, where /proc counts in hundredths.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _rollup(pid: int) -> Memory:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(0.0, 0.0)
    kb = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(kb["Rss"] * 1024 / 1e6, kb["Pss"] * 1024 / 1e6)
