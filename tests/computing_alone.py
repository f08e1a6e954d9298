"""A script, run by test_without_extras.py: from images to scores and truths, without the shells' libraries."""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any

from distill.recipe import TrainingRecipe
from ftdnas.candidates.screening import Screening
from ftdnas.candidates.truth import RealTrainings, train
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.names import find_proxy
from ftdnas.sets.images import Source
from ftdnas.sets.making import distil
from ftdnas.sets.recipes import load_recipe, override
from ftdnas.sets.request import DistilRequest

BACKBONE = "convnet:width=32,depth=1,norm=instance,activation=relu,pooling=avg"
CANDIDATES = [BACKBONE.replace("relu", activation) for activation in ("relu", "sigmoid", "leakyrelu")]
TINY = [
    *(f"backbone={BACKBONE}", "experts.num_experts=1", "matching.outer_steps=1", "matching.syn_steps=1"),
    *("matching.expert_epochs=1", "matching.max_start_epoch=1", "evaluation.validation.epochs=1"),
]
PROXIES = ["set.late_loss+params", "random.late_loss", "az_nas", "early.accuracy", "real:1.accuracy", "race"]
PROXIES += ["promote(params,set.late_loss,real:1.accuracy)"]


def main() -> None:
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        raise SystemExit(f"{name} can be imported")
    recipe = override(load_recipe("quick"), TINY)
    made = distil(DistilRequest(dataset="digits", recipe=recipe, name="tiny", threads=1, compiled=False)).synthetic
    data = Source("digits", validation=recipe.data.validation).load()
    truth = TrainingRecipe(epochs=1, lr=0.05)
    bench = Workbench(
        data=data,
        screening=Screening(steps=2),
        seed=0,
        synthetic=made,
        set_name="tiny",
        truth=truth,
        truth_seeds=(0,),
        calibration=8,
        rungs=(0.05, 0.2),
    )
    for name in PROXIES:
        proxy, rows = find_proxy(name, bench), dict[str, Any]()
        while works := proxy.todo(CANDIDATES, rows):
            rows |= {work.key: work(bench.shelf) for work in works}
        scores = proxy.column(CANDIDATES, rows)
        assert any(score is not None and math.isfinite(score) for score in scores), name
    train(data, CANDIDATES, RealTrainings.of(data, truth, 1), jobs=1, device="cpu")
    print("computed")


if __name__ == "__main__":
    main()
