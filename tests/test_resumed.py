"""Experiments that were killed go on where they were."""

import json

from resumed import KeptRows


def test_a_row_that_a_kill_cut_short_is_made_again(tmp_path):
    out = tmp_path / "a.json"
    rows = KeptRows(out)
    rows["a"], rows["b"] = 1.0, 2.0
    kept = tmp_path / "a.rows.jsonl"
    kept.write_text(kept.read_text()[:-4])
    again = KeptRows(out)
    assert again == {"a": 1.0}
    again["b"] = 3.0
    assert KeptRows(out) == {"a": 1.0, "b": 3.0}
    again.finish({"rows": again})
    assert json.loads(out.read_text())["rows"] == {"a": 1.0, "b": 3.0} and not kept.exists()
