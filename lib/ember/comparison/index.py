"""A corpus kept ready for search: packed once, and brought up to date by the files of its table.

The table is the truth, and the index follows it: rows of files that are new are added, rows of
files that are gone or have changed are taken out. So a run finds what it would find without an
index, and one that is killed leaves the index as it was (ember.comparison.index_folder).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import TimestampType

import ember
from ember.comparison import blocks, index_files, vector_files, vector_store
from ember.comparison.blocks import TableVectors
from ember.comparison.index_files import SOURCE, Index
from ember.comparison.index_folder import IndexFolder, Kept
from ember.errors import EmberError, InvalidConfig, InvalidInput
from ember.redaction import redact, redact_all
from ember.settings.comparison import SearchConfig
from ember.settings.tables import EmbeddingsConfig
from ember.spark import catalog, origins, places
from ember.spark.checkpoints import counted
from ember.spark.paths import literal
from ember.spark.staged_files import name_of
from ember.spark.storage import Storage
from ember.worker.vectors.basis import fit_basis

__all__ = ["KeptIndex"]

# The one source of rows of which the files are not known.
_WHOLE = "table"
# Of rows, to those that the basis was fitted to. With another basis the answer is the same, and
# found sooner where it suits the rows.
_GROWN = 4
# Of blocks, to as many as there were for so many rows; and how many more there may be.
_PIECES, _SPARE = 2, 64


@dataclass(frozen=True)
class _Plan:
    """What there is to do. whole: why everything is made anew; None where it is not.

    new, gone: files of the table; one that has changed is both.
    """

    whole: str | None
    new: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()

    @property
    def nothing(self) -> bool:
        return self.whole is None and not self.new and not self.gone

    @property
    def words(self) -> str:
        if self.whole is not None:
            return f"made, because {self.whole}"
        if self.nothing:
            return "as it was"
        changed = len(self.new & self.gone)
        new, gone = len(self.new) - changed, len(self.gone) - changed
        return f"brought up to date (files: {new} new, {changed} changed, {gone} gone)"


class KeptIndex:
    """The index at `path` of a corpus, as `tables.read_embeddings` gives it.

    settings: what decides which rows it has and how they are compared, as JSON values.

    Raises InvalidInput for a path at which there is something else, and for rows of which Spark
    tells neither files nor a version.
    """

    def __init__(
        self, spark: SparkSession, path: str, corpus: DataFrame, settings: Mapping[str, Any]
    ) -> None:
        self._spark, self._folder = spark, IndexFolder(spark, path)
        self._metric: str = settings["metric"]
        self._corpus, self._files = corpus, origins.ByFile.of(corpus, SOURCE)
        self._stamps: Mapping[str, Any] = self._files.stamps if self._files else _version(corpus)
        zone = None  # in which instants are read, and in which Arrow has those of ids
        if settings["corpus"]["where"] or isinstance(corpus.schema["id"].dataType, TimestampType):
            zone = spark.conf.get("spark.sql.session.timeZone")
        made_of = {
            **settings,
            "schema": corpus.schema.jsonValue(),
            "time_zone": zone,
            "ember": ember.__version__,
        }
        self._made_of = redact_all(json.loads(json.dumps(made_of)))
        self._plan = self._planned()

    @classmethod
    def of(
        cls, spark: SparkSession, config: SearchConfig, corpus: DataFrame | None
    ) -> KeptIndex | None:
        """The index that a search is configured with, if it is with any.

        Raises InvalidConfig for a search that no index serves.
        """
        if config.index.path is None:
            return None
        if corpus is None or config.corpus is None:
            raise InvalidConfig(
                "index.path keeps a corpus, and there is none: name the table in corpus as well"
            )
        _check(spark, config, config.corpus)
        given = config.corpus.model_dump(mode="json", exclude={"path", "table"})
        settings = {"corpus": given, "metric": config.metric}
        return cls(spark, config.index.path, corpus, settings)

    @classmethod
    def of_table(cls, path: str, corpus: DataFrame, metric: str) -> KeptIndex:
        """The index of (id, embedding), which are columns of a table that is read from files.

        The same as that of a job, where the files and the columns are.
        Raises InvalidInput for other rows, and for a path that is not apart from the table.
        """
        named = origins.columns(corpus)
        if named is None:
            raise InvalidInput(
                "index: an index follows the files of one table and has rows and columns as they "
                "are there, and the corpus chooses, joins or computes some; write it to a table "
                "and read that"
            )
        spark = corpus.sparkSession
        read = [each for source in catalog.sources(corpus) for each in source.locations]
        places.check_apart(Storage(spark), {"index": path}, {"the corpus": read})
        settings = {"corpus": {"where": None, **named}, "metric": metric}
        return cls(spark, path, corpus, settings)

    @property
    def words(self) -> str:
        """What a run has to do, in a few words."""
        return self._plan.words

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {"index": {"path": redact(self._folder.path), "was": self.words}}

    def lent(self) -> AbstractContextManager[None]:
        """Around all that uses the index: see `IndexFolder.lent`."""
        return self._folder.lent()

    def bring_up(self, run_id: str, scratch: str, max_failed_fraction: float) -> Index:
        """The index of the table as it is now, sent to where tasks see it.

        scratch: a folder for what is made on the way. Where another run has changed the index
        meanwhile, this run's is for itself.
        """
        kept = self._folder.kept
        if kept is None or not self._plan.nothing:
            kept = self._made(self._folder.begin(run_id), scratch, max_failed_fraction)
            self._folder.publish(kept, run_id)
        kept.index.send(self._spark)
        return kept.index

    def _planned(self) -> _Plan:
        kept = self._folder.kept
        if kept is None:
            return _Plan("there was none")
        if whole := self._obstacle(kept):
            return _Plan(whole)
        was, now = kept.stamps, self._stamps
        gone = frozenset(name for name, stamp in was.items() if now.get(name) != stamp)
        new = frozenset(name for name, stamp in now.items() if was.get(name) != stamp)
        left = sum(block.keeps(gone) for block in kept.index.blocks)
        if left * 2 < kept.index.rows:
            return _Plan("files with most of its rows are gone or have changed")
        return _Plan(None, new, gone)

    def _obstacle(self, kept: Kept) -> str | None:
        """Why what is kept is of no use."""
        now = self._made_of
        if other := [key for key in now if kept.made_of.get(key) != now[key]]:
            return f"it was made with another {', '.join(sorted(other))}"
        if altered := self._folder.altered():
            return f"{altered} is not what an earlier run wrote"
        return _worn(kept)

    def _made(self, folder: str, scratch: str, ceiling: float) -> Kept:
        """The index as it has to be, its files written to `folder`.

        The files of the table that are new are read once.
        """
        spark, plan = self._spark, self._plan
        old = self._folder.kept if plan.whole is None else None
        runs = vector_files.write(self._new_rows(), self._metric, f"{scratch}/index/runs")
        if old and not runs.mostly(old.index.dimension):
            # Which length is the table's all of its rows decide.
            self._plan = _Plan("most vectors of new files have another length")
            return self._made(folder, scratch, ceiling)
        dimension = old.index.dimension if old else runs.dimension("the corpus", ceiling) or 1
        vectors = TableVectors.of(spark, runs, dimension)
        fitter = partial(fit_basis, metric=self._metric)
        basis = old.index.basis if old else blocks.fit(spark, vectors, fitter)
        every = index_files.add(spark, vectors, self._metric, basis, f"{folder}/added")
        if old:
            every = index_files.remove(spark, old.index, plan.gone, f"{folder}/rest") + every
        bad = index_files.rejected(spark, runs.folder, runs.id_type, dimension)
        before = old.index.bad if old else None
        if before:
            left = spark.read.parquet(literal(before)).filter(~F.col(SOURCE).isin(*plan.gone))
            bad = bad.unionByName(left)
        if any(block.sources.keys() - self._stamps.keys() for block in every):
            raise EmberError(
                "index.path: Spark reads the corpus from other files than it names; search without "
                "an index"
            )
        rejected = 0
        if runs.rejected(dimension) or before:
            _, rejected = counted(bad, f"{folder}/rejected")
        index = Index(
            name=name_of(folder),
            blocks=tuple(every),
            order=tuple(index_files.order(spark, every, runs.id_type, f"{folder}/order")),
            basis=basis,
            dimension=dimension,
            kind=runs.kind,
            id_type=runs.id_type,
            local=vector_store.seen_by_tasks(spark, folder),
            rejected=rejected,
            bad=f"{folder}/rejected" if rejected else None,
        )
        laid_out = old.laid_out if old else (index.rows, len(index.blocks))
        return Kept(index, self._made_of, self._stamps, laid_out)

    def _new_rows(self) -> DataFrame:
        """(id, embedding, source) of the rows that are not in what is kept of the index."""
        if self._files is None:
            return self._corpus.withColumn(SOURCE, F.lit(_WHOLE))
        whole = self._plan.whole is not None
        return self._files.rows if whole else self._files.of_files(self._plan.new)


def _worn(kept: Kept) -> str | None:
    """Why an index serves the rows that it may have now less well than a new one."""
    index, (rows, pieces) = kept.index, kept.laid_out
    if not index.rows:
        return "it had no rows"
    if index.rows > _GROWN * rows:
        return f"it has {index.rows} rows and was laid out for {rows}"
    if len(index.blocks) > _PIECES * pieces * max(1, index.rows // rows) + _SPARE:
        return f"it is in {len(index.blocks)} pieces and was made in {pieces}"
    return None


def _version(corpus: DataFrame) -> dict[str, str]:
    """Of a table that tells its version, which has changed or has not, as of one file."""
    sources = catalog.sources(corpus)
    if not sources or not all(each.version for each in sources):
        raise InvalidInput(
            "index.path: Spark names neither the files of the corpus nor a version, by which an "
            "index would follow it; write its rows to a table of Parquet, or leave out index.path"
        )
    return {_WHOLE: origins.fingerprint(corpus.sparkSession, origins.state(corpus))}


def _check(spark: SparkSession, config: SearchConfig, corpus: EmbeddingsConfig) -> None:
    if config.within:
        raise InvalidConfig(
            "index.path keeps a corpus in which all rows are compared; leave out index.path, or "
            "within"
        )
    if config.output.mode == "sync":
        raise InvalidConfig(
            "output.mode sync compares what has changed, and takes no index; leave out index.path, "
            "or set output.mode to overwrite"
        )
    name = corpus.table
    if name and catalog.is_view(spark, name):
        raise InvalidConfig(
            f"index.path follows the files of a table, and corpus.table {name} is a view; write "
            "its rows to a table, or leave out index.path"
        )
