"""SQL over what the sink has written: DuckDB reads the Parquet files as the table `lines`.

python -m examples.logs query "SELECT service, level, count(*) FROM lines GROUP BY ALL ORDER BY ALL"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from examples.logs.parquet import SCHEMA


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """A connection that has the table `lines`: the files in `folder`, as they are now."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    files = [str(path) for path in sorted(folder.glob("lines-*.parquet"))]
    if files:
        connection.read_parquet(files).create_view("lines")  # type: ignore[arg-type]
    else:
        connection.from_arrow(SCHEMA.empty_table()).create("lines")
    return connection


def rows(folder: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with connect(folder) as connection:
        return connection.execute(sql, list(values)).fetchall()


def show(folder: Path, sql: str) -> int:
    """Print the result as a table. Exit code 1 if it is not SQL that DuckDB takes."""
    with connect(folder) as connection:
        try:
            result = connection.sql(sql)
        except duckdb.Error as error:
            print(error)
            return 1
        if result is not None:
            result.show(max_width=160)
    return 0
