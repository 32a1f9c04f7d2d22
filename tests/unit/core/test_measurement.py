import dataclasses

import pytest

from penjing.core import Measurement, UsageError, compare

LATENCY = Measurement(
    metric="latency",
    value=12.5,
    unit="ms",
    repeats=50,
    spread=0.25,
    device="cpu",
    runtime="eager",
    dtype="float32",
    threads=1,
    batch_size=32,
)


def test_json_round_trip_is_exact() -> None:
    odd = dataclasses.replace(LATENCY, value=0.1 + 0.2)
    assert Measurement.from_json(odd.to_json()) == odd
    assert Measurement.from_dict(odd.to_dict()) == odd


def test_unknown_or_missing_fields_are_refused() -> None:
    record = LATENCY.to_dict()
    record["colour"] = record.pop("threads")
    with pytest.raises(UsageError, match="colour, threads"):
        Measurement.from_dict(record)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "cuda:0"),
        ("runtime", "onnx"),
        ("dtype", "bfloat16"),
        ("threads", 2),
        ("batch_size", 1),
        ("unit", "s"),
        ("metric", "memory"),
    ],
)
def test_two_environments_do_not_compare(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        compare(LATENCY, dataclasses.replace(LATENCY, **{field: value}))


def test_compare_is_a_over_b() -> None:
    assert compare(LATENCY, dataclasses.replace(LATENCY, value=5.0, spread=1.0, repeats=7)) == 2.5
    with pytest.raises(UsageError, match="0 ms"):
        compare(LATENCY, dataclasses.replace(LATENCY, value=0.0))


def test_a_measurement_is_no_bare_number() -> None:
    with pytest.raises(TypeError):
        float(LATENCY)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        assert LATENCY < LATENCY  # type: ignore[operator]
    assert str(LATENCY) == "latency 12.5 ± 0.25 ms"


@pytest.mark.parametrize(
    ("field", "value"),
    [("value", float("nan")), ("value", -1.0), ("spread", -0.1), ("repeats", 0), ("threads", 0)],
)
def test_impossible_figures_are_refused(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        dataclasses.replace(LATENCY, **{field: value})
