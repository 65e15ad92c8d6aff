"""The ceiling on rows that fail, which every job has as `limits.max_failed_fraction`."""

from __future__ import annotations

from collections.abc import Callable

from ember.errors import TooManyFailures

__all__ = ["refuse_failures", "too_many"]


def too_many(failed: int, rows: int, max_failed_fraction: float) -> bool:
    """Did more of these rows fail than the ceiling allows?"""
    return failed > max_failed_fraction * rows


def refuse_failures(
    failed: int,
    rows: int,
    max_failed_fraction: float,
    told: str,
    keep: Callable[[], str] | None = None,
    *,
    otherwise: str = "",
) -> None:
    """Raise TooManyFailures when more rows failed than the ceiling allows.

    failed, rows: how many failed, of how many. told: what the message says of them after their
    number, such as "rows failed (2 not an image)". keep: called above the ceiling; keeps the
    failed rows beside the output and says where; None in a library call. otherwise: what a user
    can do in place of mending the input, beside raising the limit.
    """
    if not too_many(failed, rows, max_failed_fraction):
        return
    found = f"{failed} of {rows} {told}, more than"
    ceiling = f"max_failed_fraction = {max_failed_fraction:g}"
    if keep is None:
        raise TooManyFailures(f"{found} {ceiling}; mend the input or raise the limit{otherwise}")
    raise TooManyFailures(
        f"{found} limits.{ceiling}; nothing was published. Look at {keep()}; then mend the input "
        f"or raise the limit{otherwise}"
    )
