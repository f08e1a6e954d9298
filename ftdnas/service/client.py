"""A server from Python: submit jobs, follow them, read what came of them."""

from __future__ import annotations

import ipaddress
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx

OVER = ("succeeded", "failed", "cancelled")
RECONNECT_S = 60.0  # a server may be away for so long: it is being started again
PAUSE_S = 1.0


class ServerError(ValueError):
    """What the server said against a request, one line; `status` is the HTTP status, 0 where it does not answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def _is_here(url: str) -> bool:
    """Whether an address is of this machine itself."""
    host = httpx.URL(url).host
    try:
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Client(AbstractContextManager["Client"]):
    """A running `ftdnas serve` at `url`; use it in a with block, or call `close`.

    Every method raises ServerError, one line, where the server refuses or does not answer.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if not url.startswith(("http://", "https://")):
            raise ServerError(0, f"{url} is no address of a server: write http://HOST:PORT")
        try:
            # A proxy of the environment is not for this machine itself: the token would go there too.
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=not _is_here(url))
        except ImportError as error:  # of a proxy that speaks SOCKS
            raise ServerError(
                0, f"the proxy that the environment names needs a package: {error}; or unset ALL_PROXY"
            ) from None
        except (httpx.InvalidURL, ValueError) as error:
            raise ServerError(0, f"{url} is no address of a server: write http://HOST:PORT ({error})") from None
        self.url = url

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, kind: str, key: str | None = None, **request: Any) -> dict[str, Any]:
        """Queue a job ("distill", "search", "trust", "truth", "check", "report", "finish"); `request` are its options.

        `key` makes it safe to repeat: the same key is the same job.
        """
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._json("POST", f"/jobs/{kind}", json=request, headers=headers)

    def job(self, identity: str) -> dict[str, Any]:
        """The job as it is now; when it is over with its output and log."""
        return self._json("GET", f"/jobs/{identity}")

    def log(self, identity: str) -> list[str]:
        """What the job's command said so far, the last lines."""
        return self._answer("GET", f"/jobs/{identity}/log").text.splitlines()

    def cancel(self, identity: str) -> dict[str, Any]:
        return self._json("POST", f"/jobs/{identity}/cancel")

    def retry(self, identity: str) -> dict[str, Any]:
        return self._json("POST", f"/jobs/{identity}/retry")

    def follow(self, identity: str) -> Iterator[dict[str, Any]]:
        """The job now and after every change, to its end; over a lost connection, too."""
        lost_at: float | None = None
        while True:
            why: object = "a stream without an event"
            try:
                with self._http.stream("GET", f"/api/v1/jobs/{identity}/events", timeout=30.0) as answer:
                    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # its database is being started again
                        raise httpx.ReadError("it is not ready")
                    if answer.status_code != httpx.codes.OK:
                        answer.read()
                        raise _refused(answer)
                    for line in answer.iter_lines():
                        if line.startswith("data:"):
                            lost_at = None
                            told: dict[str, Any] = json.loads(line.removeprefix("data:"))
                            yield told
                            if told["state"] in OVER:
                                return
            except httpx.TransportError as error:
                why = error
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > RECONNECT_S:
                raise self._silent(why)
            time.sleep(PAUSE_S)

    def wait(self, identity: str) -> dict[str, Any]:
        """The job when it is over. Raises ServerError where it failed or was cancelled."""
        for _ in self.follow(identity):
            pass
        found = self.job(identity)
        if found["state"] != "succeeded":
            raise ServerError(200, found["error"] or f"the job was {found['state']}")
        return found

    def sets(self) -> list[dict[str, Any]]:
        """The synthetic sets of the server's library."""
        return list(self._all("/sets", "sets"))

    def download(self, name: str, path: Path) -> Path:
        """Write the set `name` to `path`; written beside and renamed."""
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            partial.write_bytes(self._answer("GET", f"/sets/{name}/file").content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def upload(self, path: Path, name: str) -> dict[str, Any]:
        """Take the file of a synthetic set into the server's library."""
        headers = {"Content-Type": "application/octet-stream"}
        with path.open("rb") as file:
            return self._json("PUT", f"/sets/{name}", content=file, headers=headers)

    def studies(self) -> list[dict[str, Any]]:
        return list(self._all("/studies", "studies"))

    def trials(self, study: str) -> list[dict[str, Any]]:
        """The candidates of a study, best first; while it runs those scored so far."""
        return list(self._all(f"/studies/{study}/trials", "trials"))

    def ranking(self, study: str) -> dict[str, Any]:
        """The ranking of a study, for `ftdnas.service.fetch` to bring home."""
        return self._json("GET", f"/studies/{study}/ranking")

    def report(self, study: str) -> dict[str, Any]:
        """The report's numbers and its verdict."""
        return self._json("GET", f"/studies/{study}/report.json")

    def _all(self, path: str, key: str) -> Iterator[dict[str, Any]]:
        offset, total = 0, 1
        while offset < total:
            page = self._json("GET", path, params={"offset": offset, "limit": 500})
            yield from page[key]
            offset, total = offset + len(page[key]), page["total"] if page[key] else 0

    def _json(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._answer(method, path, **given).json()
        return found

    def _answer(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, f"/api/v1{path}", **given)
        except httpx.TransportError as error:
            raise self._silent(error) from None
        if answer.is_error:
            raise _refused(answer)
        return answer

    def _silent(self, error: object) -> ServerError:
        return ServerError(0, f"the server {self.url} does not answer ({error}): is `ftdnas serve` running there?")


def _refused(answer: httpx.Response) -> ServerError:
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered {answer.status_code}"
    return ServerError(answer.status_code, detail)
