"""Many independent pieces of work on a Ray cluster."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from ftdnas.runtime.processes import IDLE_S, STILLBORN, Exhausted, Failure, Slot, Slots, Task, outcome_of
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

    def stop(self) -> None:
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
        self._arrive = arrive or _as_it_is
        self._context: Any = None
        self._actor_class: Any = None
        self._ours = False

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

        for actor in self._slots:
            actor.stop()
        self._slots.clear()
        self._context = None
        if self._ours:
            ray.shutdown()

    def _free(self) -> _Actor:
        import ray

        free = [actor for actor in self._slots if actor.task is None]
        if free:
            return max(free, key=lambda actor: actor.ready)
        if self._context is None:
            self._context = ray.put(self._gather())
        self._slots.append(_Actor(self._actor_class.remote(self._context, self._arrive)))
        return self._slots[-1]

    def _outcomes(self, limit_s: float | None, *, look_again: bool) -> list[tuple[_Actor, Any]]:
        """Of the busy actors, those that are done or out of time; perhaps none."""
        import ray

        busy = {actor.waits_for: actor for actor in self._slots if actor.task is not None}
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
        if not done and min(waited, default=0.0) >= PLACED_S and not any(actor.ready for actor in self._slots):
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
