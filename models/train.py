#!/usr/bin/env python3
"""Trains the digit classifiers in models/ and writes what is committed there.

Without arguments: writes the models, the held-out test set and the accuracies next to this file.
With --check: writes nothing there; trains twice into temporary folders, demands the same bytes from both
and the committed accuracies (bytes are not compared with the committed ones: BLAS differs between machines).
"""

import os

# Before numpy is imported: the order in which threads add up floats must not decide the weights.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import csv
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 20240817
TEST_ROWS = 450
# Version 1 is the model from "before there was much data".
FIRST_TRAINING_ROWS = 120
HIDDEN = 64
# Largest value of a pixel: the right scale, and the one that takes pixels for bytes.
PIXEL_MAX, BYTE_MAX = 16.0, 255.0
# Old enough for any ONNX Runtime in use; nothing newer is needed.
OPSET, IR_VERSION = 17, 8
TOLERANCE = 0.01
# The version with faults on demand.
FAULTY = "4"
# What it does for a value of the first pixel, which is 0 in every digit; tests/src/digits.rs asks for it.
NAN, SLOW, FAIL = 1.0, 2.0, 3.0
# Size and number of the matrices that a slow answer multiplies: some milliseconds, where a digit takes microseconds.
SLOW_SIZE, SLOW_ROUNDS = 192, 48


@dataclass
class Data:
    """Raw pixels (0 to 16) and labels."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


@dataclass
class Layer:
    """One dense layer: weights [inputs, outputs] and bias [outputs]."""

    weights: np.ndarray
    bias: np.ndarray


def load() -> Data:
    """The bundled digits, split the same way every time, each digit equally in both parts."""
    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        x, y, test_size=TEST_ROWS, stratify=y, random_state=SEED
    )
    return Data(train_x, train_y, test_x, test_y)


def logistic_regression(data: Data) -> list[Layer]:
    """Version 1: a linear model, trained on a small part of the data."""
    x, _, y, _ = train_test_split(
        data.train_x, data.train_y, train_size=FIRST_TRAINING_ROWS, stratify=data.train_y, random_state=SEED
    )
    model = LogisticRegression(max_iter=1000).fit(x / PIXEL_MAX, y)
    return [Layer(model.coef_.T, model.intercept_)]


def network(data: Data) -> list[Layer]:
    """Version 2: one hidden layer, trained on all of the data."""
    # Strong regularisation: the weights hardly depend on rounding, so other machines get the same accuracy.
    model = MLPClassifier(
        hidden_layer_sizes=(HIDDEN,), alpha=0.3, learning_rate_init=5e-3, max_iter=400, random_state=SEED
    )
    model.fit(data.train_x / PIXEL_MAX, data.train_y)
    return [Layer(w, b) for w, b in zip(model.coefs_, model.intercepts_, strict=True)]


def to_onnx(layers: list[Layer], pixel_scale: float, description: str) -> onnx.ModelProto:
    """The layers as an ONNX graph that takes raw pixels; ReLU between the layers, softmax at the end."""
    constants = [numpy_helper.from_array(np.array(pixel_scale, np.float32), "pixel_scale")]
    nodes = [helper.make_node("Div", ["pixels", "pixel_scale"], ["scaled"])]
    value = "scaled"
    for number, layer in enumerate(layers, start=1):
        weights, bias, dense = f"weights_{number}", f"bias_{number}", f"dense_{number}"
        constants.append(numpy_helper.from_array(np.ascontiguousarray(layer.weights, np.float32), weights))
        constants.append(numpy_helper.from_array(np.ascontiguousarray(layer.bias, np.float32), bias))
        nodes.append(helper.make_node("Gemm", [value, weights, bias], [dense]))
        value = dense
        if number < len(layers):
            value = f"relu_{number}"
            nodes.append(helper.make_node("Relu", [dense], [value]))
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", [value], ["label"], axis=1, keepdims=0))

    graph = helper.make_graph(
        nodes,
        "digits",
        inputs=[helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        outputs=[
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ],
        initializer=constants,
        doc_string=description,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="halftone models/train.py",
    )
    checker.check_model(model, full_check=True)
    return model


def with_faults(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, which does what is wrong on demand of the first pixel; real digits it answers as before."""
    faulty = onnx.ModelProto()
    faulty.CopyFrom(model)
    faulty.graph.doc_string = f"{model.graph.doc_string} Faults on demand of the first pixel."
    faulty.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.array(0, np.float32), "nothing"),
            numpy_helper.from_array(np.array(np.nan, np.float32), "not_a_number"),
            numpy_helper.from_array(np.array([SLOW_SIZE, SLOW_SIZE], np.int64), "slow_shape"),
            numpy_helper.from_array(np.array(SLOW_ROUNDS, np.int64), "rounds"),
            *(
                numpy_helper.from_array(np.array(value, np.float32), name)
                for name, value in (("asks_nan", NAN), ("asks_slow", SLOW), ("asks_fail", FAIL))
            ),
        ]
    )
    node = helper.make_node

    def asked(fault: str) -> list[onnx.NodeProto]:
        """Whether each row asks for it."""
        return [node("Equal", ["demand", f"asks_{fault}"], [fault])]

    def fails() -> list[onnx.NodeProto]:
        """Where a row asks to fail, the pixels have a shape that there is not. An index that there is not would not do:
        whoever sent it would be to blame."""
        return [
            node("Cast", ["fail"], ["fail_number"], to=TensorProto.INT64),
            node("ReduceMax", ["fail_number"], ["fail_any"], keepdims=0),
            node("Shape", ["pixels"], ["sound_shape"]),
            node("Add", ["sound_shape", "fail_any"], ["shape"]),
            node("Reshape", ["pixels", "shape"], ["reshaped"]),
        ]

    def slow() -> list[onnx.NodeProto]:
        """Where a row asks to be slow, products of matrices that come to nothing."""
        value = helper.make_tensor_value_info
        body = helper.make_graph(
            [
                node("Expand", ["before", "slow_shape"], ["matrix"]),
                node("MatMul", ["matrix", "matrix"], ["product"]),
                node("Softmax", ["product"], ["shares"], axis=1),
                node("ReduceMax", ["shares"], ["after"], keepdims=0),
                node("Identity", ["go_on"], ["goes_on"]),
            ],
            "round",
            inputs=[
                value("number", TensorProto.INT64, []),
                value("go_on", TensorProto.BOOL, []),
                value("before", TensorProto.FLOAT, []),
            ],
            outputs=[value("goes_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [])],
        )
        return [
            node("Cast", ["slow"], ["slow_number"], to=TensorProto.FLOAT),
            node("ReduceMax", ["slow_number"], ["slow_any"], keepdims=0),
            node("Greater", ["slow_any", "nothing"], ["is_slow"]),
            node("Loop", ["rounds", "is_slow", "slow_any"], ["multiplied"], body=body),
            node("Mul", ["multiplied", "nothing"], ["slowly_nothing"]),
        ]

    for old in faulty.graph.node:
        for index, name in enumerate(old.input):
            if name == "pixels":
                old.input[index] = "reshaped"
    last = next(old for old in faulty.graph.node if old.op_type == "Softmax")
    value = last.input[0]
    for old in faulty.graph.node:
        if old.op_type in ("Softmax", "ArgMax"):
            old.input[0] = "answer"
    demanded = [node("Gather", ["pixels", "first"], ["demand"], axis=1)]
    demanded += [*asked("nan"), *asked("slow"), *asked("fail"), *fails(), *slow()]
    after = [
        node("Add", [value, "slowly_nothing"], ["in_time"]),
        node("Where", ["nan", "not_a_number", "in_time"], ["answer"]),
    ]
    nodes = list(faulty.graph.node)
    place = nodes.index(last)
    del faulty.graph.node[:]
    faulty.graph.node.extend([*demanded, *nodes[:place], *after, *nodes[place:]])
    checker.check_model(faulty, full_check=True)
    return faulty


def accuracy(model: onnx.ModelProto, data: Data) -> float:
    """Share of held-out digits that the exported graph (not the object it came from) reads right."""
    (label,) = ReferenceEvaluator(model).run(["label"], {"pixels": data.test_x.astype(np.float32)})
    return round(float(np.mean(label == data.test_y)), 4)


def place(version: str) -> Path:
    """Where a version is. The faulty one is in a repository of its own: nobody is to serve it who does not mean to."""
    repository = Path("faults") if version == FAULTY else Path()
    return repository / "digits" / version / "model.onnx"


def build(folder: Path) -> dict[str, float]:
    """Trains and writes everything below `folder`; answers the accuracy by version."""
    data = load()
    network_layers = network(data)
    second = to_onnx(network_layers, PIXEL_MAX, "One hidden layer, all examples.")
    models = {
        "1": to_onnx(logistic_regression(data), PIXEL_MAX, "Logistic regression on few examples."),
        "2": second,
        "3": to_onnx(network_layers, BYTE_MAX, "Version 2, exported with its pixels taken for bytes: broken."),
        FAULTY: with_faults(second),
    }
    accuracies = {}
    for version, model in models.items():
        path = folder / place(version)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        accuracies[version] = accuracy(model, data)
    if accuracies.pop(FAULTY) != accuracies["2"]:
        raise RuntimeError("the faulty version answers real digits otherwise than version 2")
    digits = folder / "digits"
    (digits / "accuracy.json").write_text(json.dumps(accuracies, indent=2) + "\n")
    with (digits / "test.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["label", *(f"p{i}" for i in range(64))])
        for label, pixels in zip(data.test_y, data.test_x, strict=True):
            table.writerow([label, *pixels.astype(int)])
    return accuracies


def print_table(folder: Path, accuracies: dict[str, float]) -> None:
    """One line per version."""
    print("version  accuracy  bytes")
    for version, value in accuracies.items():
        size = (folder / place(version)).stat().st_size
        print(f"{version:<7}  {value:8.4f}  {size:5d}")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def check(committed: Path) -> list[str]:
    """What is wrong with the committed models, or with training itself; nothing when all is well."""
    problems = []
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        accuracies = build(Path(one))
        build(Path(two))
        print_table(Path(one), accuracies)
        first, second = contents(Path(one)), contents(Path(two))
    problems += [f"{path}: two runs gave different bytes" for path in first if first[path] != second.get(path)]
    try:
        expected = json.loads((committed / "digits/accuracy.json").read_text())
    except (OSError, ValueError) as error:
        return [*problems, f"accuracy.json: {error}"]
    if expected.keys() != accuracies.keys():
        problems.append(f"accuracy.json: has versions {sorted(expected)}, training made {sorted(accuracies)}")
    for version in expected.keys() & accuracies.keys():
        if abs(expected[version] - accuracies[version]) > TOLERANCE:
            problems.append(f"version {version}: accuracy {accuracies[version]}, committed {expected[version]}")
    return problems


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="train again and compare, write nothing")
    arguments = parser.parse_args()
    folder = Path(__file__).resolve().parent
    if not arguments.check:
        print_table(folder, build(folder))
        return 0
    problems = check(folder)
    for problem in problems:
        print(f"train.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
