"""Does it tell dark matter apart? Readers of images and of fits, trained and judged by an honest protocol."""

from lensphys.downstream.applying import apply_reader
from lensphys.downstream.judging import judge_reader, summary_line
from lensphys.downstream.running import downstream
from lensphys.downstream.settings import Downstream, check_downstream

__all__ = [
    "Downstream",
    "apply_reader",
    "check_downstream",
    "downstream",
    "judge_reader",
    "summary_line",
]
