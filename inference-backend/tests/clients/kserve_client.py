"""KServe's own client library, unmodified, against a server: `kserve_client.py HOST:PORT`.

The server serves the models `digits` (versions 1 to 3) and `echo_*` (one per datatype, from `x` to `y`).
A failed check is an exception.
"""

import asyncio
import json
import sys

import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

# The protocol's name, numpy's type, values at the edges. The library has no BF16.
DATATYPES = [
    ("BOOL", np.bool_, [True, False, True]),
    ("UINT8", np.uint8, [0, 1, 255]),
    ("UINT16", np.uint16, [0, 1, 65535]),
    ("UINT32", np.uint32, [0, 1, 2**32 - 1]),
    ("UINT64", np.uint64, [0, 2**53 + 1, 2**64 - 1]),
    ("INT8", np.int8, [-128, 0, 127]),
    ("INT16", np.int16, [-32768, 0, 32767]),
    ("INT32", np.int32, [-(2**31), 0, 2**31 - 1]),
    ("INT64", np.int64, [-(2**63), 0, 2**63 - 1]),
    ("FP16", np.float16, [0.5, -1.0, 65504.0]),
    ("FP32", np.float32, [0.5, -1.25, 3e38]),
    ("FP64", np.float64, [0.1, -1e-300, 1e308]),
    ("BYTES", np.object_, ["é".encode(), b"", b"a\nb"]),
]


def check(name, condition):
    if not condition:
        raise AssertionError(name)


def request(model, name, datatype, values, binary, **how):
    given = InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model, [given], **how)


async def digits(infer):
    pixels = np.zeros((5, 64), dtype=np.float32)
    for binary in [True, False]:
        answer = await infer(
            "digits", request("digits", "pixels", "FP32", pixels, binary, request_id="request 7")
        )
        check("id", answer.id == "request 7")
        # The library does not keep the version of every answer.
        check("model", answer.model_name == "digits")
        outputs = {output.name: output.as_numpy() for output in answer.outputs}
        check("label", outputs["label"].shape == (5,))
        check("probabilities", np.allclose(outputs["probabilities"].sum(axis=1), 1))


async def datatypes(infer):
    for datatype, dtype, values in DATATYPES:
        given, model = np.array(values, dtype=dtype), f"echo_{datatype}"
        answer = await infer(model, request(model, "x", datatype, given, True))
        got = answer.outputs[0].as_numpy()
        # BYTES that came as JSON it gives as text.
        values = [v.encode() if isinstance(v, str) else v for v in got.tolist()]
        check(f"{datatype}: {got!r}", got.dtype == given.dtype and values == given.tolist())


async def errors(infer):
    bad = request("digits", "pixels", "FP32", np.zeros((1, 63), dtype=np.float32), True)
    try:
        await infer("digits", bad)
    except Exception as error:
        check(f"shape: {error}", "[-1, 64] is expected" in str(error))
    else:
        raise AssertionError("a wrong shape was no error")


async def over_rest(address):
    client, url = InferenceRESTClient(RESTConfig(protocol="v2", retries=0)), f"http://{address}"
    check("live", await client.is_server_live(url))
    check("ready", await client.is_server_ready(url))
    check("model ready", await client.is_model_ready(url, "digits"))

    async def infer(model, data):
        return await client.infer(url, data, model_name=model)

    for part in [digits, datatypes, errors]:
        await part(infer)
    await client.close()


async def over_grpc(address):
    client = InferenceGRPCClient(address, retries=0)
    check("live", await client.is_server_live())
    check("ready", await client.is_server_ready())
    check("model ready", await client.is_model_ready("digits"))

    async def infer(_, data):
        return await client.infer(data)

    for part in [digits, datatypes, errors]:
        await part(infer)
    await client.close()


async def main(address):
    await over_rest(address)
    await over_grpc(address)
    print(json.dumps({"ok": True}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
