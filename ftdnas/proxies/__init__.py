"""Cheap numbers that stand for accuracy; `find_proxy` gives one by its name."""

from ftdnas.proxies.base import Proxy, Rows, ScoreColumn, Workbench
from ftdnas.proxies.names import DEFAULT, PROXIES, find_proxy, known_proxy

__all__ = ["DEFAULT", "PROXIES", "Proxy", "Rows", "ScoreColumn", "Workbench", "find_proxy", "known_proxy"]
