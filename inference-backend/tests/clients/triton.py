"""Triton's own client library, unmodified, against a server: `triton.py HOST:PORT`.

The server serves the models `digits` (versions 1 to 3) and `echo_*` (one per datatype, from `x` to `y`).
Every check is made over HTTP and over gRPC; a failed one is an exception.
"""

import json
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

# The protocol's name, numpy's type, values at the edges.
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
    ("BF16", ml_dtypes.bfloat16, [0.5, -1.0, 256.0]),
    ("FP32", np.float32, [0.5, -1.25, 3e38]),
    ("FP64", np.float64, [0.1, -1e-300, 1e308]),
    ("BYTES", np.object_, ["é".encode(), b"", b"a\nb"]),
]


def check(name, condition):
    if not condition:
        raise AssertionError(name)


def tensor(module, name, values, datatype, **how):
    given = module.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, **how)
    return given


def metadata(client, as_json):
    """Both clients answer alike, the one with dicts and the other when it is told to."""
    check("live", client.is_server_live())
    check("ready", client.is_server_ready())
    check("model ready", client.is_model_ready("digits"))
    check("version ready", client.is_model_ready("digits", "1"))
    server = client.get_server_metadata(**as_json)
    check("server", server["name"] == "halftone-inference")
    check("extensions", "binary_tensor_data" in server["extensions"])
    model = client.get_model_metadata("digits", "2", **as_json)
    check("versions", model["versions"] == ["1", "2", "3"])
    check("platform", model["platform"] == "onnx_onnxv1")
    check("inputs", [(i["name"], i["datatype"]) for i in model["inputs"]] == [("pixels", "FP32")])
    shape = [int(size) for size in model["inputs"][0]["shape"]]
    check("shape", shape == [-1, 64])


def repository(client, index):
    """`index` gives the entries as dicts; the server lets clients load and unload."""
    client.unload_model("echo_FP64")
    check("unloaded", not ready(client, "echo_FP64"))
    states = {(e["name"], e["version"]): e.get("state") for e in index()}
    check("index", states[("digits", "2")] == "READY")
    check("index of what is unloaded", states[("echo_FP64", "1")] == "UNAVAILABLE")
    client.load_model("echo_FP64")
    check("loaded", ready(client, "echo_FP64"))


def ready(client, model):
    try:
        return client.is_model_ready(model)
    except InferenceServerException:
        return False


def digits(module, client):
    pixels = np.zeros((5, 64), dtype=np.float32)
    outputs = [module.InferRequestedOutput("label")]
    answer = client.infer(
        "digits",
        [tensor(module, "pixels", pixels, "FP32")],
        model_version="2",
        outputs=outputs,
        request_id="request 7",
        timeout=5_000_000,
    )
    check("label", answer.as_numpy("label").shape == (5,))
    check("only what was asked for", answer.as_numpy("probabilities") is None)
    everything = client.infer("digits", [tensor(module, "pixels", pixels, "FP32")])
    check("probabilities", np.allclose(everything.as_numpy("probabilities").sum(axis=1), 1))
    return answer.get_response()


def datatypes(module, client, **how):
    for datatype, dtype, values in DATATYPES:
        given = np.array(values, dtype=dtype)
        answer = client.infer(f"echo_{datatype}", [tensor(module, "x", given, datatype, **how)])
        got = answer.as_numpy("y")
        check(datatype, got.dtype == given.dtype and got.tolist() == given.tolist())


def errors(module, client):
    good = np.zeros((1, 64), dtype=np.float32)
    for name, call, says in [
        ("model", lambda: client.infer("digit", [tensor(module, "pixels", good, "FP32")]), "unknown model"),
        ("version", lambda: client.get_model_metadata("digits", "9"), "has no version"),
        ("input", lambda: client.infer("digits", [tensor(module, "pixel", good, "FP32")]), "unknown input"),
        (
            "shape",
            lambda: client.infer("digits", [tensor(module, "pixels", good[:, :63], "FP32")]),
            "[-1, 64] is expected",
        ),
        (
            "datatype",
            lambda: client.infer("digits", [tensor(module, "pixels", good.astype(np.float64), "FP64")]),
            '"FP32" is expected',
        ),
    ]:
        try:
            call()
        except InferenceServerException as error:
            check(f"{name}: {error.message()}", says in error.message())
        else:
            raise AssertionError(f"{name} was no error")


def over_http(address):
    client = triton_http.InferenceServerClient(address)
    metadata(client, {})
    repository(client, client.get_model_repository_index)
    response = digits(triton_http, client)
    check("id", response["id"] == "request 7")
    check("version", response["model_version"] == "2")
    datatypes(triton_http, client)
    errors(triton_http, client)

    # Without the binary extension, and compressed.
    pixels = np.zeros((1, 64), dtype=np.float32)
    plain = [tensor(triton_http, "pixels", pixels, "FP32", binary_data=False)]
    output = [triton_http.InferRequestedOutput("label", binary_data=False)]
    for compression in [None, "gzip", "deflate"]:
        answer = client.infer("digits", plain, outputs=output, request_compression_algorithm=compression)
        check("JSON", answer.as_numpy("label").shape == (1,))
        answer = client.infer(
            "digits",
            [tensor(triton_http, "pixels", pixels, "FP32")],
            request_compression_algorithm=compression,
        )
        check("binary", answer.as_numpy("label").shape == (1,))
    pending = [client.async_infer("digits", plain) for _ in range(20)]
    check("asynchronous", all(p.get_result().as_numpy("label").shape == (1,) for p in pending))
    client.close()


def over_grpc(address):
    client = triton_grpc.InferenceServerClient(address)
    metadata(client, {"as_json": True})
    repository(client, lambda: client.get_model_repository_index(as_json=True)["models"])
    response = digits(triton_grpc, client)
    check("id", response.id == "request 7")
    check("version", response.model_version == "2")
    datatypes(triton_grpc, client)
    errors(triton_grpc, client)
    pixels = tensor(triton_grpc, "pixels", np.zeros((1, 64), dtype=np.float32), "FP32")
    answer = client.infer("digits", [pixels], compression_algorithm="gzip", client_timeout=10)
    check("compressed", answer.as_numpy("label").shape == (1,))
    client.close()


if __name__ == "__main__":
    over_http(sys.argv[1])
    over_grpc(sys.argv[1])
    print(json.dumps({"ok": True}))
