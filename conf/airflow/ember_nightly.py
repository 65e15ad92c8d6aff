"""A DAG for Airflow 3: every night the day's rows are embedded, classified and judged.

Copy it into the folder of DAGs. It needs apache-airflow-providers-apache-spark, spark-submit on the
PATH of the workers, the connection spark_default, and two variables:

    ember         the folder of Ember's jobs, such as /opt/ember/jobs
    ember_config  a folder with embed.yaml, classify.yaml and evaluate.yaml, made from conf/; what
                  changes from day to day is set here

A task that fails is tried again and resumes: rows that are done stay done. Its run id names the run
in logs and manifests. With apache-airflow-providers-openlineage, and spark_inject_parent_job_info
in its section of Airflow's settings, the manifest also names the task's own run (`parent_run`).
"""

from datetime import datetime, timedelta

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG, CronDataIntervalTimetable

DAY = "{{ data_interval_start | ds }}"
# The rows that came in within the data interval; values, not the time at which the task runs.
WHERE = (
    "created >= TIMESTAMP'{{ data_interval_start.isoformat() }}'"
    " AND created < TIMESTAMP'{{ data_interval_end.isoformat() }}'"
)


def job(name: str, *settings: str, retries: int = 2) -> SparkSubmitOperator:
    """A task that runs a job with its file of the configuration, and these of its keys."""
    return SparkSubmitOperator(
        task_id=name,
        application=f"{{{{ var.value.ember }}}}/{name}.py",
        application_args=[
            f"--config={{{{ var.value.ember_config }}}}/{name}.yaml",
            # Letters, digits and . _ : + @ = - are fine, so Airflow's run ids are.
            f"--run-id={{{{ run_id }}}}-{name}",
            *(f"--set={each}" for each in settings),
        ],
        retries=retries,
    )


with DAG(
    "ember_nightly",
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2026, 11, 1),
    catchup=False,
    # Two runs at once would compete for the cluster; what each writes is its own.
    max_active_runs=1,
    params={"root": "s3a://bucket/ember"},
    default_args={"retry_delay": timedelta(seconds=30)},
):
    ROOT = "{{ params.root }}"
    embed = job(
        "embed",
        f"input.where={WHERE}",
        f"output.path={ROOT}/embeddings/day={DAY}",
        "output.mode=resume",
    )
    classify = job(
        "classify",
        f'features=[{{"path": "{ROOT}/embeddings/day={DAY}", "id": "id"}}]',
        f"output.path={ROOT}/predictions/day={DAY}",
        "output.mode=resume",
    )
    # A figure below what `require` of its file asks for is exit code 5, which fails the task: what
    # comes after it does not see the day. Another try would judge the same rows.
    evaluate = job(
        "evaluate",
        f"predictions.path={ROOT}/predictions/day={DAY}",
        f"truth.where={WHERE}",
        f"output.path={ROOT}/figures/day={DAY}",
        "output.mode=overwrite",
        retries=0,
    )
    embed >> classify >> evaluate
