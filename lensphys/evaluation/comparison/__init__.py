"""`lensphys compare`: many methods on the same images under the same budget, one table, one report."""

from lensphys.evaluation.comparison.checking import check_comparison
from lensphys.evaluation.comparison.running import compare
from lensphys.evaluation.comparison.settings import Comparison, Entry

__all__ = ["Comparison", "Entry", "check_comparison", "compare"]
