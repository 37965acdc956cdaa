"""Which images a command is asked for."""

import pytest

from lensphys.basics.checks import LensphysError
from lensphys.cli.rows import rows_of


@pytest.mark.parametrize(
    ("text", "rows"),
    [("3", [3]), ("2:5", [2, 3, 4]), (":2", [0, 1]), ("8:", [8, 9]), (":", list(range(10))), ("7, 0:2,7", [0, 1, 7])],
)
def test_rows(text, rows):
    assert rows_of(text, 10).tolist() == rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10", "--rows 10: there are 10 images, 0 to 9"),
        ("5:11", "there are 10 images"),
        ("5:5", "there are 10 images"),
        ("a", "'a' is neither a number nor a range, such as 5 or 100:200"),
        ("-1", "'-1' is neither a number nor a range"),
        ("", "'' is neither a number nor a range"),
    ],
)
def test_rows_that_are_not_there(text, words):
    with pytest.raises(LensphysError, match=words):
        rows_of(text, 10)
