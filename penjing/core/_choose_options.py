"""The options of the step that tries methods on the data."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from penjing.core._recipe_part import Count, Part, Positive


class ChooseOptions(Part):
    """Methods tried on the data before one is taken: what `steps.prune`, `steps.trim` and `steps.recover` leave "auto".

    `on` auto tries where `steps.prune.criterion` is open. It takes at most `seconds`, or that `share` of the recovery's
    predicted time. As many as `candidates` cuts are made with `examples` for calibration and reconstruction; of the
    entrants of each rung as many as `keep` says go on to train for that share (`rungs`) of the recovery's steps.
    """

    on: bool | Literal["auto"] = "auto"
    seconds: Positive | None = None
    share: Annotated[float, Field(gt=0, le=100)] = 0.5
    candidates: Annotated[int, Field(ge=1, le=100)] = 12
    examples: Annotated[int, Field(ge=16)] = 256
    rungs: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.02, 0.06)
    keep: tuple[Count, ...] = (5, 2)
    losses: bool = True

    @model_validator(mode="after")
    def _one_keep_each(self) -> Self:
        if len(self.rungs) != len(self.keep):
            raise ValueError(
                f"rungs and keep go together, one number each for every rung: {len(self.rungs)} and {len(self.keep)}"
            )
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rungs are shares of the recovery that grow, such as [0.02, 0.06]")
        if list(self.keep) != sorted(self.keep, reverse=True):
            raise ValueError("keep says how many go on to each rung, ever fewer, such as [5, 2]")
        return self
