"""Which values of a checkpoint went where: nothing of the body may be missing, left over or of another size."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from penjing.core import SourceError

BEYOND = ("pooler", "masked_spec_embed")  # parts of a body that a checkpoint may lack or have in excess
SHOWN = 8


def accounted(
    model: Any, info: Mapping[str, Any], *, head: str, fresh_head: bool, where: str
) -> tuple[str, ...]:
    """What is new and what is unused, in words, of the loading that `info` tells of.

    `head` is the path of the last layer, "" where `model` has no head. Raises SourceError that names the keys where the
    body does not have its values, or the head has none and is not to be drawn anew (`fresh_head`).
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    wrong = {
        key: f"{key}: {tuple(a)} in the file, {tuple(b)} in the network"
        for key, a, b in info["mismatched_keys"]
    }
    after = _after_body(model, missing, head)
    new = [key for key in missing if key.startswith(after)]
    lost = [key for key in missing if key not in new and not _beyond(key)]
    left = [key for key in unexpected if _in_body(model, key) and not _beyond(key)]
    resized = [wrong[key] for key in sorted(wrong) if not (fresh_head and key.startswith(after))]
    problems = (("missing in the file", lost), ("unexpected in the file", left), ("wrong shape", resized))
    if any(keys for _, keys in problems) or info["error_msgs"]:
        raise SourceError(_misfit(where, problems, info["error_msgs"]))
    if new and not fresh_head:
        raise headless(where, new)
    drawn = [key for key in missing if key not in lost] + sorted(wrong)
    return tuple(_named(word, keys) for word, keys in (("new", drawn), ("not used", unexpected)) if keys)


def headless(where: str, head: Sequence[str]) -> SourceError:
    return SourceError(
        f"{where} has no values for the head: {', '.join(head[:SHOWN])}. Fix: give the number of classes for a "
        "new head (num_classes=N), or start without weights"
    )


def _body(model: Any) -> nn.Module:
    """The child that `base_model_prefix` names; where it names none, the network itself."""
    inner = getattr(model, model.base_model_prefix or " ", None)
    return inner if isinstance(inner, nn.Module) else model


def _after_body(model: Any, missing: Sequence[str], head: str) -> tuple[str, ...]:
    """Prefixes of what belongs to the head: the last layer, and children beside the body.

    A network that names no body has its head in the children of which the checkpoint has nothing, unless it has nothing
    of any.
    """
    if not head:
        return ()
    children = [name for name, child in model.named_children() if child.state_dict()]
    if _body(model) is not model:
        beside = [name for name in children if name != model.base_model_prefix]
    else:
        lacking = set(missing)
        beside = [
            n for n in children if all(f"{n}.{key}" in lacking for key in getattr(model, n).state_dict())
        ]
        beside = [] if len(beside) == len(children) else beside
    return (f"{head}.", *(f"{name}." for name in beside))


def _in_body(model: Any, key: str) -> bool:
    body, prefix = _body(model), f"{model.base_model_prefix}."
    parts = {name for name, _ in (*body.named_children(), *body.named_parameters(recurse=False))}
    inside = key.startswith(prefix) and body is not model
    return inside or key.removeprefix(prefix).partition(".")[0] in parts


def _beyond(key: str) -> bool:
    return any(part in key.split(".") for part in BEYOND)


def _named(word: str, keys: list[str]) -> str:
    modules = list(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))
    more = f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else ""
    return f"{word}: {', '.join(modules[:SHOWN])}{more}"


def _misfit(where: str, problems: Any, messages: list[str]) -> str:
    lines = [f"Weights of {where} do not fit the network."]
    for title, keys in problems:
        if keys:
            more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            lines.append(f"  {title} ({len(keys)}): {', '.join(keys[:SHOWN])}{more}")
    lines += [f"  {message}" for message in messages[:SHOWN]]
    lines.append(
        "Fix: choose the configuration these weights were made for; where only the head differs, give num_classes"
    )
    return "\n".join(lines)
