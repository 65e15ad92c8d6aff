"""The figures of embed.py from its JSON file, as tables in Markdown for docs/performance.md.

    python scripts/bench/embed_summary.py embed.json

- Whole: seconds from the start of the process to its end; the median over the rounds.
- Steady: the difference in rows of the large and the small size over that in seconds, so that
  whatever does not depend on the number of rows drops out; the seconds of the small size are the
  median of its runs.
- A ratio is Ember's speed over the other's in the same round: the median, and in brackets the
  lowest and the highest; from four rounds on, 95% of Student's t over the logarithms.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

__all__ = ["Interval", "Summary", "interval", "markdown", "summaries"]

_FEW = 4


@dataclass(frozen=True)
class Interval:
    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}–{self.high:.2f})"


@dataclass(frozen=True)
class Summary:
    """What one contestant came to in one case. None: too noisy to say, or not run.

    whole_ratio, steady_ratio: Ember's speed over this one's; above 1 Ember is faster.
    of_limit: steady over `limit`.
    """

    seconds: float
    rate: float
    steady: float | None
    of_limit: float | None
    startup: float | None
    worker_mib: float
    whole_ratio: Interval | None
    steady_ratio: Interval | None
    agreement: float | None


def interval(ratios: Sequence[float]) -> Interval | None:
    """The median, with the range of fewer than four ratios, else the interval of their mean log."""
    if not ratios:
        return None
    if len(ratios) < _FEW:
        return Interval(median(ratios), min(ratios), max(ratios))
    from scipy.stats import t

    logs = [math.log(ratio) for ratio in ratios]
    half = t.ppf(0.975, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    center = fmean(logs)
    return Interval(median(ratios), math.exp(center - half), math.exp(center + half))


def whole(case: dict[str, Any], contestant: str) -> dict[int, float]:
    """Seconds of the large size by round."""
    return {run["round"]: run["seconds"] for run in _runs(case, contestant, case["rows"])}


def steady(case: dict[str, Any], contestant: str) -> dict[int, float]:
    """Rows a second between the small and the large size by round, where there is a difference."""
    small = [run["seconds"] for run in _runs(case, contestant, case["small_rows"])]
    if not small or case["rows"] == case["small_rows"]:
        return {}
    rows, base = case["rows"] - case["small_rows"], median(small)
    seconds = {number: each - base for number, each in whole(case, contestant).items()}
    return {number: rows / each for number, each in seconds.items() if each > 0}


def _runs(case: dict[str, Any], contestant: str, rows: int) -> list[dict[str, Any]]:
    return [run for run in case["runs"] if run["contestant"] == contestant and run["rows"] == rows]


def ratios(own: dict[int, float], other: dict[int, float]) -> list[float]:
    """own / other of each round that has both."""
    return [own[number] / other[number] for number in sorted(own.keys() & other.keys())]


def limit(case: dict[str, Any], contestant: str = "ember") -> float | None:
    """Rows a second that the machine's product of matrices would allow in this precision.

    None where that was not measured.
    """
    settings = dict(each.partition("=")[::2] for each in case["settings"].get(contestant, ()))
    gflops = case["machine"]["gflops"].get(settings.get("model.precision", "float32"))
    return gflops * 1e9 / case["flops_per_row"] if gflops else None


def summaries(case: dict[str, Any]) -> dict[str, Summary]:
    """The figures of each contestant that was run, Ember first."""
    ember_whole, ember_steady = whole(case, "ember"), steady(case, "ember")
    found = {}
    for contestant in case["labels"]:
        seconds, rates = whole(case, contestant), steady(case, contestant)
        if not seconds:
            continue
        middle = median(seconds.values())
        rate = median(rates.values()) if rates else None
        runs = _runs(case, contestant, case["rows"])
        itself = contestant == "ember"
        most = limit(case, contestant)
        found[contestant] = Summary(
            seconds=middle,
            rate=case["rows"] / middle,
            steady=rate,
            of_limit=rate / most if rate and most else None,
            startup=middle - case["rows"] / rate if rate else None,
            worker_mib=median(run["worker_mib"] for run in runs),
            # Fewer seconds are more speed.
            whole_ratio=None if itself else interval(ratios(seconds, ember_whole)),
            steady_ratio=None if itself else interval(ratios(ember_steady, rates)),
            agreement=case["agreement"].get(contestant),
        )
    return found


def disagreeing(case: dict[str, Any]) -> list[str]:
    """The contestants whose answers are not Ember's; its variants may differ from it."""
    return [
        name
        for name, found in case["agreement"].items()
        if found < case["least_agreement"] and name not in case["settings"]
    ]


_HEAD = (
    "whole run, s",
    "rows/s",
    "steady rows/s",
    "of the limit",
    "start-up, s",
    "a worker, MiB",
    "Ember, whole",
    "Ember, steady",
    "answers",
)


def markdown(case: dict[str, Any]) -> str:
    """One case as a heading, a line on how it was measured, a table, and what is missing."""
    about = case["machine"]
    lines = [
        f"### {case['title']}, {case['rows']:,} rows",
        "",
        f"{about['processor']}, {about['cores']} cores ({', '.join(about['instructions'])}); "
        f"rounds: {case['rounds']}; {case['flops_per_row'] / 1e9:.2f} GFLOP a row, "
        f"{about['gflops']['float32']:.0f} GFLOP/s in float32: at most {limit(case):.1f} rows/s.",
        "",
        f"| | {' | '.join(_HEAD)} |",
        "|---" * (len(_HEAD) + 1) + "|",
    ]
    lines += [_line(case["labels"][name], each) for name, each in summaries(case).items()]
    for name, seconds in case["first"].items():
        lines += ["", f"The first run of {case['labels'][name]} took {seconds:.1f} s more."]
    for name, why in case["missing"].items():
        lines += ["", f"{case['labels'][name]}: {why}."]
    for name in disagreeing(case):
        lines += ["", f"{case['labels'][name]} does not compute the same: its answers differ."]
    return "\n".join(lines)


def _line(label: str, each: Summary) -> str:
    cells = [
        f"{each.seconds:.1f}",
        f"{each.rate:.1f}",
        _number(each.steady, "{:.1f}"),
        _number(each.of_limit, "{:.0%}"),
        _number(each.startup, "{:.1f}"),
        f"{each.worker_mib:,.0f}",
        str(each.whole_ratio or ""),
        str(each.steady_ratio or ""),
        _number(each.agreement, "{:.5f}"),
    ]
    return f"| {label} | {' | '.join(cells)} |"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text("utf-8"))["cases"]
    print("\n\n".join(markdown(case) for case in cases.values()))


if __name__ == "__main__":
    main()
