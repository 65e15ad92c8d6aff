"""Kill runs at every call of the file system, and resume them; see tests/staging_world.py.

    .venv/bin/python scripts/bench/kills.py --seed 0 --rounds 3

Each round kills a run at each of its calls, and the run that resumes it at a random one, in both
modes that replace a table, with and without an exchange of folders in one step. What is published
after each must be one run's whole table. Prints how many kills that were.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))


def main() -> None:
    from staging_world import kills_at_every_call

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    kills = 0
    for _ in range(given.rounds):
        for mode in ("overwrite", "resume"):
            for exchanges in (True, False):
                with tempfile.TemporaryDirectory() as world:
                    kills += kills_at_every_call(
                        Path(world), mode, again=lambda: chance.randint(1, 60), exchanges=exchanges
                    )
    print(f"{kills} kills, and every table was one run's, whole")


if __name__ == "__main__":
    main()
