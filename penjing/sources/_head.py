"""Which module of a network is its final classifier."""

from collections.abc import Iterator

from torch import nn

from penjing.core import SourceError

LINEARS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LazyLinear)
AUXILIARY = ("aux", "auxlogits", "aux1", "aux2", "head_dist", "heads_dist", "aux_classifier")


def find_head(model: nn.Module) -> str:
    """The module path of the final classifier: a Linear, a Conv2d where pooling comes after it, or a Conv1d over time.

    timm networks say it in their configuration, and transformers' say which child is the body. Elsewhere it is the
    last of them in the order in which the modules were registered, auxiliary classifiers left out. Raises
    SourceError when there is none.
    """
    named = [path for path in _configured(model) if isinstance(_at(model, path), LINEARS)]
    named = named or _after_body(model)[-1:]
    if named:
        return named[0]
    found = [
        path for path, module in model.named_modules() if isinstance(module, LINEARS) and not _auxiliary(path)
    ]
    if not found:
        raise SourceError(
            f"{type(model).__name__} has no classifier: no Linear and no convolution in it. "
            "Fix: choose a classification network, or give the head's module path where it is asked"
        )
    return found[-1]


def head_paths(model: nn.Module) -> tuple[str, ...]:
    """Every classifier of `model`: the final one first, then auxiliary and distillation heads."""
    main = find_head(model)
    others = [
        path for path in (*_configured(model), *_aux_heads(model)) if isinstance(_at(model, path), LINEARS)
    ]
    return tuple(dict.fromkeys((main, *others)))


def replace_heads(model: nn.Module, num_classes: int) -> None:
    """Put freshly initialised classifiers for `num_classes` in place of all heads of `model`."""
    for path in head_paths(model):
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, _fresh(model.get_submodule(path), num_classes))


def _fresh(old: nn.Module, num_classes: int) -> nn.Module:
    bias = getattr(old, "bias", None) is not None
    weight = next(old.parameters())
    if isinstance(old, nn.Conv1d | nn.Conv2d):
        new: nn.Module = type(old)(old.in_channels, num_classes, old.kernel_size[0], bias=bias)  # pyright: ignore[reportArgumentType]
    else:
        new = nn.Linear(weight.shape[1], num_classes, bias=bias)
    return new.to(device=weight.device, dtype=weight.dtype)


def _configured(model: nn.Module) -> tuple[str, ...]:
    """Classifier paths of a timm configuration, a string or a tuple of strings there."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    paths = config.get("classifier") if isinstance(config, dict) else None
    return (paths,) if isinstance(paths, str) else tuple(paths or ())


def _after_body(model: nn.Module) -> list[str]:
    """Linear layers, else convolutions of one dimension, outside the child that `base_model_prefix` names."""
    prefix = getattr(model, "base_model_prefix", None)
    if not isinstance(prefix, str) or not isinstance(getattr(model, prefix or " ", None), nn.Module):
        return []
    outside = [(path, module) for path, module in model.named_modules() if path.partition(".")[0] != prefix]
    kinds = (nn.Linear, nn.LazyLinear), (nn.Conv1d,)
    found = [[path for path, module in outside if isinstance(module, kind)] for kind in kinds]
    return found[0] or found[1]


def _aux_heads(model: nn.Module) -> Iterator[str]:
    """In each auxiliary branch the last Linear or Conv2d."""
    for name, branch in model.named_children():
        if name.lower() in AUXILIARY and branch is not None:
            inner = [path for path, module in branch.named_modules() if isinstance(module, LINEARS)]
            if inner:
                yield f"{name}.{inner[-1]}" if inner[-1] else name


def _at(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _auxiliary(path: str) -> bool:
    return path.partition(".")[0].lower() in AUXILIARY
