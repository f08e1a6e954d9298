"""A service under load while a search runs: status requests, event streams, memory.

    python benchmarks/service_load.py [--clients 200] [--streams 50] [--seconds 60]

Starts `ftdnas serve` on digits in a temporary home, submits a long search, and lets that many clients ask for the job
every two seconds while that many streams listen. Prints errors, quantiles of the status requests, and the server's
memory before and after. The clients are a process of their own on the same cores. Targets: no error, p99 below 250 ms,
memory flat.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ftdnas.service.client import Client

PERIOD_S = 2.0
START_S = 180.0  # until the search is on its way
ANSWER_S = 10.0  # later than that is no answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen(
            [sys.executable, "-u", "-m", "ftdnas", "serve", "--port=0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "FTDNAS_HOME": home},
        )
        try:
            assert server.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", server.stdout.readline())
            assert found
            port = int(found.group(1))
            with Client(f"http://127.0.0.1:{port}") as client:
                until(client, client.submit("distill", method="random", ipc=10, name="ten")["id"], over)
                # Small networks, trained long: the first is done soon, the search lasts.
                request: dict[str, Any] = {
                    "set": "ten",
                    "candidates": 200,
                    "max_params": 40_000,
                    "epochs": 600,
                    "study": "long",
                }
                job = client.submit("search", **request)["id"]
                until(client, job, lambda told: told["progress"].get("stage") == "screening")
                # What is imported and cached by the first requests is no leak.
                asyncio.run(load(port, job, options.clients, options.streams, 10.0))
                before = resident_mb(server.pid)
                asked, errors, heard = asyncio.run(load(port, job, options.clients, options.streams, options.seconds))
                after = resident_mb(server.pid)
                state = client.job(job)
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    if not asked:
        print(f"no status request was answered; {errors} errors")
        return 1
    p50, p99 = np.quantile(asked, [0.5, 0.99]) * 1000
    print(
        f"{len(asked):,} status requests, {errors} errors; p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {max(asked):.2f} s"
    )
    print(f"{options.streams} streams heard {heard:,} events; the search was {state['state']}: {state['progress']}")
    print(f"memory of the server {before:.0f} MB, after {options.seconds:.0f} s {after:.0f} MB")
    good = errors == 0 and p99 < 250 and after < 1.05 * before and state["state"] == "running"
    print("within the targets" if good else "NOT within the targets")
    return 0 if good else 1


def over(job: dict[str, Any]) -> bool:
    return job["state"] in ("succeeded", "failed", "cancelled")


def until(client: Client, job: str, there: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until a job is there; stop the benchmark where it ends before, or takes too long."""
    end = time.monotonic() + START_S
    while not there(told := client.job(job)):
        if over(told) or time.monotonic() > end:
            raise SystemExit(f"the job does not get there: {told}")
        time.sleep(0.5)


async def load(port: int, job: str, clients: int, streams: int, seconds: float) -> tuple[list[float], int, int]:
    """(seconds of every status request, errors, events heard)."""
    asked: list[float] = []
    counted = {"errors": 0, "events": 0}
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        await asyncio.sleep(PERIOD_S * number / clients)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            begun = time.monotonic()
            writer.write(f"GET /api/v1/jobs/{job} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_S)
            length = re.search(rb"content-length: (\d+)", head)
            assert length
            await asyncio.wait_for(reader.readexactly(int(length.group(1))), ANSWER_S)
            asked.append(time.monotonic() - begun)
            counted["errors"] += b" 200 " not in head.splitlines()[0]
            await asyncio.sleep(max(0.0, PERIOD_S - asked[-1]))
        writer.close()

    async def stream() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /api/v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        while (left := end - time.monotonic()) > 0:
            try:
                line = await asyncio.wait_for(reader.readline(), left)
            except TimeoutError:
                break
            counted["errors"] += not line
            counted["events"] += line.startswith(b"data:")
            if not line:
                break
        writer.close()

    outcomes = await asyncio.gather(
        *(client(number) for number in range(clients)), *(stream() for _ in range(streams)), return_exceptions=True
    )
    failed = [one for one in outcomes if one is not None]
    return asked, counted["errors"] + len(failed), counted["events"]


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found.group(1)) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
