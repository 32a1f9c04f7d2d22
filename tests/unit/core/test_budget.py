from dataclasses import dataclass

import pytest

from penjing.core import Budget, Limit, Margin, UsageError


@dataclass(frozen=True)
class Reading:
    text: str
    metric: str
    absolute: float
    reference: float | None = None


@pytest.mark.parametrize(
    "case",
    [
        Reading("latency<=0.5x", "latency", 6.0, reference=12.0),
        Reading("latency<=12ms", "latency", 12.0),
        Reading("latency<=0.2s", "latency", 200.0),
        Reading("macs<=300M", "macs", 300e6),
        Reading("macs<=1.8G", "macs", 1.8e9),
        Reading("params<=1500k", "params", 1.5e6),
        Reading("params<=2000000", "params", 2e6),
        Reading("size<=5MB", "size", 5e6),
        Reading("memory<=0.3KB", "memory", 300.0),
        Reading("macs <= 1e3 M", "macs", 1e9),
        Reading("macs<=1x", "macs", 7.0, reference=7.0),
    ],
    ids=lambda case: case.text,
)
def test_limits_read_in_base_units(case: Reading) -> None:
    budget = Budget.parse(case.text)
    assert [limit.metric for limit in budget.limits] == [case.metric]
    assert budget.limits[0].absolute(case.reference) == case.absolute
    assert Budget.parse(str(budget)) == budget


def test_comma_means_and() -> None:
    budget = Budget.parse("latency<=12ms,params<=0.5x")
    assert str(budget) == "latency<=12ms,params<=0.5x"
    latency = budget.limit("latency")
    assert latency is not None
    assert not latency.relative
    assert budget.limit("macs") is None


@dataclass(frozen=True)
class Refusal:
    text: str
    says: str
    under: str  # what the carets mark


@pytest.mark.parametrize(
    "case",
    [
        Refusal("latncy<=0.5x", "did you mean 'latency'", "latncy"),
        Refusal("params<=2M, flops<=1M", "Known: latency, macs, params, size, memory", "flops"),
        Refusal("macs<=300m", "did you mean 'M'", "m"),
        Refusal("size<=5mb", "did you mean 'MB'", "mb"),
        Refusal("latency<=5MB", "'MB' is no unit of latency", "MB"),
        Refusal("params<=5ms", "'ms' is no unit of params", "ms"),
        Refusal("latency<=5", "latency needs a unit: it takes x, ms, s", "5"),
        Refusal("macs<=0M", "must be positive", "0"),
        Refusal("macs<=-3M", "must be positive", "-3"),
        Refusal("macs<=1e999M", "finite", "1e999"),
        Refusal("latency<=1.5x", r"lies in \(0, 1\], got 1.5x", "1.5"),
        Refusal("latency<0.5x", "'<=' must follow latency", "<"),
        Refusal("params<=2M,macs<=M", "a number must follow", "M"),
        Refusal("macs<=3M 4", "does not belong here", "4"),
        Refusal("params<=2M,params<=1M", "limited twice", "params<=1M"),
        Refusal("params<=2M,", "starts with a metric", ""),
        Refusal("", "starts with a metric", ""),
    ],
    ids=lambda case: case.text,
)
def test_refusals_show_the_text_and_the_place(case: Refusal) -> None:
    with pytest.raises(UsageError, match=case.says) as caught:
        Budget.parse(case.text)
    lines = str(caught.value).splitlines()
    carets = next(number for number, line in enumerate(lines) if line.strip(" ^") == "" and "^" in line)
    assert lines[carets - 1] == "  " + case.text
    marked = lines[carets - 1][lines[carets].index("^") : lines[carets].rindex("^") + 1]
    assert marked == case.under


def test_limits_hold_their_invariants_without_parsing() -> None:
    with pytest.raises(UsageError, match="unknown metric"):
        Limit(metric="speed", number=1, unit="x")
    with pytest.raises(UsageError, match="at least one limit"):
        Budget(limits=())
    limit = Limit(metric="macs", number=1, unit="M")
    with pytest.raises(UsageError, match="limited twice"):
        Budget(limits=(limit, limit))


@pytest.mark.parametrize("reference", [None, 0.0, -1.0, float("nan")])
def test_relative_limits_need_a_positive_reference(reference: float | None) -> None:
    with pytest.raises(UsageError, match="relative to a reference"):
        Limit(metric="macs", number=0.5, unit="x").absolute(reference)


def test_margin_is_in_points() -> None:
    assert Margin.parse("1.0").fraction == 0.01
    assert str(Margin.parse("0.5")) == "0.5"


@pytest.mark.parametrize("text", ["1%", "", "-1", "100", "nan", "one"])
def test_margin_refuses_what_is_not_points(text: str) -> None:
    with pytest.raises(UsageError, match="points"):
        Margin.parse(text)


@pytest.mark.parametrize(
    "text", ["macs<=٠.٥x", "macs<=０.５x", "macs≤0.5x", "macs<0.5x", "macs==0.5x", "macs=<0.5x"]
)
def test_only_ascii_digits_and_the_one_sign(text: str):
    with pytest.raises(UsageError, match="cannot read the budget"):
        Budget.parse(text)
