"""The ceiling on failed rows: one rule and one message for all jobs."""

from __future__ import annotations

import pytest

from ember.errors import TooManyFailures
from ember.spark.failed_rows import refuse_failures


def test_as_many_failures_as_the_ceiling_allows_are_no_reason_to_keep_rows():
    def keep() -> str:
        raise AssertionError("nothing is to be kept")

    refuse_failures(2, 200, 0.01, "rows failed", keep)
    refuse_failures(0, 0, 0, "rows failed", keep)


def test_more_failures_say_how_many_of_what_and_where_they_are():
    with pytest.raises(TooManyFailures) as told:
        refuse_failures(3, 200, 0.01, "rows failed (3 null)", lambda: "out.failures")
    assert str(told.value) == (
        "3 of 200 rows failed (3 null), more than limits.max_failed_fraction = 0.01; nothing was "
        "published. Look at out.failures; then mend the input or raise the limit"
    )


def test_a_library_call_publishes_nothing_and_has_no_section_of_limits():
    with pytest.raises(TooManyFailures) as told:
        refuse_failures(1, 1, 0.5, "rows failed", otherwise=" and look at them")
    assert str(told.value) == (
        "1 of 1 rows failed, more than max_failed_fraction = 0.5; mend the input or raise the "
        "limit and look at them"
    )
