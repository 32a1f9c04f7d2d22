"""What a rehearsal says of a teacher's classes."""

from penjing.pipeline._rehearse import _apart


def test_classes_on_either_side_are_named_where_they_differ():
    shared = [f"class {n}" for n in range(9)]
    assert (
        _apart([*shared, "cat"], [*shared, "dog", "emu"])
        == "only the teacher knows cat and only the data has dog, emu"
    )
    assert _apart([*shared, "cat"], shared) == "only the teacher knows cat"
    assert _apart(["a", "b"], ["b", "a"]) == "the same, in another order"
