"""Writes a graph of the shape of ResNet-50, with random weights: `resnet50.py FILE.onnx`.

For how long it takes, not for what it says.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(50)
nodes, weights = [], []


def weight(name, *shape):
    fan_in = max(1, int(np.prod(shape[1:])))
    values = (random.standard_normal(shape) * np.sqrt(1 / fan_in)).astype(np.float32)
    weights.append(numpy_helper.from_array(values, name))
    return name


def node(kind, inputs, **attributes):
    output = f"{kind}_{len(nodes)}"
    nodes.append(helper.make_node(kind, inputs, [output], **attributes))
    return output


def convolution(x, before, after, size, stride=1):
    """Normalisation is folded into the weights, as exporters do."""
    name = f"w{len(nodes)}"
    inputs = [x, weight(name, after, before, size, size), weight(name + "b", after)]
    return node("Conv", inputs, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)


x = node("Relu", [convolution("image", 3, 64, 7, 2)])
x = node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
channels = 64
for width, blocks, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
    for block in range(blocks):
        step, after = (stride if block == 0 else 1), width * 4
        shortcut = convolution(x, channels, after, 1, step) if block == 0 else x
        y = node("Relu", [convolution(x, channels, width, 1)])
        y = node("Relu", [convolution(y, width, width, 3, step)])
        y = node("Add", [convolution(y, width, after, 1), shortcut])
        x, channels = node("Relu", [y]), after
x = node("Flatten", [node("GlobalAveragePool", [x])])
nodes.append(helper.make_node("Gemm", [x, weight("fc", 2048, 1000), weight("fcb", 1000)], ["logits"]))

image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])
logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])
graph = helper.make_graph(nodes, "resnet50", [image], [logits], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.checker.check_model(model)
onnx.save(model, sys.argv[1])
