"""Slots that carry jobs out: each runs one at a time in a child process, and writes down where it is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from distill.run import Pace, Progress
from ftdnas.runtime.database import Storage
from ftdnas.runtime.followed import FLAG, ORPHANED, read_line
from ftdnas.runtime.home import home
from ftdnas.runtime.leases import DatabaseAway
from ftdnas.runtime.trouble import EXIT_CODE
from ftdnas.service.bounds import Bounds
from ftdnas.service.machine import Machine
from ftdnas.service.paths import without_places
from ftdnas.service.queue import LOG_LINES, MOST, SCOPE, Job, Queue, Stop
from ftdnas.service.requests import can_begin, read_job

LOOK_S = 0.5  # between two looks at the queue, and at a child
NOTE_S = 5.0  # between two notes of a job that says nothing
GRACE_S = 2.5  # between Ctrl-C and the end, for a command that is cancelled
WRONG_INPUT = 2  # exit code of a command that told its user what is wrong: to try it again would say the same
NICE = 10  # the server's answers come first
PAUSE_S = 5.0  # before the next job, where one met trouble of the machine
HELD_S = 60.0  # before that job is begun again here
PARTING_S = 3.0  # for a database that is away when everything ends
LINE = 2000  # characters of a line of the log that are kept
OUTPUT = 4 << 20  # bytes of what a command prints that are kept


class Workers:
    """`count` slots that take jobs from the queue while the block lasts.

    Each gets an equal share of the cores, or one GPU. A child ends with this process, however that ends; its job is
    then taken up by whoever looks next, here or on another machine that shares the database and the home folder. What
    stops a job without being its own fault puts it back, as often as `MOST` says: trouble of the machine counts where
    the machine looks well. Nothing is begun while home, disk or database are not well.
    """

    def __init__(
        self, storage: Storage, storage_url: str | None, bounds: Bounds, count: int, gpus: Sequence[str] = ()
    ) -> None:
        if count < 1:
            raise ValueError(f"{count} workers: at least one must carry the jobs out")
        self._queue = Queue(storage)
        self._machine = Machine(self._queue)
        self._leases = storage.leases(SCOPE)
        self._url = storage_url
        self._bounds = bounds
        self._gpus = gpus
        self._threads = max(1, (os.cpu_count() or 1) // count)
        self._over = threading.Event()
        self._taking = threading.Lock()
        self._ours: set[str] = set()
        self._held: dict[str, float] = {}  # jobs that met trouble, and until when others go first
        self._slots = [
            threading.Thread(target=self._work, args=(number,), daemon=True, name=f"ftdnas-worker-{number}")
            for number in range(count)
        ]
        self._problems: dict[int, str] = {}

    def __enter__(self) -> Workers:
        self._leases.__enter__()
        for slot in self._slots:
            slot.start()
        return self

    def __exit__(self, *ended: Any) -> None:
        """End the children; their jobs go back to the queue, uncounted."""
        self._over.set()
        self._queue.hurry(PARTING_S)
        for slot in self._slots:
            slot.join()
        with contextlib.suppress(ValueError):
            self._leases.__exit__(*ended)

    @property
    def problem(self) -> str | None:
        """Why no job is being taken, or carried out, if so."""
        return next(iter(self._problems.values()), None)

    def _work(self, slot: int) -> None:
        while not self._over.is_set():
            try:
                if problems := self._machine.problems():
                    self._problems[slot] = problems[0]
                    self._over.wait(5 * LOOK_S)
                    continue
                with self._taking:
                    self._held = {job: until for job, until in self._held.items() if time.monotonic() < until}
                    not_now = self._ours | self._held.keys()
                    job = self._queue.take(self._leases, not_now, f"{socket.gethostname()}/{slot}", can_begin)
                    if job is not None:
                        self._ours.add(job.id)
                self._problems.pop(slot, None)
                if job is None:
                    self._over.wait(LOOK_S)
                    continue
                try:
                    self._carry_out(job, slot)
                finally:
                    with self._taking:  # nobody takes it in between and then loses it to this release
                        self._ours.discard(job.id)
                        with contextlib.suppress(DatabaseAway):  # ours, and of no use: the next look takes it
                            self._leases.release(job.id)
            except Exception as error:  # the database, the disk, a bug: jobs wait, the readiness says why
                if not isinstance(error, ValueError | OSError):
                    traceback.print_exc()
                self._problems[slot] = str(error)
                self._over.wait(5 * LOOK_S)

    def _carry_out(self, job: Job, slot: int) -> None:
        if job.stops.get("deaths", 0) >= MOST["deaths"]:
            self._queue.end(job, "failed", error=_too_often("its server ended", "deaths"))
            return
        if job.attempts > 1:
            self._over.wait(2 * LOOK_S)  # whoever only seemed dead hears of it, and ends its process
        try:
            read = read_job(job.kind, job.request, self._bounds)
            request = read.here(self._bounds, self._threads, self._url)
            told = {"kind": job.kind, "request": request, "as_json": read.json_output}
        except (ValueError, LookupError) as error:  # what it names has gone since, or this server has other bounds
            self._queue.end(job, "failed", error=without_places(str(error.args[0])))
            return
        with tempfile.TemporaryFile() as out:
            child = _Child(told, self._environment(slot), out, job)
            child.follow(self._queue, self._over)
            out.seek(0)
            output = without_places(out.read(OUTPUT).decode("utf-8", "replace"))
        if child.lost:
            return
        if child.code == -signal.SIGTERM:
            self._over.wait(PARTING_S)  # a machine that shuts down tells all its processes at once
        stopped = self._over.is_set() and (-signal.SIGKILL != child.code < 0 or not child.ended_by_itself)
        if stopped or child.code == ORPHANED:
            self._insist(lambda: self._queue.put_back(job, "its server ended"))
        elif child.cancelled:
            self._insist(lambda: self._queue.end(job, "cancelled", output=output))
        elif child.code == 0:
            self._insist(lambda: self._queue.end(job, "succeeded", output=output))
        else:
            self._failed(job, child, output, slot)

    def _failed(self, job: Job, child: _Child, output: str, slot: int) -> None:
        """Tell the machine's trouble from what the job did itself."""
        problems = self._machine.problems()
        why = child.trouble or next(iter(problems), None)
        if why is not None:
            self._problems[slot] = why
            with self._taking:
                self._held[job.id] = time.monotonic() + HELD_S
            self._insist(lambda: self._put_back(job, without_places(why), None if problems else "troubles", output))
            self._over.wait(PAUSE_S)  # what is wrong may not show from here
        elif child.code < 0:
            self._insist(lambda: self._put_back(job, "its process was killed", "kills", output))
        else:
            self._insist(lambda: self._queue.end(job, "failed", output=output, error=child.reason))

    def _put_back(self, job: Job, why: str, stop: Stop | None, output: str) -> None:
        """Queue it again, unless it was stopped so too often."""
        if stop is None or job.stops.get(stop, 0) + 1 < MOST[stop]:
            self._queue.put_back(job, why, stop)
        else:
            self._queue.end(job, "failed", output=output, error=_too_often(why, stop))

    def _insist(self, write: Callable[[], None]) -> None:
        """What came of a job is written down when the database is back, unless all ends before: then nothing is."""
        while True:
            try:
                return write()
            except DatabaseAway:
                if self._over.wait(5 * LOOK_S):
                    raise

    def _environment(self, slot: int) -> dict[str, str]:
        named = {FLAG: "1", "FTDNAS_HOME": str(home()), "OMP_NUM_THREADS": str(self._threads)}
        if self._gpus:
            named["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        return {**os.environ, **named}


@dataclass
class _Child:
    """A command in a process of its own, while it lives and after."""

    told: Mapping[str, Any]  # what it reads first, as JSON
    environment: Mapping[str, str]
    out: IO[bytes]
    job: Job
    cancelled: bool = False
    lost: bool = False  # another has the job now
    ended_by_itself: bool = False
    code: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    left_s: float | None = None
    changed: bool = True

    def __post_init__(self) -> None:
        self.log: deque[str] = deque(self.job.log.splitlines(), maxlen=LOG_LINES)
        self.begun = time.time()
        self._before_s = float(self.job.progress.get("spent_s", 0.0))  # in earlier attempts

    def follow(self, queue: Queue, over: threading.Event) -> None:
        """Run it to its end, to its cancellation or to ours."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ftdnas"],  # whatever lies in this folder, it is not imported
            stdin=subprocess.PIPE,  # its job comes by this pipe, and it ends with it, so with us
            stdout=self.out,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        with contextlib.suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        assert process.stderr is not None
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(self.told).encode() + b"\n")
            process.stdin.flush()
        reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        reader.start()
        asked_at: float | None = None
        noted_at = 0.0
        try:
            while process.poll() is None:
                if over.is_set() or self.lost:
                    return
                with contextlib.suppress(ValueError):  # a database that is gone: the work goes on
                    wanted = queue.asked(self.job)
                    self.lost, self.cancelled = wanted == "lost", wanted == "cancel" or self.cancelled
                    if self.changed or time.monotonic() - noted_at > NOTE_S:
                        self.changed, noted_at = False, time.monotonic()
                        queue.note(self.job, self._place(), list(self.log))
                if self.cancelled and asked_at is None:
                    asked_at = time.monotonic()
                    process.send_signal(signal.SIGINT)
                if asked_at is not None and time.monotonic() - asked_at > GRACE_S:
                    _end_all(process.pid)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_S)
            self.ended_by_itself = True
        finally:
            _end_all(process.pid)  # what it started would else hold its log open
            self.code = process.wait()
            reader.join(GRACE_S)
            process.stderr.close()
            with contextlib.suppress(OSError):
                process.stdin.close()
        with contextlib.suppress(DatabaseAway):
            queue.note(self.job, self._place(), list(self.log))

    @property
    def trouble(self) -> str | None:
        """What the machine did to it, as it said itself, if so."""
        return self._said if self.code == EXIT_CODE else None

    @property
    def reason(self) -> str:
        """What the command said last."""
        if self.code == WRONG_INPUT and self._said:
            return self._said
        return f"it ended with exit code {self.code}: {self.log[-1] if self.log else ''}"

    @property
    def _said(self) -> str | None:
        """The last line that is the command's own: a library may say more after it."""
        own = (line for line in reversed(self.log) if line.startswith("ftdnas: "))
        return next((line.removeprefix("ftdnas: ") for line in own), None)

    def _read(self, stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            told = read_line(line) or {"message": line, "total": 0}
            if told["message"]:
                self.log.append(without_places(told["message"])[:LINE])
            if told["total"]:
                self._reach(told)
            self.changed = True

    def _reach(self, told: Mapping[str, Any]) -> None:
        if told["stage"] != self.progress.get("stage") or told["done"] < self.progress["done"]:
            self.progress = {"values": {}}
        self.left_s = self.pace.left_s(Progress(**told))
        values = {**self.progress["values"], **told["values"]}
        self.progress = {"stage": told["stage"], "done": told["done"], "total": told["total"], "values": values}

    def _place(self) -> dict[str, Any]:
        """Where it is: stage, done of total, values, seconds left in this stage, seconds so far in all attempts."""
        place = {**self.progress, **self.job.stops, "spent_s": self._before_s + time.time() - self.begun}
        return place if self.left_s is None else {**place, "left_s": self.left_s}


def _too_often(why: str, stop: Stop) -> str:
    return f"{why} ({MOST[stop]} times): see the log, and retry"


def _end_all(session: int) -> None:
    """A command and the processes that it started, if any of them lives."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)
