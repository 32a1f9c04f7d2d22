"""Cut and prove; what cannot be proven is frozen, and the rest planned again."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from penjing.core import PlanError, TraceError, VerificationError
from penjing.core._groups import PruneGroup
from penjing.core._plan import Plan, Skipped
from penjing.search._choose import Choice
from penjing.search._select import Selection
from penjing.structure import Structure, collect_young
from penjing.surgery import Cut, Verification, check, cut, plan_removal


def prove(
    model: nn.Module,
    example_inputs: Any,
    structure: Structure,
    groups: Sequence[PruneGroup],
    choose: Callable[[Sequence[PruneGroup]], Choice],
) -> tuple[nn.Module, Plan]:
    """Cut and verify; culprits are frozen and the rest planned again, each group at most once.

    Groups with tied counts can only be cut together: they stand trial, and are frozen, together.
    """
    allowed, skipped = list(groups), []
    while allowed:
        choice = choose(allowed)
        if not choice.selection and skipped:
            break
        if not choice.selection:
            raise VerificationError(
                "at this ratio no group loses a unit: raise the ratio or lower min_kept and round_to"
                + "".join(f"; {note}" for note in choice.policies[:5])
            )
        trial = _Trial(model, structure, example_inputs, choice)
        made, outcome = trial.run(choice.selection, skipped=tuple(skipped))
        if made is not None and outcome.passed:
            return made.slim, _noted(made.plan, outcome)
        if not skipped:
            trial.refuse_unprovable()
        culprits = trial.culprits(outcome.cause)
        skipped.extend(
            Skipped(group=name, cause=cause + _hint(structure.group(name), choice))
            for name, cause in culprits.items()
        )
        allowed = [g for g in allowed if g.name not in culprits]
    raise VerificationError(
        "no group could be removed and proven: " + "; ".join(f"{s.group}: {s.cause}" for s in skipped[:5])
    )


def _hint(group: PruneGroup, choice: Choice) -> str:
    """`torch.einsum` and other code take another way round a dim of size 1."""
    lonely = len(group) - len(choice.selection.get(group.name, ())) == 1
    told = ". Code may do something else where a single unit stays: protect the part, or in Python give min_kept=2"
    return told if lonely else ""


def _noted(plan: Plan, proof: Verification) -> Plan:
    """The plan, saying loudly where the proof is a weaker one."""
    if not proof.note:
        return plan
    warnings.warn(proof.note, stacklevel=5)
    return replace(plan, policies=(*plan.policies, proof.note))


@dataclass(frozen=True, slots=True)
class _Trial:
    """Cuts of one network, proven or not."""

    model: nn.Module
    structure: Structure
    example_inputs: Any
    choice: Choice

    def run(
        self, selection: Selection, *, skipped: tuple[Skipped, ...] = (), exact: bool = True
    ) -> tuple[Cut | None, Verification]:
        structure, example = self.structure, self.example_inputs
        try:
            plan = plan_removal(structure, selection, skipped=skipped, policies=self.choice.policies)
            made = cut(self.model, structure, plan, example)
            proof = check(
                self.model, made.slim, structure, made.plan, example, retraced=made.traces, exact=exact
            )
            if not proof.passed:
                collect_young()
            return made, proof
        except (PlanError, TraceError) as error:
            return None, Verification(passed=False, max_error=float("nan"), checked=(), cause=str(error))

    def refuse_unprovable(self) -> None:
        """A network that does not equal its own replay cannot be proven whatever is cut: say so at once."""
        _, outcome = self.run({})
        if not outcome.passed:
            raise VerificationError(
                f"this network cannot be proven even uncut: {outcome.cause}. Does its forward draw random numbers "
                "in eval mode, or leave float64? Make it deterministic for example_inputs"
            )

    def culprits(self, together: str) -> dict[str, str]:
        """Groups that fail by themselves, with their causes, found by halving: a cheap re-trace first, the exact proof
        last. Where none does, the first bears the cause of all `together`.
        """
        parts = self._parts()
        for exact in (False, True):
            found = self._halve(parts, exact)
            if found:
                return found
        return dict.fromkeys(parts[0], together)

    def _parts(self) -> list[list[str]]:
        """The selected groups; those with tied counts together."""
        part_of: dict[str, list[str]] = {}
        for names in self.structure.couplings.together():
            chosen = [n for n in names if n in self.choice.selection]
            part_of.update(dict.fromkeys(chosen, chosen))
        parts = [part_of.get(name, [name]) for name in self.choice.selection]
        return [part for part, name in zip(parts, self.choice.selection, strict=True) if part[0] == name]

    def _halve(self, parts: list[list[str]], exact: bool) -> dict[str, str]:
        selection = {name: self.choice.selection[name] for part in parts for name in part}
        if not selection:
            return {}
        outcome = self.run(selection, exact=exact)[1]
        if outcome.passed:
            return {}
        if len(parts) == 1:
            return dict.fromkeys(parts[0], outcome.cause)
        middle = len(parts) // 2
        return self._halve(parts[:middle], exact) | self._halve(parts[middle:], exact)
