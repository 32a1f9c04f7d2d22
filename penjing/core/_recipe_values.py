"""Values that people write into recipes, checked."""

REGISTERED = ("timm:", "torchvision:", "hf:", "builtin:")


def checked_name(text: str) -> str:
    if not text.strip():
        raise ValueError("data without a name; give a folder, a table or builtin:NAME")
    return text


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
