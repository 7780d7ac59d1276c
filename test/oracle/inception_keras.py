"""The network of npm's nsfwjs, run by its own description: an interpreter of Keras's layers, and a reader of JavaScript's literals."""
import base64
import json
import os
import re

import numpy
import torch
import torch.nn.functional as F

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "node_modules", "nsfwjs", "dist", "models", "inception_v3")


def text(name):
    with open(os.path.join(FOLDER, name + ".min.js")) as file:
        return file.read()


def literal(source):
    """JSON of a minified object literal: keys get quotes, !0 and !1 their meaning, .5 its zero."""
    pieces = re.split(r'("(?:[^"\\]|\\.)*")', source)
    for i in range(0, len(pieces), 2):
        piece = re.sub(r"([{,])([A-Za-z_$][\w$]*):", r'\1"\2":', pieces[i])
        piece = re.sub(r"([\[,:])!0", r"\1true", piece)
        piece = re.sub(r"([\[,:])!1", r"\1false", piece)
        pieces[i] = re.sub(r"(?<![\d])\.(\d)", r"0.\1", piece)
    return json.loads("".join(pieces))


def load():
    source = text("model")
    model = literal(balanced(source, source.index("exports={model") + len("exports=")))
    values = {}
    for group in model["weightsManifest"]:
        data = b"".join(base64.b64decode(re.search(r'exports="([^"]+)"', text(path)).group(1)) for path in group["paths"])
        at = 0
        for w in group["weights"]:
            count = int(numpy.prod(w["shape"]))
            q = w["quantization"]
            raw = numpy.frombuffer(data, numpy.uint8, count, at).astype(numpy.float64)
            values[w["name"]] = torch.from_numpy((raw * q["scale"] + q["min"]).astype(numpy.float32).astype(numpy.float64)).reshape(w["shape"])
            at += count
        assert at == len(data)
    return model["modelTopology"]["model_config"]["config"]["layers"], values


def balanced(source, begin):
    """From an opening brace to the one that closes it; no brace stands in this file's texts."""
    depth = 0
    for end in range(begin, len(source)):
        depth += (source[end] == "{") - (source[end] == "}")
        if depth == 0:
            return source[begin:end + 1]
    raise ValueError("an open brace")


def same(x, kernel, stride, fill):
    """TensorFlow's SAME: as many places as ceil(side / stride), the odd one of the padding after."""
    pads = []
    for side, k, s in reversed(list(zip(x.shape[2:], kernel, stride))):
        total = max((-(-side // s) - 1) * s + k - side, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=fill)


def layer(kind, config, values, inputs):
    x, name = inputs[0], config["name"]
    if kind == "Conv2D":
        if config["padding"] == "same":
            x = same(x, config["kernel_size"], config["strides"], 0.0)
        return F.conv2d(x, values[name + "/kernel"].permute(3, 2, 0, 1), stride=config["strides"], dilation=config["dilation_rate"])
    if kind == "BatchNormalization":
        mean, variance, beta = (values[f"{name}/{what}"][:, None, None] for what in ("moving_mean", "moving_variance", "beta"))
        return (x - mean) / torch.sqrt(variance + config["epsilon"]) + beta
    if kind == "Activation":
        return {"relu": torch.relu}[config["activation"]](x)
    if kind == "Concatenate":
        return torch.cat(inputs, 1)
    pool, stride = config["pool_size"], config["strides"]
    if kind == "MaxPooling2D":
        return F.max_pool2d(x if config["padding"] == "valid" else same(x, pool, stride, -numpy.inf), pool, stride)
    if kind == "AveragePooling2D":
        ones = torch.ones_like(x)
        if config["padding"] == "same":
            x, ones = same(x, pool, stride, 0.0), same(ones, pool, stride, 0.0)
        return F.avg_pool2d(x, pool, stride) / F.avg_pool2d(ones, pool, stride)
    raise ValueError(kind)


def mixed7(image):
    """(299, 299, 3) in [0, 1] -> (768)."""
    layers, values = load()
    results = {layers[0]["name"]: torch.from_numpy(image).permute(2, 0, 1)[None]}
    for each in layers[1:]:
        inputs = [results[name] for name, *_ in each["inbound_nodes"][0]]
        results[each["name"]] = layer(each["class_name"], each["config"], values, inputs)
        if each["name"] == "mixed7":
            return results["mixed7"].mean((0, 2, 3))
    raise ValueError("no mixed7")
