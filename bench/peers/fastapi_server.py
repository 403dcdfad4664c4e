"""What a team writes first: a FastAPI service around ONNX Runtime. The environment says MODEL and THREADS.

JSON as in the Open Inference Protocol, and `/raw`, which takes the bytes of an image.
"""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(os.environ["THREADS"])
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
app = FastAPI()


@app.post("/v2/models/digits/infer")
def infer(request: dict):
    inputs = {
        tensor["name"]: np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        for tensor in request["inputs"]
    }
    outputs = session.run(names, inputs)
    return {
        "model_name": "digits",
        "outputs": [
            {"name": name, "shape": value.shape, "datatype": value.dtype.name, "data": value.ravel().tolist()}
            for name, value in zip(names, outputs)
        ],
    }


@app.post("/raw")
async def raw(request: Request):
    image = np.frombuffer(await request.body(), dtype=np.float32).reshape(1, 3, 224, 224)
    return Response(session.run(names, {"image": image})[0].tobytes())
