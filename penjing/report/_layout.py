"""Tables that fit the width they are drawn in."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

EDGE, GAP = 4, 3  # what the border costs in all, and every further column
LEAST = 15  # characters of a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacked:
    """Named rows of figures: one table where all columns fit, else several, each with the names.

    The first column names the rows; names are cut on the left to a quarter of the width. `words` are the columns of
    words, which stand on the left.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()

    def plain(self) -> str:
        """The table in plain text of any width, for files and pipes."""
        lines = (self.headings, *self.rows)
        left = [index == 0 or heading in self.words for index, heading in enumerate(self.headings)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        columns = tuple(zip(widths, left, strict=True))
        text = ["  ".join(map(_aligned, line, columns)).rstrip() for line in lines]
        return "\n".join((self.title, text[0], "-" * max(map(len, text)), *text[1:]))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title)
        width = options.max_width
        rest = [_widest(self.headings, self.rows, index) for index in range(1, len(self.headings))]
        names = min(_widest(self.headings, self.rows, 0), max(LEAST, width // 4))
        for columns in _shelves(rest, width - EDGE - names):
            table = Table(Column(self.headings[0], no_wrap=True))
            for index in columns:
                heading = self.headings[index]
                justify = "left" if heading in self.words else "right"
                table.add_column(heading, justify=justify, overflow="fold")
            for row in self.rows:
                table.add_row(Text(from_right(row[0], names)), *(Text(row[index]) for index in columns))
            yield table


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Many named rows: columns of least `use` are left out until the rest fits; names are cut on the left.

    The first column names the rows. `right` are the columns of numbers; `use` are the columns that may go,
    the first to go first.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    use: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = {h: _widest(self.headings, self.rows, i) for i, h in enumerate(self.headings)}
        first, *others = self.headings
        wanted = min(widths[first], LEAST)
        for gone in self.use:
            if EDGE + wanted + sum(widths[heading] + GAP for heading in others) <= options.max_width:
                break
            others.remove(gone)
        room = options.max_width - EDGE - sum(widths[heading] + GAP for heading in others)
        names = max(LEAST, min(widths[first], room))
        table = Table(Column(first, no_wrap=True), title=self.title, title_justify="left")
        for heading in others:
            table.add_column(heading, justify="right" if heading in self.right else "left", no_wrap=True)
        kept = [self.headings.index(heading) for heading in others]
        for row in self.rows:
            table.add_row(Text(from_right(row[0], names)), *(Text(row[index]) for index in kept))
        yield table


def from_right(text: str, length: int) -> str:
    """The end of `text`, at most `length` characters.

    >>> from_right("blocks.3.conv", 8)
    '….3.conv'
    """
    return text if len(text) <= length else "…" + text[len(text) - length + 1 :]


def _aligned(cell: str, column: tuple[int, bool]) -> str:
    width, left = column
    return cell.ljust(width) if left else cell.rjust(width)


def _widest(headings: Sequence[str], rows: Sequence[Sequence[str]], index: int) -> int:
    return max(map(cell_len, (headings[index], *(row[index] for row in rows))))


def _shelves(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns 1, 2, ... dealt in order onto as few shelves of `room` characters as hold them."""
    shelves: list[list[int]] = [[]]
    used = 0
    for index, width in enumerate(widths, start=1):
        if shelves[-1] and used + width + GAP > room:
            shelves.append([])
            used = 0
        shelves[-1].append(index)
        used += width + GAP
    return shelves
