"""Prune every network of zoo.txt to half its units, prove it, and write the table zoo.md.

Run with `make zoo` or `python -m benchmarks.zoo`. One process per network, so that one failure spoils nothing.
Finished networks are kept in zoo.json and skipped the next time; see `--help` for running some of them again.
"""

import argparse
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.forked import run_all
from benchmarks.zoo_table import DONE, table
from benchmarks.zoo_worker import measure_one

HERE = Path(__file__).parent
STORE = HERE / "zoo.json"


def listed() -> list[str]:
    """Every `prefix:name` of zoo.txt, in order."""
    lines = (HERE / "zoo.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def wanted(spec: str, options: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> bool:
    if options.library and spec.partition(":")[0] != options.library:
        return False
    if options.only:
        return fnmatch(spec, options.only) or fnmatch(spec.partition(":")[2], options.only)
    if options.failed:
        return spec in rows and rows[spec]["status"] not in DONE
    return options.fresh or spec not in rows


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time (default 2)")
    parser.add_argument("--fresh", action="store_true", help="run again what is finished")
    parser.add_argument("--failed", action="store_true", help="run again what was not verified")
    parser.add_argument(
        "--only", metavar="PATTERN", help="run what matches, such as 'timm:*vit*', finished or not"
    )
    parser.add_argument("--library", metavar="PREFIX", help="run this library only")
    return parser.parse_args()


def main() -> int:
    options = read_options()
    rows = json.loads(STORE.read_text()) if STORE.exists() else {}
    todo = [spec for spec in listed() if wanted(spec, options, rows)]
    for spec, row in run_all(todo, measure_one, options.jobs):
        rows[spec] = row
        print(f"{spec}: {row['status']}", flush=True)
        STORE.write_text(json.dumps(rows, indent=1))
    rows = {spec: rows[spec] for spec in listed() if spec in rows}
    (HERE / "zoo.md").write_text(table(rows))
    return int(any(row["status"] not in DONE for row in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
