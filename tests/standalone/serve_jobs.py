"""A driver that runs one job after another in one session, as it is told by lines of JSON.

["start", {settings of Spark}] starts a session in place of the last one; ["embed", [arguments]]
runs a job. To each its output has a line: the application's id, or the exit code.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from pyspark.sql import SparkSession


def main() -> None:
    session = None
    told = sys.stdout
    sys.stdout = sys.stderr  # what jobs say is for the log
    for line in sys.stdin:
        asked, given = json.loads(line)
        if asked == "start":
            if session:
                session.stop()
            session = SparkSession.builder.config(map=given).getOrCreate()
            answer = session.sparkContext.applicationId
        else:
            answer = import_module(f"ember.jobs.{asked}").main(given)
        print(answer, file=told, flush=True)


main()
