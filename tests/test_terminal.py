"""Whoever sends the output of a long run to a file sees that it goes on, and when it will be done."""

import io
import re
import time

import pytest
from rich.console import Console
from rich.progress import Task

from lensphys.basics.terminal import progress_bar, progress_line, tracked


def console() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=False, width=40), file


def test_a_line_now_and_then_where_there_is_no_terminal():
    where, file = console()
    for _ in tracked(range(3), "simulating", console=where, every=0.2):
        time.sleep(0.5)
    lines = file.getvalue().splitlines()
    assert lines[0] == "simulating: 0 of 3 (0 %), 0:00:00 so far"  # alive before the first is done
    form = r"simulating: [0-3] of 3 \(\d+ %\), 0:00:0\d so far(, about 0:00:0\d to go)?"
    assert len(lines) >= 4 and all(re.fullmatch(form, line) for line in lines)
    assert "simulating: 2 of 3 (67 %), 0:00:01 so far, about 0:00:0" in file.getvalue()


def test_a_short_run_a_quiet_one_and_a_terminal_have_no_lines():
    where, file = console()
    assert list(tracked(range(100), "short", console=where)) == list(range(100)) and file.getvalue() == ""
    quiet = Console(file=file, quiet=True)
    for _ in tracked(range(2), "quiet", console=quiet, every=0.05):
        time.sleep(0.1)
    assert file.getvalue() == ""
    alive = Console(file=file, force_terminal=True)
    for _ in tracked(range(2), "alive", console=alive, every=0.05):
        time.sleep(0.1)
    assert "so far" not in file.getvalue()


def test_lines_end_when_the_run_fails():
    where, file = console()
    with pytest.raises(ValueError, match="lost"), progress_bar(where, transient=True, every=0.05) as progress:
        progress.add_task("simulating", total=10)
        time.sleep(0.2)
        raise ValueError("lost")
    told = file.getvalue()
    time.sleep(0.2)
    assert "simulating: 0 of 10" in told and file.getvalue() == told


@pytest.mark.parametrize(
    ("done", "total", "first", "told"),
    [
        (30, 100, 20, "x: 30 of 100 (30 %), 0:10:00 so far, about 1:10:00 to go"),  # ten in ten minutes, not thirty
        (0.25, 1.0, 0.0, "x: 25 %, 0:10:00 so far, about 0:30:00 to go"),  # a share, of a training
        (3, None, 0, "x: 3, 0:10:00 so far"),
        (0, 1, 0, "x: 0:10:00 so far"),  # of one image
        (100, 100, 20, "x: 100 of 100, took 0:10:00"),
    ],
)
def test_the_time_to_go_is_by_the_pace_of_this_run(done, total, first, told):
    now = [0.0]
    task = Task(1, "x", total, done, _get_time=lambda: now[0])
    task.start_time, now[0] = 0.0, 600.0
    assert progress_line(task, first) == told
