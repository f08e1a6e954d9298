"""ftdnas recipes: what is shipped, and every setting of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from ftdnas.cli.options import Group, json_option, tell
from ftdnas.sets.recipes import load_recipe, recipe_names, recipe_to_toml


@click.group(cls=Group)
def recipes() -> None:
    """The settings of a distillation: one recipe is one TOML file."""


@recipes.command("list")
@json_option
def list_recipes(as_json: bool) -> None:
    """The shipped recipes and what hardware each needs."""
    shipped = [load_recipe(name) for name in recipe_names()]
    told = [{"name": recipe.name, "description": recipe.description, "hardware": recipe.hardware} for recipe in shipped]
    lines = [f"{recipe.name}\n  {recipe.description}\n  needs {recipe.hardware}" for recipe in shipped]
    tell(as_json, told, lines)


@recipes.command()
@click.argument("recipe", metavar="NAME|FILE")
@click.option("--override", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting.")
@json_option
def show(recipe: str, settings: Sequence[str], as_json: bool) -> None:
    """Every setting of a recipe, as TOML: the start of one's own."""
    loaded = load_recipe(recipe, settings)
    tell(as_json, asdict(loaded), recipe_to_toml(loaded).splitlines())
