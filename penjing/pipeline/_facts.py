"""What identifies the inputs that a run reads from outside its folder."""

from collections.abc import Iterable
from pathlib import Path

from penjing.pipeline._files import sha256
from penjing.pipeline._job import Inputs
from penjing.sources import parse_source


def facts(inputs: Inputs, steps: Iterable[str]) -> dict[str, str]:
    """Fingerprints and checksums of what `steps` read: the splits, files of weights, code, a saved teacher."""
    recipe, found = inputs.recipe, {}
    if "base" in steps:
        data = inputs.data
        for split in (data.train, data.selection, data.certification):
            found[f"{split.name} examples"] = split.fingerprint
        found |= _files("model", recipe.model, recipe.weights)
    if "teacher" in steps and recipe.teacher:
        found |= _files("teacher", recipe.teacher, recipe.teacher_weights)
    return found


def _files(role: str, source: str, weights: str) -> dict[str, str]:
    parsed = parse_source(source)
    named = (
        {f"weights of the {role} ({weights})": Path(weights)} if weights not in ("none", "pretrained") else {}
    )
    if parsed.kind == "file":
        named[f"code of the {role} ({parsed.name})"] = Path(parsed.name)
    if parsed.kind == "folder":
        for file in sorted(Path(parsed.name).glob("**/structure.json")):
            named[f"{role} ({file})"] = file  # it holds the checksum of the weights beside it
    return {name: sha256(path) if path.is_file() else "missing" for name, path in named.items()}
