"""Many lenses at once: a list of files, parts that are kept, a row a lens, one catalogue and a page to look at."""

from lensphys.catalogue.inputs import Entry, listed
from lensphys.catalogue.work import Task, Work
from lensphys.catalogue.writer import Survey, super_resolve_all
from lensphys.data.images import Reading

__all__ = ["Entry", "Reading", "Survey", "Task", "Work", "listed", "super_resolve_all"]
