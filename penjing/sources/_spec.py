"""The words that name a network."""

import os
from dataclasses import dataclass
from typing import Literal, get_args

from penjing.core import SourceError, clean, cut, nearest

Kind = Literal["timm", "torchvision", "hf", "builtin", "file", "folder", "hub"]
NAMED = ("timm", "torchvision", "hf", "builtin")
FORMS = (
    "timm:NAME, torchvision:NAME, hf:FOLDER or hf:OWNER/NAME, builtin:NAME, hub:OWNER/REPO:NAME, "
    "file:PATH.py:FACTORY, or a folder that penjing saved"
)

EXAMPLES = {
    "timm": ("resnet18", "mobilenetv3_small_100", "tf_efficientnet_lite0", "convnext_tiny"),
    "torchvision": ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "inception_v3"),
    "hf": ("./my-folder", "distilbert/distilbert-base-uncased", "bert"),
    "builtin": ("minilm", "speaker-lstm"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """A parsed source: `name` is a registry's name, a path or a repository; `factory` a callable in it."""

    kind: Kind
    name: str
    factory: str | None = None

    @property
    def runs_code(self) -> bool:
        """True where loading runs foreign code: never from a recipe or an artifact."""
        return self.kind in ("file", "hub")

    def __str__(self) -> str:
        if self.kind == "folder":
            return self.name
        return ":".join(part for part in (self.kind, self.name, self.factory) if part)


def parse_source(spec: str) -> SourceSpec:
    """Parse timm:NAME, torchvision:NAME, hf:NAME, builtin:NAME, hub:OWNER/REPO:NAME, file:PATH.py:FACTORY or a folder.

    Raises SourceError for anything else. Nothing is imported or opened, and names are not looked up yet.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind in NAMED and rest:
        return SourceSpec(kind=kind, name=rest)
    if colon and kind in ("file", "hub"):
        name, _, factory = rest.rpartition(":")
        if name and factory and (kind == "hub" or name.endswith(".py")):
            return SourceSpec(kind=kind, name=name, factory=factory)
        form = "file:PATH.py:FACTORY" if kind == "file" else "hub:OWNER/REPO:NAME"
        raise SourceError(f"Source {spec!r} is not of the form {form}. Fix: write {form}")
    if spec and os.path.isdir(spec):
        return SourceSpec(kind="folder", name=spec)
    raise SourceError(
        f"Source {cut(spec)!r} is {_why(kind, colon, rest)}. Known forms: {FORMS}{_hint(kind, colon, spec)}"
    )


def _why(kind: str, colon: str, rest: str) -> str:
    if not colon:
        return "neither a folder that exists nor KIND:NAME"
    return f"of an unknown kind {kind!r}" if rest else "without a name"


def _hint(kind: str, colon: str, spec: str) -> str:
    name = cut(clean(spec))
    if not colon:
        if not name.strip():
            return ""
        if os.sep in name or "/" in name:
            return f". Did you mean hf:{name}?"
        own = nearest(name, EXAMPLES["builtin"], cutoff=0.8)
        return (
            f". Did you mean builtin:{own[0]}?"
            if own
            else f". Did you mean timm:{name} or torchvision:{name}?"
        )
    examples = EXAMPLES.get(kind.lower())
    if examples and kind.lower() + colon == spec.lower():
        return ". For example: " + ", ".join(f"{kind.lower()}:{name}" for name in examples)
    near = nearest(kind, get_args(Kind))
    return f". Did you mean {near[0]}:?" if near else ""
