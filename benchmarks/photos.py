"""One's own photos the whole way: 1,000 of 224 pixels, distilled at 64, checked twice, one finalist finished at 224.

    python benchmarks/photos.py [--photos 1000] [--home FOLDER]

The photos are crops of scikit-learn's two photographs and drawn patterns, in four classes: enough to walk the way with
files of the size and kind that people have, not to learn anything about ranking. It prints each command, its last lines
and what it took. What is reduced so that two cores manage: the recipe (given below), ConvNets of width 32, two epochs
of real training in the checks. Given again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "conftest.py"
RECIPE = [
    "--recipe=photos",
    "--ipc=5",
    "--override=backbone=convnet:width=32,depth=3",
    "--override=experts.num_experts=2",
    "--override=matching.outer_steps=30",
    "--override=matching.syn_steps=5",
    "--override=matching.max_start_epoch=3",
    "--override=matching.expert_epochs=1",
    "--override=matching.batch_size=20",
    "--override=matching.lr_images_grid=[10, 100]",
    "--override=matching.grid_steps=3",
    "--override=matching.validate_every=15",
    "--override=evaluation.validation.epochs=20",
    "--override=evaluation.train.epochs=50",
]
SCREEN = ["--space=convnet", "--where=width=32", "--candidates=24", "--real-epochs=2", "--jobs=2", "--compare=params"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--home", type=Path, help="kept, so that it can go on (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary)).resolve()
        photos = home / "photos"
        if not photos.is_dir():
            unfinished = home / "photos.partial"
            runpy.run_path(str(TESTS))["write_photos"](unfinished, options.photos)
            unfinished.rename(photos)
        data = f"--dataset=folder:{photos}"
        for command in (
            ["distill", data, "--image-size=64", *RECIPE, "--name=photos"],
            ["evaluate", "photos", "--against=random,full", "--seeds=2"],
            ["check", "--set=photos", "--epochs=30", *SCREEN, "--study=by-set"],
            ["check", data, "--image-size=64", "--recipe=photos", "--proxy=race", *SCREEN, "--study=by-race"],
            ["finish", "by-set", "--top=1", "--epochs=2", "--image-size=224"],
        ):
            run(command, home)
    return 0


def run(command: list[str], home: Path) -> None:
    print("$ ftdnas", shlex.join(command), flush=True)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ftdnas", *command],
        env={**os.environ, "FTDNAS_HOME": str(home / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    print("\n".join((done.stdout if done.returncode == 0 else done.stderr).splitlines()[-12:]))
    print(f"took {time.monotonic() - begun:.0f} s\n", flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    raise SystemExit(main())
