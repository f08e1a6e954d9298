"""Work in processes: outcomes, failures, crashes, and that nothing outlives the process that asked for it.

The pieces of work are built-in functions: a spawned process does not know the modules of the tests.
"""

from __future__ import annotations

import multiprocessing
import operator
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ftdnas.runtime.processes import Failure, LocalProcesses
from ftdnas.runtime.trouble import MachineTrouble


def _nine() -> partial[int]:
    return partial(int, "9")  # SIGKILL


def test_every_piece_of_work_has_its_outcome_whatever_happens_to_the_others() -> None:
    works: list[Any] = [
        partial(operator.mul, 3),
        partial(operator.getitem, [1, 2]),  # an IndexError
        signal.raise_signal,  # takes its process down, twice
        partial(operator.sub, 10),
        partial(operator.add, 1),
    ]
    with LocalProcesses(_nine, 2) as processes:
        outcomes = dict(processes.map(works))
        again = dict(processes.map([partial(operator.mul, 2)]))
    crash = outcomes.pop(2)
    assert isinstance(crash, Failure)
    assert crash.crashed
    assert "SIGKILL" in crash.error
    assert outcomes == {0: 27, 1: Failure("IndexError: list index out of range"), 3: 1, 4: 10}
    assert again == {0: 18}


def test_trouble_of_the_machine_ends_all_at_once(tmp_path: Path) -> None:
    """Nothing is tried again there, and no process is left."""
    begun = tmp_path / "begun"
    full = partial(eval, f"(open({str(begun)!r}, 'a').write('x'), open('/dev/full', 'wb', 0).write(b'x'))")
    lay_out: Callable[[], Callable[[], Any]] = lambda: partial(dict)  # noqa: E731
    with pytest.raises(MachineTrouble, match="no space is left on the disk"), LocalProcesses(lay_out, 2) as processes:
        list(processes.map([partial(eval, "__import__('time').sleep(600)"), full]))
    assert begun.read_text() == "x"
    assert not multiprocessing.active_children()


def test_each_process_sees_one_gpu_and_those_after_it_too() -> None:
    seen = partial(eval, "(__import__('os').environ['CUDA_VISIBLE_DEVICES'], __import__('time').sleep(1))[0]")
    lay_out: Callable[[], Callable[[], Any]] = lambda: partial(dict)  # noqa: E731
    with LocalProcesses(lay_out, 3, gpus=("2", "5")) as processes:
        first = [str(outcome) for _, outcome in processes.map([seen] * 3)]
        assert sorted(first) == ["2", "2", "5"]
        crashes = dict(
            processes.map([partial(eval, "__import__('signal').raise_signal(9)")])
        )  # takes two processes down
        assert isinstance(crashes[0], Failure)
        assert {outcome for _, outcome in processes.map([seen] * 3)} == {"2", "5"}


def test_nothing_is_laid_out_without_work() -> None:
    def never() -> partial[int]:
        raise AssertionError("laid out without work")

    with LocalProcesses(never, 2) as processes:
        assert list(processes.map([])) == []
    with pytest.raises(ValueError, match="0 jobs"):
        LocalProcesses(_nine, 0)


def test_a_context_that_cannot_be_made_is_an_error() -> None:
    def broken() -> partial[int]:
        return partial(int, "seven")

    with LocalProcesses(broken, 1) as processes, pytest.raises(RuntimeError, match="not be prepared: ValueError"):
        list(processes.map([operator.neg]))


def test_work_is_read_when_a_process_is_free_and_may_depend_on_what_came_out() -> None:
    given: list[int] = []
    came: list[int] = []

    def works() -> Iterator[partial[int] | None]:
        while len(given) < 6:
            if len(given) == 3 and not came:
                yield None  # nothing to do before there is an outcome
                continue
            assert len(given) - len(came) < 2  # of which one is being read
            given.append(len(given))
            yield partial(operator.add, given[-1])

    with LocalProcesses(_nine, 2) as processes:
        for index, outcome in processes.map(works()):
            assert outcome == 9 + index
            came.append(index)
        assert sorted(came) == list(range(6))
        pauses: list[Callable[[int], int] | None] = [None, None, operator.neg, None]
        assert list(processes.map(pauses)) == [(0, -9)]


def test_work_that_takes_too_long_is_ended_and_the_rest_is_done() -> None:
    works: list[Callable[[int], object]] = [operator.neg, time.sleep, operator.pos]  # which would sleep 9 s
    with LocalProcesses(_nine, 1) as processes:
        outcomes = dict(processes.map(works, limit_s=0.5))
    assert outcomes[0] == -9
    assert outcomes[2] == 9
    late = outcomes[1]
    assert late == Failure("took longer than 0.5 s")
    assert isinstance(late, Failure)
    assert late.seconds >= 0.5


def test_memory_that_runs_out_is_a_failure_with_its_reason() -> None:
    works: list[Any] = [bytearray, operator.neg]
    with LocalProcesses(lambda: partial(int, str(2**62)), 1) as processes:
        outcomes = dict(processes.map(works))
    assert outcomes == {0: Failure("ran out of memory: MemoryError"), 1: -(2**62)}


def test_an_outcome_that_cannot_be_sent_is_a_failure() -> None:
    with LocalProcesses(_nine, 1) as processes:
        ((_, outcome),) = processes.map([operator.attrgetter("__class__.__dict__")])  # a mappingproxy
    assert isinstance(outcome, Failure)
    assert not outcome.crashed


def test_processes_that_cannot_begin_are_an_error() -> None:
    works: list[Any] = [operator.neg, operator.neg]
    with (
        LocalProcesses(lambda: partial(signal.raise_signal, signal.SIGKILL), 1) as processes,
        pytest.raises(RuntimeError, match="end before they can begin: its process was killed by SIGKILL"),
    ):
        list(processes.map(works))


PARENT = """
import signal
import time
from functools import partial
from ftdnas.runtime.processes import LocalProcesses

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without one
    with LocalProcesses(lambda: partial(float, 60), 1, preload=()) as processes:
        outcomes = processes.map([partial(max, 3), time.sleep])
        print(next(outcomes), flush=True)
        list(outcomes)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"(0, 60.0)\n"
        children = _children(parent.pid)
        assert children
        parent.send_signal(number)
        assert parent.wait(300) != 0
    assert _soon(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _soon(condition: Callable[[], bool], timeout_s: float = 300.0) -> bool:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()
