"""Kill `ftdnas distill` with SIGKILL at random moments, run it again each time, and compare with an undisturbed run.

    python benchmarks/kill_and_resume.py [--kills 10] [--seed 0] [distill options ...]

Both runs have a library of their own in a temporary folder. The sets must be equal tensors with equal step size. The
moments are uniform over the time that is left of the undisturbed run's, so experts and matching are both hit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "ftdnas", "distill", "--threads", "1"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options, asked = parser.parse_known_args()
    command = [*COMMAND, *(asked or ["--dataset", "digits", "--recipe", "quick"])]
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        undisturbed = finish(command, Path(folder) / "undisturbed")
        length = time.monotonic() - begun
        print(f"undisturbed: {length:.0f} s", flush=True)
        for number in range(1, options.kills + 1):
            # Every start costs some seconds of loading; what is left must in expectation cover the whole run.
            wait = moments.uniform(0, 2 * length / options.kills + 15)
            reached = kill_after(command, Path(folder) / "killed", wait)
            print(f"kill {number:2d} after {wait:5.1f} s: {reached}", flush=True)
        resumed = finish(command, Path(folder) / "killed")
        equal = same(undisturbed, resumed)
    print("equal, bit for bit" if equal else "NOT equal")
    return 0 if equal else 1


def finish(command: list[str], home: Path) -> Path:
    """The file of the set that the command ends in."""
    done = subprocess.run([*command, "--json"], env=_environment(home), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Path(json.loads(done.stdout)["path"]).rename(home / "set.safetensors")


def kill_after(command: list[str], home: Path, seconds: float) -> str:
    """What the process had said last when it was killed."""
    log = home.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen(command, env=_environment(home), stdout=out, stderr=out, start_new_session=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    lines = log.read_text().splitlines()
    return f"{lines[-1] if lines else 'nothing said yet'}{'' if code == -signal.SIGKILL else ' (had finished)'}"


def same(first: Path, second: Path) -> bool:
    from distill.synthetic import SyntheticSet

    return SyntheticSet.load(first).equal(SyntheticSet.load(second))


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "FTDNAS_HOME": str(home), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main())
