"""Mistakes in a recipe, told with where they were made and the way out."""

import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from penjing.core._words import clean, cut, shown

_NEEDED = {
    "model": "--model or `model`",
    "data": "--data or data.source",
    "data.source": "--data or data.source",
    "budget": "--budget or `budget`",
}


def complaints(found: Iterable[tuple[str, str, str]], where: str, given: Collection[str]) -> str:
    """The mistakes, each (key, what to say after an option, what to say in a file), under the place they were made in:
    the command line's options, and `where`.
    """
    options: list[str] = []
    written: list[str] = []
    for key, what, explained in found:
        names = (key, key.rpartition(".")[0])  # also.0 is --also
        option = next((name for name in names if name in given), None)
        if option is not None:
            options.append(f"  --{_option(option)}: {what}")
        else:
            written.append(f"  {explained}")
    parts = [f"{clean(place)} cannot be used:" for place in (("the command line",) if options else ())]
    parts += [*options, *([f"{clean(where)} cannot be used:"] if written else []), *written]
    return "\n".join(parts)


def mistakes(error: ValidationError, recipe: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """What `complaints` takes, of values that are no `recipe`."""
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        yield ".".join(path), _what(item), _explain(item, path, recipe)


def _option(key: str) -> str:
    name = "data" if key == "data.source" else key.removeprefix("data.")
    return name.replace("_", "-")


def _explain(item: Any, path: list[str], recipe: type[BaseModel]) -> str:
    key = clean(".".join(path))
    if item["type"] == "missing" or (key in _NEEDED and item["input"] is None):
        return f"{key}: missing" + (f"; give {_NEEDED[key]}" if key in _NEEDED else "")
    if item["type"] != "extra_forbidden":
        return f"{cut(key)}: {_what(item)}"
    known = _known(path[:-1], recipe)
    near = difflib.get_close_matches(path[-1][:80], known, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}."
    return f"{cut(key)}: unknown key; {hint}"


def _what(item: Any) -> str:
    return f"{item['msg'].removeprefix('Value error, ')} (found {shown(item['input'])})"


def _known(path: list[str], recipe: type[BaseModel]) -> list[str]:
    model: Any = recipe
    for part in path:
        annotation = model.model_fields[part].annotation
        model = next(kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields"))
    return list(model.model_fields)
