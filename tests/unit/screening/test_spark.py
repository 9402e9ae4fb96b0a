"""The registered version as a function of Spark SQL: the answers that the loader gives."""

import shutil
import sys

import mlflow
import pytest

from rarealert.registry.versions import register_version
from rarealert.screening import pyfunc
from rarealert.screening.answer import COLUMNS

pyspark = pytest.importorskip("pyspark", reason="needs the extra spark")
pytestmark = [
    pytest.mark.scale,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine"),
    pytest.mark.filterwarnings("ignore"),  # Spark's and pandas' own, on every call
]


@pytest.fixture
def spark(monkeypatch):
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    yield session
    session.stop()


def test_spark_answers_as_the_loader_does(spark, mlflow_store, package, tiny_student):
    from pyspark.sql.functions import struct

    with mlflow.start_run():
        version = register_version("toy", package(tiny_student), {})
    visits = [("a", 34.0, "Tired for weeks."), ("b", None, "Stiff calves."), ("c", 3.0, "Cough.")]
    names = ["case_id", "age_years", "chief_complaint"]
    frame = spark.createDataFrame(
        visits * 5, "case_id string, age_years double, chief_complaint string"
    )
    kinds = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    screen = mlflow.pyfunc.spark_udf(
        spark, version.uri, result_type=kinds, env_manager="local", params={"prevalence": 0.02}
    )
    rows = frame.repartition(2).select(screen(struct(*names)).alias("told")).select("told.*")
    told = {row["case_id"]: row.asDict() for row in rows.collect()}
    own = mlflow.pyfunc.load_model(version.uri).predict(
        pyfunc.pd.DataFrame(visits, columns=names), params={"prevalence": 0.02}
    )
    expected = {row["case_id"]: row for row in own.to_dict("records")}
    assert told.keys() == expected.keys()
    for name, row in told.items():
        assert row == pytest.approx(expected[name], abs=1e-6), name
    assert rows.count() == 15
