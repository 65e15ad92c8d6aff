"""What Ember is measured against: the usual ways to embed a Parquet table, one run a process.

    python embed_peers.py PEER --input FILE --output PATH --id ID --content COLUMN --modality image
                          --model ResNet50 --weights FILE --size 224
    python embed_peers.py weights --model ResNet50 --size 224 --weights random --output FILE

Peers, each writing a Parquet table (id, embedding array<float>):

- `predict_batch_udf`: Spark's own function with the recipe of its documentation. The model is
  made in `make_batch_predict_fn` and cached by Spark for the worker. Images are decoded by a
  first pandas UDF into flat arrays of floats and reach the model through `input_tensor_shapes`.
- `pandas_udf`: an iterator pandas UDF that loads the model at the start of each partition, then
  decodes and predicts each Arrow batch.
- `loop`: the library without Spark, in one process that uses all cores: read, decode, predict
  32 rows, write.

All prepare a row alike: images upright, RGB, nearest neighbor to the model's size, then the
architecture's preprocess_input; texts by the model's tokenizer, cut at the model's length, the
mean over the tokens of the mask. All compute in float32, in batches of `--batch-rows`.

The Spark peers run on local[*] with `--partitions-per-core` partitions for each core (Spark's
tuning guide says two or three), Arrow batches of `--arrow-rows` rows, and the numbers of threads
that Spark and the model's library set by themselves.

This file needs nothing of Ember, so that an interpreter with other packages can run it.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

Encode = Callable[[Sequence[Any]], np.ndarray]


@dataclass(frozen=True)
class Task:
    """The command line of a peer; `model` is a name of keras.applications, or a folder."""

    peer: str
    output: str
    model: str
    modality: str = "image"
    input: str = ""
    id: str = ""
    content: str = ""
    weights: str = ""
    size: int = 0
    batch_rows: int = 32
    arrow_rows: int = 128
    partitions_per_core: int = 2


def pixels(data: bytes, size: int) -> np.ndarray:
    """Encoded image to (size, size, 3) float32 in 0..255, as keras.utils.load_img reads it.

    Beyond that function it turns photographs upright by their EXIF tag, as Ember does.
    """
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.NEAREST), np.float32)


def build_keras(name: str, size: int) -> Any:
    """The untrained architecture from pixels (n, size, size, 3) to the mean of its last map."""
    import keras

    build = getattr(keras.applications, name)
    shape = (size, size, 3)
    return build(include_top=False, pooling="avg", weights=None, input_shape=shape)


def load_keras(name: str, size: int, weights: str) -> tuple[Any, Callable[[np.ndarray], Any]]:
    """The model and its preprocess_input."""
    import keras

    model = build_keras(name, size)
    model.load_weights(weights)
    defined_in = sys.modules[getattr(keras.applications, name).__module__]
    return model, defined_in.preprocess_input


def keras_encoder(task: Task, *, whole: bool) -> Encode:
    """Rows of image bytes to vectors.

    whole: through `model.predict`, which cuts the batches itself; else each call is one batch.
    """
    model, preprocess = load_keras(task.model, task.size, task.weights)

    def encode(rows: Sequence[bytes]) -> np.ndarray:
        batch = preprocess(np.stack([pixels(row, task.size) for row in rows]))
        if whole:
            return model.predict(batch, batch_size=task.batch_rows, verbose=0)
        return np.asarray(model.predict_on_batch(batch))

    return encode


def text_encoder(folder: str) -> Encode:
    """One batch of texts to vectors, padded to its longest text."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    longest = min(tokenizer.model_max_length, model.config.max_position_embeddings)

    def encode(texts: Sequence[str]) -> np.ndarray:
        options = {"padding": True, "truncation": True, "max_length": longest}
        inputs = tokenizer([str(text) for text in texts], return_tensors="pt", **options)
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy()

    return encode


def in_batches(encode: Encode, rows: int) -> Encode:
    """`encode` for any number of rows, called with `rows` of them at a time."""

    def encode_all(values: Sequence[Any]) -> np.ndarray:
        starts = range(0, len(values), rows)
        return np.concatenate([encode(values[start : start + rows]) for start in starts])

    return encode_all


def spark_table(task: Task) -> Any:
    """The input as a DataFrame of a session with settings like those that Ember gives itself."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    settings = {
        "spark.driver.memory": f"{min(8, max(1, gib // 4))}g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(task.arrow_rows),
    }
    builder = SparkSession.builder.master("local[*]").appName(task.peer)
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    partitions = task.partitions_per_core * spark.sparkContext.defaultParallelism
    return spark.read.parquet(task.input).select(task.id, task.content).repartition(partitions)


def write(task: Task, table: Any, embedding: Any) -> None:
    table.select(task.id, embedding.alias("embedding")).write.parquet(task.output)
    table.sparkSession.stop()


def predict_batch_udf_images(task: Task) -> None:
    import pandas as pd
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.functions import pandas_udf
    from pyspark.sql.types import ArrayType, FloatType

    table = spark_table(task)
    size = task.size

    @pandas_udf("array<float>")
    def decode(column: pd.Series) -> pd.Series:
        return column.map(lambda data: pixels(data, size).reshape(-1))

    def make_predict_fn() -> Callable[[np.ndarray], np.ndarray]:
        model, preprocess = load_keras(task.model, size, task.weights)

        def predict(inputs: np.ndarray) -> np.ndarray:
            return model.predict(preprocess(inputs), verbose=0)

        return predict

    embed = predict_batch_udf(
        make_predict_fn,
        return_type=ArrayType(FloatType()),
        batch_size=task.batch_rows,
        input_tensor_shapes=[[size, size, 3]],
    )
    write(task, table, embed(decode(table[task.content])))


def predict_batch_udf_texts(task: Task) -> None:
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    table = spark_table(task)
    folder = task.model

    def make_predict_fn() -> Encode:
        return text_encoder(folder)

    embed = predict_batch_udf(
        make_predict_fn, return_type=ArrayType(FloatType()), batch_size=task.batch_rows
    )
    write(task, table, embed(table[task.content]))


def naive_pandas_udf(task: Task) -> None:
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    table = spark_table(task)

    @pandas_udf("array<float>")
    def embed(columns: Iterator[pd.Series]) -> Iterator[pd.Series]:
        if task.modality == "text":
            encode = in_batches(text_encoder(task.model), task.batch_rows)
        else:
            encode = keras_encoder(task, whole=True)
        for column in columns:
            yield pd.Series(list(encode(column.to_list())))

    write(task, table, embed(table[task.content]))


def loop(task: Task) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    if task.modality == "text":
        encode = text_encoder(task.model)
    else:
        encode = keras_encoder(task, whole=False)
    source = parquet.ParquetFile(task.input)
    field = source.schema_arrow.field(task.id)
    schema = pa.schema([field, pa.field("embedding", pa.list_(pa.float32()))])
    with parquet.ParquetWriter(task.output, schema) as writer:
        columns = [task.id, task.content]
        for batch in source.iter_batches(batch_size=task.batch_rows, columns=columns):
            vectors = encode(batch.column(task.content).to_pylist())
            ids = batch.column(task.id)
            embedding = pa.array(list(vectors), schema.field("embedding").type)
            writer.write_batch(pa.record_batch([ids, embedding], schema=schema))


def make_weights(task: Task) -> None:
    """Write weights drawn with seed 0 ("random"), or the published ones ("imagenet")."""
    import keras

    keras.utils.set_random_seed(0)
    model = build_keras(task.model, task.size)
    if task.weights != "random":
        build = getattr(keras.applications, task.model)
        shape = (task.size, task.size, 3)
        model = build(include_top=False, pooling="avg", weights=task.weights, input_shape=shape)
    Path(task.output).parent.mkdir(parents=True, exist_ok=True)
    model.save_weights(task.output)


PEERS: dict[tuple[str, str], Callable[[Task], None]] = {
    ("predict_batch_udf", "image"): predict_batch_udf_images,
    ("predict_batch_udf", "text"): predict_batch_udf_texts,
    ("pandas_udf", "image"): naive_pandas_udf,
    ("pandas_udf", "text"): naive_pandas_udf,
    ("loop", "image"): loop,
    ("loop", "text"): loop,
    ("weights", "image"): make_weights,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=sorted({peer for peer, _ in PEERS}))
    for field in fields(Task)[1:]:
        option = f"--{field.name.replace('_', '-')}"
        required = field.name in ("output", "model")
        default = None if required else field.default
        parser.add_argument(option, type=field.type, default=default, required=required)
    task = Task(**vars(parser.parse_args()))
    PEERS[task.peer, task.modality](task)


if __name__ == "__main__":
    main()
