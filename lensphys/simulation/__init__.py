"""Data sets made from recipes: dark-matter populations, the lenstronomy engine, the writer."""

from lensphys.simulation.recipe import Recipe, recipe_names
from lensphys.simulation.writer import simulate

__all__ = ["Recipe", "recipe_names", "simulate"]
