"""HDFS and YARN of Hadoop's own mini clusters on this machine, and a way in without Hadoop."""

from __future__ import annotations

import io
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.processes import CONF, PATIENCE, start, stop, wait_for

HERE = Path(__file__).parent
# As cluster/conf has it: half the CPU time for Java's compiler.
JAVA = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]


@dataclass(frozen=True)
class Hadoop:
    """Running clusters. folder: with their configuration; jars: their class path."""

    folder: Path
    jars: str
    archive: str

    @property
    def conf(self) -> str:
        return str(self.folder / "conf")

    def setting(self, key: str) -> str:
        for each in ElementTree.parse(self.folder / "conf" / "core-site.xml").iter("property"):
            if each.findtext("name") == key:
                return each.findtext("value") or ""
        raise KeyError(key)

    # --- YARN ---------------------------------------------------------------------------------

    def begin(self, log: Path, *given: str, **more: str) -> subprocess.Popen[bytes]:
        """Run what conf/submit/yarn.sh is given, on the jars of pip's pyspark."""
        small = {
            "spark.yarn.jars": f"local:{spark_home()}/jars/*",
            "spark.driver.memory": "1g",
            "spark.driver.memoryOverhead": "1g",
            "spark.executor.extraJavaOptions": " ".join(JAVA),
        }
        conf = [word for key, value in small.items() for word in ("--conf", f"{key}={value}")]
        here = {"HADOOP_CONF_DIR": self.conf, "SPARK_CONF_DIR": CONF, "ARCHIVE": self.archive}
        here |= {"EXECUTORS": "2", "EXECUTOR_CORES": "1", "EXECUTOR_MEMORY": "1g"}
        here |= {"EXECUTOR_OVERHEAD": "1g", "FILES": ""}
        return start(["conf/submit/yarn.sh", *conf, *given], log, **{**here, **more})

    def submit(self, log: Path, *given: str, **more: str) -> tuple[int, str]:
        """The same to its end: the exit code, and what spark-submit and the containers said."""
        process = self.begin(log, *given, **more)
        try:
            code = process.wait(3 * PATIENCE)  # a node has to unpack the environment first
        finally:
            stop(process)
        return code, self.said(log)

    def said(self, log: Path) -> str:
        """What a run printed, here and in its containers, without Spark's lines of what is well."""
        files = [log, *sorted(self.folder.glob("target/**/container_*/std*"))]
        texts = [file.read_text("utf-8", "replace") for file in files]
        lines = "\n".join(texts).splitlines()
        return "\n".join(line for line in lines if " INFO " not in line or " INFO [" in line)

    def kill(self, application: str) -> None:
        """`yarn application -kill`, by the class that this command starts."""
        command = "org.apache.hadoop.yarn.client.cli.ApplicationCLI"
        words = [command, "application", "-kill", application]
        subprocess.run(
            ["java", *JAVA, "-cp", f"{self.conf}:{self.jars}", *words],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )

    # --- HDFS, by its REST interface -------------------------------------------------------------

    def put(self, path: str, data: bytes) -> None:
        where = json.loads(self._ask("PUT", path, "CREATE&overwrite=true&noredirect=true"))
        request = urllib.request.Request(where["Location"], data=data, method="PUT")
        request.add_header("Content-Type", "application/octet-stream")
        urllib.request.urlopen(request, timeout=60).close()

    def get(self, path: str) -> bytes:
        """A file; raises FileNotFoundError."""
        return self._ask("GET", path, "OPEN")

    def files(self, folder: str) -> list[str]:
        """The paths of all files below a folder; none where it is not there."""
        try:
            told = json.loads(self._ask("GET", folder, "LISTSTATUS"))
        except FileNotFoundError:
            return []
        found: list[str] = []
        for each in told["FileStatuses"]["FileStatus"]:
            path = f"{folder.rstrip('/')}/{each['pathSuffix']}"
            found += self.files(path) if each["type"] == "DIRECTORY" else [path]
        return found

    def manifest(self, table: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.get(f"{table}/_manifest.json"))
        return loaded

    def rows(self, table: str) -> list[dict[str, Any]]:
        files = [each for each in self.files(table) if "/part-" in each]
        tables = [pq.read_table(pa.BufferReader(self.get(each))) for each in files]
        return [row for each in tables for row in each.to_pylist()]

    def write(self, path: str, **columns: Any) -> str:
        stream = io.BytesIO()
        pq.write_table(pa.table(columns), stream)
        self.put(path, stream.getvalue())
        return f"hdfs://{path}"

    def _ask(self, method: str, path: str, operation: str) -> bytes:
        address = self.setting("dfs.namenode.http-address")
        url = f"http://{address}/webhdfs/v1{quote(path)}?user.name={getuser()}&op={operation}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, method=method), timeout=60
            ) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(path) from None
            raise


def spark_home() -> Path:
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise RuntimeError("pyspark is not installed")
    return Path(spec.origin).parent


@contextmanager
def running(folder: Path, jars: list[str], archive: str) -> Iterator[Hadoop]:
    """Clusters, new and empty but for the archive, which YARN unpacks once on each node."""
    path = ":".join([*jars, f"{spark_home()}/jars/*"])
    command = ["java", "-Xmx1g", *JAVA, f"-Dlog4j2.configurationFile={HERE}/log4j2.properties"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-cp", path, str(HERE / "MiniClusters.java"), str(folder)],
            cwd=folder,  # where the node managers have their folders
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "ready" in (folder / "log").read_text("utf-8", "replace"), process)
        hadoop = Hadoop(folder, path, "")
        hadoop.put("/apps/ember.tar.gz", Path(archive).read_bytes())
        yield Hadoop(folder, path, "hdfs:///apps/ember.tar.gz")
    finally:
        stop(process)
        if process.stdin:
            process.stdin.close()
