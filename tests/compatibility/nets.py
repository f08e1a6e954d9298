"""A search space of a user's, an Optuna function. Every byte of this file counts in the keys of its rows in home/."""

from __future__ import annotations

import optuna
from torch import nn


def build(trial: optuna.Trial) -> nn.Module:
    """One hidden layer of so many units, (N, 1, 8, 8) -> (N, 10)."""
    units = trial.suggest_int("units", 4, 16)
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[trial.suggest_categorical("activation", ["relu", "tanh"])]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, units), activation(), nn.Linear(units, 10))
