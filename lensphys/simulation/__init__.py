"""Data sets made from recipes: lenses are drawn, rendered and written, on one machine or on many."""

from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe, recipe_names
from lensphys.simulation.writer import simulate, write

__all__ = ["Plan", "Recipe", "recipe_names", "simulate", "write"]
