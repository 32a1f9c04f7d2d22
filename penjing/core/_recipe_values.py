"""Values that people write into recipes, checked."""

import difflib

from penjing.core._budget import Budget, Margin
from penjing.core._places import Place

NUMBERS = (
    *("lr", "weight_decay", "warmup", "ema", "bn_momentum", "mixup"),
    *("temperature", "weight", "hidden", "attention", "guide_alpha"),
)
NAMES = ("loss", "optimizer", "schedule", "guide", "hidden_layers")

REGISTERED = ("timm:", "torchvision:", "hf:", "builtin:")


def checked_name(text: str) -> str:
    if not text.strip():
        raise ValueError("data without a name; give a folder, a table or builtin:NAME")
    return text


def checked_budget(text: str) -> str:
    return str(Budget.parse(text))


def checked_margin(points: float) -> float:
    return Margin(points=points).points


def checked_place(text: str) -> str:
    return str(Place.parse(text))


def data_named(value: object) -> object:
    return {"source": value} if isinstance(value, str) else value


def checked_splits(value: object) -> object:
    """Three counts of at least 1, or three fractions within (0, 1) that sum to at most 1."""
    if value is None:
        return value
    parts = list(value) if isinstance(value, list | tuple) else []
    counts = all(type(part) is int and part >= 1 for part in parts)
    shares = all(type(part) is float and 0 < part < 1 for part in parts) and sum(parts) <= 1 + 1e-9
    if len(parts) != 3 or not (counts or shares):
        raise ValueError(
            "three counts such as [2500, 500, 2000], or three fractions that sum to at most 1 such as "
            "[0.6, 0.15, 0.25]: for train, selection and certification"
        )
    return value


def checked_rival(value: object) -> object:
    """`auto`, `none`, or a registered source; YAML's own words for yes and no are those too."""
    if value is None or isinstance(value, bool):
        return "auto" if value else "none"
    if not isinstance(value, str) or not (value in ("auto", "none") or value.startswith(REGISTERED)):
        raise ValueError(f"auto, none, or a source of {', '.join(REGISTERED)} such as timm:resnet10t")
    return value


def checked_space(value: object) -> object:
    """Options of the recover step with [low, high], or for those that are names the names to choose from."""
    if value is None:
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError("options of the recover step with ranges, such as {lr: [0.0001, 0.01]}, or null")
    for name, among in value.items():
        known = (*NUMBERS, *NAMES)
        if name not in known:
            near = difflib.get_close_matches(str(name)[:80], known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{str(name)[:40]!r} cannot be searched; did you mean {near}? Known: {', '.join(known)}"
            )
        parts = list(among) if isinstance(among, list | tuple) else []
        numbers = all(type(part) in (int, float) for part in parts)
        if name in NUMBERS and not (numbers and len(parts) == 2 and parts[0] < parts[1]):
            raise ValueError(f"{name}: [low, high], two numbers of which the second is larger")
        if name in NAMES and not (len(set(map(str, parts))) >= 2 and all(isinstance(p, str) for p in parts)):
            raise ValueError(f"{name}: two and more names, such as [a, b]")
    return value
