"""Secrets of URIs stay out of everything that a run writes or says."""

from __future__ import annotations

import logging

import pytest

from corpora import picture, write
from ember import errors, job
from ember.redaction import redact, redact_all
from ember.worker.rows import RowError

SECRET = "hUsH-hUsH"


@pytest.mark.parametrize(
    "uri",
    [
        "s3a://AKIAEXAMPLE:{}@bucket/a.parquet",
        "s3a://AKIAEXAMPLE:ab/{}/cd@bucket/a.parquet",
        "https://{}@host/a.jpg",
        "https://user:p@ss{}@host/a.jpg",
        "https://host/a.jpg?X-Amz-Algorithm=A&X-Amz-Signature={}&X-Amz-Expires=3",
        "https://host/a.jpg?X-Amz-Credential={}%2F2026",
        "https://host/a.jpg?AWSAccessKeyId=x&Signature={}&Expires=3",
        "https://account.blob.core.windows.net/c/a.jpg?sv=2026&sr=b&sig={}%3D&se=2026",
        "https://storage.googleapis.com/b/a.jpg?X-Goog-Signature={}",
        "https://host/a.jpg?access_token={}#top",
        "https://host/a.jpg#access_token={}",
        "https://host/a.jpg?size=3&amp;password={}",
        "wasbs://container@account/a?a=b;api-key={}",
        "hdfs://name:{}@host:8020/a",
    ],
)
def test_secrets_of_uris_are_hidden_and_the_rest_stays(uri):
    text = f"cannot read '{uri.format(SECRET)}', and nothing else: a=b"
    hidden = redact(text)
    assert SECRET not in hidden
    assert "***" in hidden
    assert hidden.startswith("cannot read '")
    assert hidden.endswith("', and nothing else: a=b")
    assert redact(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "hdfs://namenode:8020/data/me@work/a.parquet",
        "file:///home/me@work/a=b.parquet",
        "https://host/a.jpg?size=3&page=2",
        "s3a://bucket/key=3/date=2026-01-01/part-0.parquet",
        "https://host/a@b.jpg",
        "model.layer=fc1 is not one of a, b",
        "mail me@example.org",
        "abfss://container@account.dfs.core.windows.net/a.parquet",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_long_texts_without_a_secret_take_no_time():
    for text in ("://a" * 30_000, "?a" * 50_000, "?" + "key" * 30_000, "://" + "a:" * 30_000):
        assert redact(text + " a=b") == text + " a=b"


def test_whole_manifests_are_redacted():
    told = {"config": {"path": [f"s3://a:{SECRET}@b/c"]}, f"https://{SECRET}@h/": [1, None, 0.5]}
    assert redact_all(told) == {
        "config": {"path": ["s3://***@b/c"]},
        "https://***@h/": [1, None, 0.5],
    }


def test_errors_and_logs_hide_secrets(capsys):
    uri = f"https://me:{SECRET}@host/a.jpg?sig={SECRET}"
    assert SECRET not in str(errors.InvalidInput(f"there is nothing at {uri}"))
    assert SECRET not in str(RowError("unreadable file", uri))
    # Also where the detail is cut in the middle of the secret.
    assert SECRET[:4] not in str(RowError("unreadable file", "x" * 170 + " " + uri))
    assert SECRET not in str(job.explain(ValueError(uri)))
    logger = logging.getLogger("ember")
    kept = logger.handlers, logger.propagate, logger.level
    try:
        job.log_as("run")
        try:
            raise ValueError(uri)
        except ValueError:
            logger.exception("cannot read %s", uri)
    finally:
        logger.handlers, logger.propagate = kept[:2]
        logger.setLevel(kept[2])
    said = capsys.readouterr().err
    assert "cannot read" in said
    assert SECRET not in said


def test_nothing_that_a_run_writes_or_says_holds_a_secret(embed_job, resnet, tmp_path, capsys):
    uris = [
        f"https://me:{SECRET}@host/a.jpg",
        f"https://host/a.jpg?X-Amz-Signature={SECRET}",
        f"memory://images/gone.jpg?sig={SECRET}",
        "a.png",
    ]
    (tmp_path / "a.png").write_bytes(picture(0))
    path = write(tmp_path / "in.parquet", image_id=[1, 2, 3, 4], content=uris)
    settings = {
        "input__path": path,
        "input__id": "image_id",
        "input__modality": "image",
        "input__content_is": "paths",
        "input__root": f"[{tmp_path}, memory://images, 's3://me:{SECRET}@bucket/']",
        "model__name": resnet,
        "output__path": tmp_path / "work" / "out",
    }
    code, failed = embed_job(**settings)
    assert code == 3
    code, done = embed_job(**settings, limits__max_failed_fraction=0.9)
    assert code == 0, done
    missing, refused = embed_job(**{**settings, "input__path": f"s3a://me:{SECRET}@bucket/x"})
    assert missing != 0
    said = failed + done + refused + capsys.readouterr().out
    written = [each for each in (tmp_path / "work").rglob("*") if each.is_file()]
    assert {each.suffix for each in written} >= {".parquet", ".json"}
    assert SECRET not in said
    for file in written:
        assert SECRET.encode() not in file.read_bytes(), file
