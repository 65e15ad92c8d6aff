"""The package is `lib/ember`; the job scripts are also installed, as `ember.jobs`."""

from setuptools import find_packages, setup

TENSORFLOW = ["tensorflow>=2.20,<3"]
# Executors on CPUs need no more than this; the driver converts with TensorFlow or torch.
OPENVINO = ["openvino>=2025.3"]
# What the driver needs for `precision: int8`, besides.
INT8 = ["nncf>=3,<4"]
# What the train job needs, on the driver and on the workers; a trained head scores without it.
LEARN = ["scikit-learn>=1.6,<2", "scipy>=1.13", "safetensors>=0.5"]
# What the driver and the workers need for dedup: perceptual hashes of images, MinHash of texts.
DEDUP = ["imagehash>=4.3", "datasketch>=2"]
# What the driver needs for report.html, which evaluate writes unless `report: false`.
REPORT = ["matplotlib>=3.9", "jinja2>=3.1"]
# What a map needs: on the workers scikit-learn, which lays out, on the driver Jinja2.
MAP = ["scikit-learn>=1.6,<2", "jinja2>=3.1"]
TORCH = ["torch>=2.6,<3", "transformers>=5,<6"]

setup(
    packages=[*find_packages("lib"), "ember.jobs"],
    package_dir={"": "lib", "ember.jobs": "jobs"},
    package_data={"ember": ["py.typed"], "ember.report": ["templates/*"]},
    install_requires=[
        "pyarrow>=18",
        "numpy>=2",
        "scipy>=1.13",
        "pillow>=11",
        "fsspec>=2024.6",
        "safetensors>=0.4",
        "numba>=0.61",
        "llvmlite>=0.44",
        "threadpoolctl>=3.1",
        "filelock>=3.15",
    ],
    extras_require={
        # What the driver needs beside the engine; executors get pyspark from the cluster.
        "spark": ["pyspark>=3.5,<5", "pandas>=2.2,<3", "pydantic>=2.8", "pyyaml>=6", "tqdm>=4.66"],
        "tensorflow": TENSORFLOW,
        "openvino": OPENVINO,
        "int8": [*OPENVINO, *INT8],
        "torch": TORCH,
        # For `ember.export` alone; the machines that write and serve the index have it.
        "faiss": ["faiss-cpu>=1.9"],
        "learn": LEARN,
        "report": REPORT,
        "dedup": DEDUP,
        "map": MAP,
        # On the driver, to tell OpenLineage and MLflow of runs: docs/scheduling.md.
        "lineage": ["openlineage-python>=1.40"],
        "mlflow": ["mlflow-skinny>=3"],
        "all": [*TENSORFLOW, *OPENVINO, *INT8, *TORCH, *LEARN, *REPORT, *DEDUP, *MAP],
    },
    entry_points={"console_scripts": ["ember = ember.cli:main"]},
)
