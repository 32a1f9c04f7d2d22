"""The options of the steps that prove, disturb and explain."""

from typing import Annotated

from pydantic import Field

from penjing.core._recipe_part import CountOrNone, Part

Points = Annotated[float, Field(gt=0, lt=100)]


class CertifyOptions(Part):
    """The certificate on the file that is handed over; it is asked for by `margin`.

    `alpha` is the risk of a wrong one. No class, and no quarter of the examples by length, loudness or brightness,
    may be shown to have lost more than `part_margin` points. Metrics other than accuracy take `resamples`.
    """

    alpha: Annotated[float, Field(gt=0.001, lt=0.5)] = 0.05
    part_margin: Points = 5.0
    resamples: Annotated[int, Field(ge=1000, le=10**6)] = 10_000


class StabilityOptions(Part):
    """How reference and file that is handed over bear disturbances of as many `examples` (0: none is tried), and
    `data`, other examples of the same classes (null: none).
    """

    examples: CountOrNone = 300
    data: str | None = None


class ExplainOptions(Part):
    """What both networks look at is compared on `examples`; of the answers that changed `shown` are shown."""

    examples: CountOrNone = 200
    shown: CountOrNone = 24
