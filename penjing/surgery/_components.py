"""Twins of ours that stand in for modules whose code fixes a size; one registry, keyed by kind."""

from collections.abc import Callable

from torch import nn

from penjing.core import PlanError
from penjing.core._edits import ReplaceComponent
from penjing.structure import ATTENTION, free_attention, is_stock_attention

REPLACEMENTS: dict[str, tuple[Callable[[nn.Module], bool], Callable[[nn.Module], None]]] = {
    ATTENTION: (is_stock_attention, free_attention),
}


def replace_component(module: nn.Module, edit: ReplaceComponent) -> None:
    """Change the module in place. Raises `PlanError` for an unknown kind or a module the kind does not fit."""
    if edit.kind not in REPLACEMENTS:
        raise PlanError(f"the plan asks for component {edit.kind!r}; known: {', '.join(REPLACEMENTS)}")
    fits, change = REPLACEMENTS[edit.kind]
    if not fits(module):
        raise PlanError(
            f"{edit.module!r} is a {type(module).__name__}, for which {edit.kind!r} cannot stand in"
        )
    change(module)
