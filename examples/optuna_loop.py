"""A loop of your own in Optuna: every trial trains a network on the synthetic set.

First: ftdnas distill --dataset digits --name digits
"""

from __future__ import annotations

import optuna
from torch import nn

import ftdnas


def main(trials: int = 20) -> None:
    synthetic = ftdnas.load_set("digits")

    def objective(trial: optuna.Trial) -> float:
        layers: list[nn.Module] = [nn.Flatten()]
        for depth in range(trial.suggest_int("depth", 1, 3)):
            layers += [nn.LazyLinear(trial.suggest_int(f"width{depth}", 8, 64, log=True)), nn.ReLU()]
        trained = ftdnas.score(lambda: nn.Sequential(*layers, nn.LazyLinear(synthetic.num_classes)), synthetic)
        if trained.late_loss is None:
            raise optuna.TrialPruned(trained.error)
        return trained.late_loss

    study = optuna.create_study(direction="minimize")
    study.optimize(objective, n_trials=trials)
    print(f"least late training loss {study.best_value:.3f} by {study.best_params}")


if __name__ == "__main__":
    main()
