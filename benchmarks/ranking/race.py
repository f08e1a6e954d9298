"""The race that promotes, on 300 of each half: a few real epochs for some, chosen by cheaper rankings.

    python benchmarks/ranking/race.py OUT [--time 12] [--settings "random500 teacher" ...]

Writes OUT/race.csv: for every way to promote, the regret of the best ten of the end ranking (12 real epochs, by the
table, with the parameters), where the whole costs a tenth of 12 real epochs of all, with intervals over architectures.
`--time` measures what those cost here (so many architectures, some steps each) and keeps it in OUT/cost.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from study import Half, Scores, half

from ftdnas.proxies.rank_sum import mean_ranks
from search_spaces.base import parse_architecture

Floats = NDArray[np.float64]
END = "table: 12 epochs + params"
IMAGES = 12 * 50_000  # that 12 epochs see
RESAMPLES = 2000
KEPT, TENTH, THIRD = 10, 1 / 10, 1 / 3
AZ_NAS_S = 0.3  # of one core, a candidate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--time", type=int, default=0)
    parser.add_argument("--settings", nargs="*", default=["random500 teacher"])
    asked = parser.parse_args()
    if asked.time:
        timed(half(asked.out, "reporting"), asked.out / "cost.json", asked.time)
    real_s = json.loads((asked.out / "cost.json").read_text())["seconds"]
    lines: list[dict[str, object]] = []
    for which in ("calibration", "reporting"):
        on = half(asked.out, which)
        settings = [title for title in asked.settings if title in on.trained]
        lines += [{"sample": which, **told(*way, on)} for way in ways_of(on, settings, real_s)]
        lines.append({"sample": which, **at_random(on)})
    table = pd.DataFrame(lines)
    table.to_csv(asked.out / "race.csv", index=False)
    print(table.to_string())


def timed(on: Half, path: Path, count: int) -> None:
    """Mean seconds of one core of 12 real epochs of a whole network, from some steps of stratified ones."""
    torch.set_num_threads(1)
    images, labels = torch.randn(64, 3, 32, 32), torch.arange(64) % 10
    found = []
    for name in on.names[:: math.ceil(len(on.names) / count)]:
        network = parse_architecture(name).build((3, 32, 32), 10).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)
        steps = []
        for _ in range(3):
            begun = time.perf_counter()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps.append(time.perf_counter() - begun)
        found.append(min(steps) / len(images) * IMAGES)
    path.write_text(json.dumps({"seconds": statistics.fmean(found), "timed": found}, indent=1) + "\n")


Way = Callable[[NDArray[np.intp]], NDArray[np.intp]]  # those drawn, in any order -> those promoted


def ways_of(on: Half, settings: Sequence[str], real_s: float) -> list[tuple[str, Way]]:
    """(name, what it promotes): so many that their real epochs and the cheap rankings cost a tenth together."""
    free = on.free

    def best(column: Scores, cheap_s: float, first: Scores | None = None) -> Way:
        values = np.array(column)

        def promoted(drawn: NDArray[np.intp]) -> NDArray[np.intp]:
            count, left = int((TENTH - cheap_s / real_s) * len(drawn)), drawn
            if first is not None:
                order = np.argsort(-np.array(first)[drawn], kind="stable")
                left = drawn[order[: math.ceil(THIRD * len(drawn))]]
            return left[np.argsort(-values[left], kind="stable")[:count]]

        return promoted

    trained_nothing = {"params": 0.0, "az_nas": AZ_NAS_S, "az_nas + params": AZ_NAS_S}
    found = [(name, best(free[name], seconds)) for name, seconds in trained_nothing.items()]
    for title in settings:
        late = on.trained[title]["late loss"]
        seconds = float(np.mean([row["seconds"] for row in on.rows[title]]))
        sums = {"": [], " + az_nas": [free["az_nas"]], " + az_nas + params": [free["az_nas"], free["params"]]}
        for name, others in sums.items():
            summed = mean_ranks([late, *others])
            found.append((f"{title}: late loss{name}", best(summed, seconds + AZ_NAS_S * bool(others))))
            way = best(summed, seconds * THIRD + AZ_NAS_S, free["az_nas"])
            found.append((f"az_nas, then {title}: late loss{name}", way))
    return found


def told(name: str, way: Way, on: Half) -> dict[str, object]:
    everyone = np.arange(len(on.names))
    regrets = [regret(on, way(drawn), drawn) for drawn in resampled(len(everyone))]
    promoted = way(everyone)
    return line(name, len(promoted), regret(on, promoted, everyone), regrets)


def at_random(on: Half) -> dict[str, object]:
    """Early stopping at the same total cost: 12 real epochs for a tenth, drawn at random, and all their ten best."""
    draw = np.random.default_rng(1)
    everyone = np.arange(len(on.names))
    count = int(TENTH * len(everyone))
    regrets = [regret(on, draw.permutation(everyone)[:count], everyone) for _ in range(RESAMPLES)]
    return line("a random tenth", count, float(np.mean(regrets)), regrets)


def regret(on: Half, promoted: NDArray[np.intp], drawn: NDArray[np.intp]) -> float:
    """In points: the best drawn against the best of the ten that lead among those promoted."""
    truth = np.array(on.truth)
    early = rankdata(np.array(on.free["table: 12 epochs"])[promoted]) + rankdata(np.array(on.free["params"])[promoted])
    leading = promoted[np.argsort(-early, kind="stable")[:KEPT]]
    return float(100 * (truth[drawn].max() - truth[leading].max()))


def resampled(count: int) -> list[NDArray[np.intp]]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, count, count) for _ in range(RESAMPLES)]


def line(name: str, promoted: int, value: float, regrets: Sequence[float]) -> dict[str, object]:
    low, high = np.quantile(regrets, [0.025, 0.975])
    numbers = {"regret@10": value, "mean of resamples": np.mean(regrets), "low": low, "high": high}
    return {
        "promoted by": name,
        "promoted": promoted,
        **{key: round(float(number), 3) for key, number in numbers.items()},
    }


if __name__ == "__main__":
    main()
