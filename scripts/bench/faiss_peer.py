"""faiss in a process and an environment of its own, asked over stdin by similarity_kernel.py.

Each line on stdin is a JSON request, each line on stdout the answer with the seconds it took;
arrays go through .npy files.
"""

from __future__ import annotations

import json
import sys
import time

import faiss
import numpy as np


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    faiss.omp_set_num_threads(setup["threads"])
    clock = time.process_time if setup["clock"] == "cpu" else time.perf_counter
    queries, corpus = np.load(setup["queries"]), np.load(setup["corpus"])
    index = faiss.IndexFlatIP(corpus.shape[1])
    index.add(corpus)
    print(json.dumps({"version": faiss.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = clock()
        if request["job"] == "top_k":
            scores, ids = index.search(queries, request["k"])
        else:
            limits, scores, ids = index.range_search(queries, request["threshold"])
        seconds = clock() - start
        np.save(request["out"] + ".scores.npy", scores)
        np.save(request["out"] + ".ids.npy", ids)
        if request["job"] == "range":
            np.save(request["out"] + ".limits.npy", limits)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
