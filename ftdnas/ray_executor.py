"""Many independent pieces of work on a Ray cluster."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from ftdnas.executors import IDLE_S, STILLBORN, Exhausted, Failure, Task, Tasks, one_line, outcome_of

Context = TypeVar("Context")
Result = TypeVar("Result")

CONNECTED_S = 10.0
PLACED_S = 120.0  # without a single process for so long, the cluster has no room


class RayCluster(Generic[Context]):
    """Actors of a Ray cluster, each of which holds the context and does one piece of work at a time: an Executor.

    `gather` is called once, here, when there is work, and gives the context itself, with all its tensors (a shelf of
    materials on the CPU): it is put into Ray's object store once and travels from there, so that no other machine needs
    this one's files. Each actor calls `arrive` with it and keeps what that returns, which may move it to a device. The
    machines need the same ftdnas (and the file of a space from outside, under the same path).

    `address`: of a running cluster ("auto": the one of this machine); None starts one here for the time of the block.
    `jobs`: at most so many actors, by default one for every CPU, or every share of a GPU, of the cluster. `gpus`: of
    each actor, a share; none is asked for where the cluster has none, for Ray would wait for it for ever.
    """

    def __init__(
        self,
        gather: Callable[[], Context],
        jobs: int | None = None,
        *,
        address: str | None = None,
        gpus: float = 0.0,
        arrive: Callable[[Context], Context] | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"{jobs} jobs: at least one process must do the work")
        self._gather = gather
        self._jobs = jobs
        self._address = address
        self._gpus = gpus
        self._arrive = arrive or _as_it_is
        self._context: Any = None
        self._actor_class: Any = None
        self._ours = False
        self._actors: list[_Actor] = []
        self._stillborn = 0

    def __enter__(self) -> RayCluster[Context]:
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        for actor in self._actors:
            actor.stop()
        self._actors.clear()
        self._context = None
        if self._ours:
            ray.shutdown()

    @property
    def jobs(self) -> int:
        """How many pieces of work are done at once."""
        assert self._jobs is not None
        return self._jobs

    def map(
        self, works: Iterable[Callable[[Context], Result] | None], limit_s: float | None = None
    ) -> Iterator[tuple[int, Result | Failure]]:
        """See Executor. Raises RuntimeError too where the cluster gives no process for two minutes."""
        tasks = Tasks(works)
        while True:
            while self._busy() < self.jobs and (task := tasks.pull()) is not None:
                self._free_actor().give(task)
            if not self._busy():
                if tasks.over:
                    return
                time.sleep(IDLE_S)
                continue
            look_again = not tasks.over and self._busy() < self.jobs
            for actor, outcome in self._outcomes(limit_s, look_again=look_again):
                task, seconds = actor.rest()
                if not actor.alive:
                    self._actors.remove(actor)
                settled = tasks.settle(task, outcome, seconds)
                if settled is not None:
                    yield settled[0].index, settled[1]

    def _busy(self) -> int:
        return sum(actor.task is not None for actor in self._actors)

    def _free_actor(self) -> _Actor:
        import ray

        free = [actor for actor in self._actors if actor.task is None]
        if free:
            return max(free, key=lambda actor: actor.ready)
        if self._context is None:
            self._context = ray.put(self._gather())
        self._actors.append(_Actor(self._actor_class.remote(self._context, self._arrive)))
        return self._actors[-1]

    def _outcomes(self, limit_s: float | None, *, look_again: bool) -> list[tuple[_Actor, Any]]:
        """Of the busy actors, those that are done or out of time; perhaps none."""
        import ray

        busy = {actor.waits_for: actor for actor in self._actors if actor.task is not None}
        timeouts = [PLACED_S] if not any(actor.ready for actor in busy.values()) else []
        timeouts += [] if limit_s is None else [limit_s - actor.seconds() for actor in busy.values() if actor.ready]
        timeouts += [IDLE_S] if look_again else []
        arrived, _ = ray.wait(list(busy), num_returns=1, timeout=max(0.0, min(timeouts)) if timeouts else None)
        done: list[tuple[_Actor, Any]] = []
        for reference in arrived:
            actor = busy.pop(reference)
            was_ready = actor.ready
            try:
                received = actor.take(reference)
            except ray.exceptions.RayActorError as error:
                # The constructor's own exception is an actor's death as well: it would come again and again.
                if (
                    isinstance(error, ray.exceptions.ActorDiedError)
                    and "creation task" in str(error).partition("\n")[0]
                ):
                    raise RuntimeError(f"the actors could not be prepared: {_cause(error)}") from error
                received = Failure(f"its actor ended: {_cause(error)}", crashed=True)
                actor.alive = False
                self._stillborn += not was_ready
                if self._stillborn >= STILLBORN:
                    raise RuntimeError(f"actors end before they can begin: {received.error}") from error
            except ray.exceptions.RayError as error:
                received = Failure(f"{type(error).__name__}: {_cause(error)}", crashed=True)
                actor.stop()
            if received is None:  # it is ready, and begins
                self._stillborn = 0
                continue
            if isinstance(received, Exhausted):
                actor.stop()
            done.append((actor, received))
        for actor in busy.values():
            if limit_s is not None and actor.ready and actor.seconds() >= limit_s:
                actor.stop()
                done.append((actor, Failure(f"took longer than {limit_s:g} s")))
        waited = [actor.seconds() for actor in busy.values()]
        if not done and min(waited, default=0.0) >= PLACED_S and not any(actor.ready for actor in self._actors):
            raise RuntimeError(
                f"the Ray cluster gave no process within {PLACED_S:g} s: it has "
                f"{_said(_resources(ray.cluster_resources))}, of which {_said(_resources(ray.available_resources))} "
                "are free"
            )
        return done


class _Holder:
    """What runs in an actor's process."""

    def __init__(self, context: Any, arrive: Callable[[Any], Any]) -> None:
        self._context = arrive(context)

    def ready(self) -> bool:
        return True

    def do(self, work: Callable[[Any], Any]) -> Any:
        return outcome_of(work, self._context)


class _Actor:
    """This side of one actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.task: Task | None = None
        self.ready = False
        self.alive = True
        self.waits_for: Any = None
        self._begun = 0.0

    def give(self, task: Task) -> None:
        self.task, self._begun = task, time.monotonic()
        self.waits_for = self._handle.do.remote(task.work) if self.ready else self._handle.ready.remote()

    def take(self, reference: Any) -> Any:
        """The outcome, or None where it has only now become ready and begins."""
        import ray

        assert self.task is not None
        received = ray.get(reference)
        if self.ready:
            return received
        self.ready = True
        self.give(self.task)
        return None

    def seconds(self) -> float:
        """Since its work, or its start, began."""
        return time.monotonic() - self._begun

    def rest(self) -> tuple[Task, float]:
        """The task that it no longer has, and how long it had it."""
        assert self.task is not None
        task, self.task = self.task, None
        return task, self.seconds()

    def stop(self) -> None:
        import ray

        self.alive = False
        ray.kill(self._handle)


def _as_it_is(context: Context) -> Context:
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


def _resources(ask: Callable[[], Any]) -> dict[str, float]:
    found: dict[str, float] = ask()
    return found


def _said(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
