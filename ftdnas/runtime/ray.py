"""Many independent pieces of work on a Ray cluster."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar

from ftdnas.runtime.processes import Failure, Ready, Slot, Slots, Task, Unprepared, outcome_of
from search_spaces.messages import one_line

Context = TypeVar("Context")
Result = TypeVar("Result")

CONNECTED_S = 10.0
PLACED_S = 120.0  # without a single process for so long, the cluster has no room


class _Actor(Slot):
    """This side of one actor."""

    def __init__(self, handle: Any) -> None:
        super().__init__()
        self._handle = handle
        self.waits_for: Any = None

    def give(self, task: Task) -> None:
        self.task, self._begun = task, time.monotonic()
        self.waits_for = self._handle.do.remote(task.work) if self.ready else self._handle.ready.remote()

    def take(self) -> Any:
        import ray

        assert self.task is not None
        try:
            received = ray.get(self.waits_for)
        except ray.exceptions.RayActorError as error:
            # The constructor's own exception is an actor's death as well: it would come again and again.
            if isinstance(error, ray.exceptions.ActorDiedError) and "creation task" in str(error).partition("\n")[0]:
                return Unprepared(_cause(error))
            self.alive = False
            return Failure(f"its actor ended: {_cause(error)}", crashed=True)
        except ray.exceptions.RayError as error:
            self.stop()
            return Failure(f"{type(error).__name__}: {_cause(error)}", crashed=True)
        if self.ready:
            return received
        self.ready = True
        self.give(self.task)
        return Ready()

    def stop(self, *, at_once: bool = False) -> None:  # noqa: ARG002
        import ray

        self.alive = False
        ray.kill(self._handle)


class RayCluster(Slots[Context, _Actor]):
    """Actors of a Ray cluster, each of which holds the context and does one piece of work at a time: an Executor.

    `gather` is called once, here, when there is work, and gives the context itself, with all its tensors (a shelf of
    materials on the CPU): it is put into Ray's object store once and travels from there, so that no other machine needs
    this one's files. Each actor calls `arrive` with it and keeps what that returns, which may move it to a device. The
    machines need the same ftdnas (and the file of a space from outside, under the same path).

    `address`: of a running cluster ("auto": the one of this machine); None starts one here for the time of the block.
    `jobs`: at most so many actors, by default one for every CPU, or every share of a GPU, of the cluster. `gpus`: of
    each actor, a share; none is asked for where the cluster has none, for Ray would wait for it for ever. `map` raises
    RuntimeError too where the cluster gives no process for two minutes.
    """

    called = "actors"

    def __init__(
        self,
        gather: Callable[[], Context],
        jobs: int | None = None,
        *,
        address: str | None = None,
        gpus: float = 0.0,
        arrive: Callable[[Context], Context] | None = None,
    ) -> None:
        super().__init__(jobs)
        self._gather = gather
        self._address = address
        self._gpus = gpus
        self._arrive = arrive or _itself
        self._context: Any = None
        self._actor_class: Any = None
        self._ours = False

    def __enter__(self) -> Self:
        """Connect. Raises ValueError where Ray is not installed or the cluster does not answer."""
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ValueError("the Ray executor needs ray: pip install 'ftdnas[ray]'") from error
        self._ours = not ray.is_initialized()
        if self._ours:
            here: dict[str, Any] = {"include_dashboard": False} if self._address is None else {}
            if self._address is None and self._jobs is not None:
                here["num_cpus"] = self._jobs
            _check_reachable(self._address)
            try:
                ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR, **here)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ValueError(f"no Ray cluster at {self._address or 'this machine'}: {one_line(error)}") from error
        resources = _resources(ray.cluster_resources)
        share = self._gpus if resources.get("GPU", 0) else 0.0
        room = int(resources["GPU"] / share) if share else int(resources.get("CPU", 1))
        self._jobs = max(1, min(self._jobs or room, room))
        self._actor_class = ray.remote(_Holder).options(num_cpus=1, num_gpus=share, max_restarts=0)
        return self

    def __exit__(self, *exception: object) -> None:
        import ray

        super().__exit__(*exception)
        self._context = None
        if self._ours:
            ray.shutdown()

    def _started(self) -> _Actor:
        import ray

        if self._context is None:
            self._context = ray.put(self._gather())
        return _Actor(self._actor_class.remote(self._context, self._arrive))

    def _wait(self, handles: list[Any], timeout_s: float | None) -> Iterable[Any]:
        import ray

        placed = any(actor.ready for actor in self._slots)
        if not placed:
            timeout_s = min(PLACED_S, timeout_s or PLACED_S)
        come: list[Any] = ray.wait(handles, num_returns=1, timeout=timeout_s)[0]
        if not come and not placed and min(actor.seconds() for actor in self._slots) >= PLACED_S:
            raise RuntimeError(
                f"the Ray cluster gave no process within {PLACED_S:g} s: it has "
                f"{_said(ray.cluster_resources)}, of which {_said(ray.available_resources)} are free"
            )
        return come


class _Holder:
    """What runs in an actor's process."""

    def __init__(self, context: Any, arrive: Callable[[Any], Any]) -> None:
        self._context = arrive(context)

    def ready(self) -> bool:
        return True

    def do(self, work: Callable[[Any], Any]) -> Any:
        return outcome_of(work, self._context)


def _itself(context: Context) -> Context:
    return context


def _cause(error: BaseException) -> str:
    """The line of Ray's account that says what happened: the last of a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _check_reachable(address: str | None) -> None:
    """Raise ValueError where nobody listens at host:port, which Ray would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTED_S).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster at {address}: {error.strerror or error}; see `ray status` there") from error


def _resources(ask: Callable[[], Any]) -> Mapping[str, float]:
    given: Mapping[str, float] = ask()
    return given


def _said(ask: Callable[[], Any]) -> str:
    resources = _resources(ask)
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
