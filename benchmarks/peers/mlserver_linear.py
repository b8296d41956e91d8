"""MLServer with a linear model over gRPC: scores of all actions of a request. Runs in an environment of its own.

``python -m benchmarks.peers.mlserver_linear ROWS.npz`` serves until it is killed. It prints a line of JSON with its
port and the requests, serialized (base64), for the ``rows`` of the file, shape (requests, actions, width), float32.
Its ``theta``, shape (actions, width), are the coefficients.

The model runs in the server's own process, which is the quicker way for it. The answer is the scores: it explores
nothing, draws nothing, logs nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel, MLServer  # type: ignore[import-not-found, unused-ignore]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found, unused-ignore]
from mlserver.grpc import dataplane_pb2  # type: ignore[import-not-found, unused-ignore]
from mlserver.settings import ModelSettings, Settings  # type: ignore[import-not-found, unused-ignore]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found, unused-ignore]

ROWS = "LEEWAY_BENCHMARK_ROWS"


class Linear(MLModel):  # type: ignore[misc, unused-ignore]
    """One vector of coefficients for each action."""

    async def load(self) -> bool:
        with np.load(os.environ[ROWS]) as data:
            self.theta = data["theta"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        scores = np.einsum("ij,ij->i", rows, self.theta)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def request(rows: np.ndarray) -> bytes:
    """Return a serialized request of the Open Inference Protocol."""
    message = dataplane_pb2.ModelInferRequest(model_name="linear")
    tensor = message.inputs.add(name="rows", datatype="FP32", shape=rows.shape)
    tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    return bytes(message.SerializeToString())


async def serve(rows: np.ndarray) -> None:
    http, rpc, metrics = free_ports(3)
    settings = Settings(
        host="127.0.0.1", http_port=http, grpc_port=rpc, metrics_port=metrics, parallel_workers=0, debug=False
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLSERVER_ENVIRONMENTS_DIR"] = folder
        model = ModelSettings(name="linear", implementation="benchmarks.peers.mlserver_linear.Linear")
        print(
            json.dumps({"port": rpc, "messages": [base64.b64encode(request(each)).decode() for each in rows]}),
            flush=True,
        )
        await MLServer(settings).start([model])


if __name__ == "__main__":
    os.environ[ROWS] = str(Path(sys.argv[1]).resolve())
    with np.load(sys.argv[1]) as data:
        asyncio.run(serve(data["rows"]))
