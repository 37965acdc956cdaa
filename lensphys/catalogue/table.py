"""The catalogue as tables: ECSV, which people read, and Parquet, which is read fast."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import MaskedColumn, Table

from lensphys.basics.extras import need
from lensphys.basics.outputs import whole_file
from lensphys.catalogue.rows import COLUMNS, Column, Row

_EMPTY = {str: "", int: 0, float: np.nan}
_ARROW = {str: "string", int: "int64", float: "float64"}


def table_of(rows: Sequence[Row], origin: Mapping[str, Any]) -> Table:
    """Return the rows as a table; what a row does not say is masked."""
    table = Table([_column(column, rows) for column in COLUMNS])
    table.meta.update({name: json.dumps(x, default=str) if isinstance(x, dict) else x for name, x in origin.items()})
    return table


def _column(column: Column, rows: Sequence[Row]) -> MaskedColumn:
    values = [row.get(column.name) for row in rows]
    mask = [value is None for value in values]
    plain = [_EMPTY[column.kind] if value is None else value for value in values]
    return MaskedColumn(
        plain, column.name, mask=mask, dtype=column.kind, unit=column.unit or None, description=column.description
    )


def write_ecsv(path: Path, rows: Sequence[Row], origin: Mapping[str, Any]) -> None:
    """Write the rows as ECSV, whole or not at all."""
    with whole_file(path) as temporary:
        table_of(rows, origin).write(temporary, format="ascii.ecsv", overwrite=True)


def write_parquet(path: Path, rows: Sequence[Row], origin: Mapping[str, Any]) -> None:
    """Write the rows as Parquet, whole or not at all.

    Raises:
        MissingExtraError: if pyarrow is not installed.
    """
    need("pyarrow", "a Parquet catalogue")
    import pyarrow
    import pyarrow.parquet

    about = {"lensphys": json.dumps(dict(origin), default=str)}
    kinds = {c.name: getattr(pyarrow, _ARROW[c.kind])() for c in COLUMNS}
    told = {c.name: {"unit": c.unit, "description": c.description} for c in COLUMNS}
    fields = [pyarrow.field(name, kind, metadata=told[name]) for name, kind in kinds.items()]
    table = pyarrow.Table.from_pylist(list(rows), schema=pyarrow.schema(fields, metadata=about))
    with whole_file(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)
