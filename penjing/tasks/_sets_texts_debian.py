"""Debian's package descriptions, as texts of sections."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from penjing.core import DataError
from penjing.packages import fetched
from penjing.tasks._examples import Example, Examples, ordered_labels

_FEW = 400  # sections with fewer texts are left out


def debian_sections() -> Examples:
    """40,718 descriptions of software packages of 25 classes: the section of the archive each is filed under.

    Debian 12.15, main, amd64 and independent of machines: Packages.xz and Translation-en.xz (by the packages'
    maintainers, each under its package's licence). A text is the whole English description, summary first. Of a source
    package's texts one per section is taken, since a compiler's hundreds of parts are described alike; sections with
    fewer than 400 of them (33 of 58) are left out. Texts of one source package form a group. Traps: some sections say
    what a package is (libs, doc, libdevel), others what it is for (games, science), so that they overlap; descriptions
    often name the language or say "documentation"; uneven (perl 4,161, graphics and 32 others fewer than 400); 212
    copies, 29 descriptions under two sections.
    """
    described = {
        entry.get("Description-md5", ""): entry.get("Description-en", "")
        for entry in _entries(fetched("debian-descriptions") / "Translation-en")
    }
    taken: dict[tuple[str, str], tuple[str, str]] = {}
    for entry in _entries(fetched("debian-packages") / "Packages"):
        text = described.get(entry.get("Description-md5", ""), "").strip()
        source = entry.get("Source", entry.get("Package", "")).partition(" ")[0]
        if text:
            taken.setdefault((source, entry.get("Section", "misc")), (text, entry.get("Package", "")))
    counts = Counter(section for _, section in taken)
    examples = tuple(
        Example(
            content=_flowing(text), label=section, name=f"builtin:debian-sections[{package}]", group=source
        )
        for (source, section), (text, package) in taken.items()
        if counts[section] >= _FEW
    )
    return Examples(
        name="debian-sections",
        source="builtin:debian-sections",
        licence="each package's own (the descriptions are by its maintainers)",
        examples=examples,
        labels=ordered_labels(str(example.label) for example in examples),
        augmentation="none",
        tasks=("text-classification",),
        remarks=("one description per source package and section is taken",),
    )


def _flowing(text: str) -> str:
    """A description with lines joined into paragraphs (Debian policy 5.6.13: "." alone parts them)."""
    lines = ("\n" if line.strip() == "." else line.strip() for line in text.split("\n"))
    return " ".join(lines).replace(" \n ", "\n").strip()


def _entries(path: Path) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file (deb822(5)), each a mapping of its fields."""
    entry: dict[str, str] = {}
    field = ""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line == "\n":
                    yield entry
                    entry = {}
                elif line[0] == " ":
                    entry[field] += "\n" + line[1:].rstrip("\n")
                else:
                    field, _, value = line.partition(":")
                    entry[field] = value.strip()
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Fix: remove its folder and fetch the package again"
        ) from error
    if entry:
        yield entry
