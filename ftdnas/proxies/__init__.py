"""Cheap numbers that stand for accuracy; `ftdnas.proxies.names.find_proxy` gives one by its name."""
