"""Cases for every operator of src/torch, answered by Python's PyTorch: writes test/fixtures/oracle/operators.json.

    python3 test/oracle/operators.py

Needs PyTorch 1.13 or newer (Debian: python3-torch); the committed answers are those of 1.13. The cases are in operator_cases.py,
operator_shapes.py and operator_layers.py, what each means in operator_reference.py: a function of the TypeScript signature for each
method ("Tensor.sum") and function ("conv2d"). test/torch/operators.test.ts runs them and fails if an operator has no case.

A case, one a line:
    of        the method or function
    in        input tensors: d dtype, s shape, v values (row-major), view: changes of the layout made after that,
              ["permute", order], ["slice", dim, start, end, step] or ["expand", shape]
    args      arguments, for a method without the tensor itself (it is in[0], or `self`). {"$t": n} is in[n], {"$i": "5"} a
              bigint, {"$u": 1} undefined, {"$n": "nan"} a number JSON lacks, {"$a": kind, "v": values} a typed array,
              {"$bad": kind} something that cannot be right
    out       expected tensors: d, s, v; {"$v": value} for a value that is not a tensor
    after     {n: values} of inputs that the call changed
    track     1: inputs of float32 and float64 require gradients; then `grads` holds for each input the gradient of
              sum(out * w), w counting through ((37 i + 5 j) mod 11 - 5) / 4 for element i of output j, or null
    tracked   which outputs require gradients
    refused   1: must throw. Every refusal that Python can be asked about was refused by it too
    loose     tolerance in place of 1e-12 (float64) and 1e-6 (float32)
    options   "shape": values are not compared; "abs": compared without sign; "order": the gradient counts output 0 only
"""
import json
import math
import os
import sys
import warnings
import zlib

sys.dont_write_bytecode = True

import numpy
import torch

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "oracle", "operators.json")

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16, "int64": torch.int64,
          "int32": torch.int32, "int16": torch.int16, "int8": torch.int8, "uint8": torch.uint8, "bool": torch.bool}
NAMES = {v: k for k, v in DTYPES.items()}
TYPED = {"Float32Array": "float32", "Float64Array": "float64", "BigInt64Array": "int64", "Int32Array": "int32", "Int16Array": "int16",
         "Int8Array": "int8", "Uint8Array": "uint8"}


class Undefined:
    pass


class Big(int):
    """A bigint: an integer Scalar, where a plain number is a double."""


class Bad:
    """What cannot be right: 'object' {}, 'disposed' a freed tensor, 'string', 'function', 'fraction' 1.5, 'huge' 2^60."""

    def __init__(self, kind):
        self.kind = kind


class Typed:
    """A typed array as an argument."""

    def __init__(self, kind, values):
        self.kind, self.values = kind, values


U = Undefined()


class Spec:
    """An input tensor."""

    def __init__(self, dtype, shape, values, view=()):
        self.dtype, self.shape, self.values, self.view = dtype, tuple(shape), values, list(view)

    def then(self, *step):
        return Spec(self.dtype, self.shape, self.values, self.view + [list(step)])

    def tensor(self):
        x = torch.tensor(self.values, dtype=DTYPES[self.dtype]).reshape(self.shape)
        for name, *arguments in self.view:
            if name == "permute":
                x = x.permute(arguments[0])
            elif name == "expand":
                x = x.expand(arguments[0])
            else:
                dim, start, end, step = arguments
                x = x[(slice(None),) * dim + (slice(start, end, step),)]
        return x

    def json(self):
        out = {"d": self.dtype, "s": self.shape, "v": [number(v) for v in self.values]}
        return {**out, "view": self.view} if self.view else out


def number(value):
    if isinstance(value, float):
        if not math.isfinite(value):
            return {"$n": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
        return int(value) if value == int(value) and abs(value) < 2 ** 53 and not (value == 0 and math.copysign(1, value) < 0) else value
    if isinstance(value, bool):
        return int(value)
    return {"$i": str(value)} if abs(value) > 2 ** 53 else value


def values_of(x):
    x = x.detach().contiguous()
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()
    if x.dtype == torch.float32:
        return [number(float(str(v))) for v in x.numpy().reshape(-1)]      # the shortest text that is this float32
    return [number(v) for v in x.reshape(-1).tolist()]


def tensor_json(x):
    return {"d": NAMES[x.dtype], "s": list(x.shape), "v": values_of(x)}


class Cases:
    """Collects the cases of one method or function. `ok` and `no` take the tensor itself first, for a method."""
    lines, counts, wrong = [], {}, []

    def __init__(self, of, reference):
        self.of, self.reference = of, reference
        self.random = numpy.random.Generator(numpy.random.PCG64(zlib.crc32(of.encode())))
        Cases.counts.setdefault(of, [0, 0])

    # Inputs: values of three decimals, so that the file stays small and equal in float32.

    def f(self, *shape, dtype="float64", low=None, high=None):
        size = int(numpy.prod(shape))
        draws = self.random.standard_normal(size) if low is None else self.random.uniform(low, high, size)
        return Spec(dtype, shape, [round(float(v), 3) for v in draws])

    def f32(self, *shape, **options):
        return self.f(*shape, dtype="float32", **options)

    def positive(self, *shape, dtype="float64"):
        return self.f(*shape, dtype=dtype, low=0.2, high=3.0)

    def i(self, *shape, high=5, low=0, dtype="int64"):
        return Spec(dtype, shape, [int(v) for v in self.random.integers(low, high, int(numpy.prod(shape)))])

    def b(self, *shape):
        return Spec("bool", shape, [int(v) for v in self.random.integers(0, 2, int(numpy.prod(shape)))])

    def distinct(self, *shape, dtype="float64"):
        """No two values equal: for what orders them."""
        size = int(numpy.prod(shape))
        return Spec(dtype, shape, [round((int(v) - size / 2) / 8, 3) for v in self.random.permutation(size)])

    def strided(self, *shape, dtype="float64", **options):
        """Of this shape, but neither contiguous nor densely packed."""
        if len(shape) == 1:
            return self.f(shape[0] * 2, dtype=dtype, **options).then("slice", 0, 0, shape[0] * 2, 2)
        base = self.f(*shape[::-1][:-1], shape[0] + 1, dtype=dtype, **options)
        return base.then("slice", len(shape) - 1, 1, shape[0] + 1, 1).then("permute", list(range(len(shape)))[::-1])

    # Cases.

    def parse(self, arguments):
        """Arguments for Python, arguments as JSON, the inputs in order."""
        specs, tensors = [], []

        def python(value):
            if isinstance(value, Spec):
                specs.append(value)
                tensors.append(value.tensor().detach())
                return tensors[-1]
            if isinstance(value, list):
                return [python(v) for v in value]
            if isinstance(value, dict):
                return {k: python(v) for k, v in value.items()}
            if isinstance(value, Typed):
                return numpy.array(value.values, dtype=TYPED[value.kind])
            return None if isinstance(value, Undefined) else value

        given = [python(a) for a in arguments]
        order = iter(range(len(specs)))

        def js(value):
            if isinstance(value, Spec):
                return {"$t": next(order)}
            if isinstance(value, list):
                return [js(v) for v in value]
            if isinstance(value, dict):
                return {k: js(v) for k, v in value.items()}
            if isinstance(value, Undefined):
                return {"$u": 1}
            if isinstance(value, Bad):
                return {"$bad": value.kind}
            if isinstance(value, Big):
                return {"$i": str(int(value))}
            if isinstance(value, Typed):
                return {"$a": value.kind, "v": [number(v) for v in value.values]}
            return value if isinstance(value, (bool, str, type(None))) else number(value)

        return given, [js(a) for a in arguments], specs, tensors

    @property
    def method(self):
        return self.of.startswith("Tensor.")

    def ok(self, *arguments, track=True, loose=None, options=()):
        given, js, specs, tensors = self.parse(arguments)
        floating = [x.dtype in (torch.float32, torch.float64) for x in tensors]
        track = track and any(floating)
        before = [x.clone() for x in tensors]
        for x, grads in zip(tensors, floating):
            if track and grads:
                x.requires_grad_()
        changed = self.method and self.of.endswith("_") and self.of != "Tensor.requiresGrad_"
        if changed:
            given[0] = given[0].clone()      # a leaf that requires a gradient may not be changed in place; both sides clone
        result = self.reference(*given)
        outputs = list(result) if isinstance(result, (list, tuple)) else [] if result is None else [result]
        case = {"of": self.of, "in": [s.json() for s in specs], "args": js[1:] if self.method else js}
        if self.method and (not js or not isinstance(js[0], dict) or "$t" not in js[0]):
            raise ValueError(f"{self.of}: the first argument of a method is its tensor")
        case["out"] = [tensor_json(x) if isinstance(x, torch.Tensor) else {"$v": js_value(x)} for x in outputs]
        if "shape" in options:
            for x in case["out"]:
                x["v"] = []
        after = {str(n): values_of(x) for n,
                 x in enumerate(tensors) if not torch.equal(x.detach(), before[n]) and not torch.isnan(x.detach()).any()}
        if after:
            case["after"] = after
        if track:
            case["track"] = 1
            case["tracked"] = [isinstance(x, torch.Tensor) and x.requires_grad for x in outputs]
            counted = outputs[:1] if "order" in options else outputs
            total = sum((x * weights(x, j)).sum() for j, x in enumerate(counted) if isinstance(x, torch.Tensor) and x.requires_grad)
            if isinstance(total, torch.Tensor):
                wanted = [n for n, grads in enumerate(floating) if grads]
                found = dict(zip(wanted, torch.autograd.grad(total, [tensors[n] for n in wanted], allow_unused=True)))
                case["grads"] = [None if found.get(n) is None else values_of(found[n]) for n in range(len(tensors))]
        if loose:
            case["loose"] = loose
        if options:
            case["options"] = list(options)
        self.add(case, 0)

    def no(self, *arguments, ask=True):
        """Must be refused. `ask`: Python is asked too (not where the argument is wrong in a way that only JavaScript knows)."""
        given, js, specs, tensors = self.parse(arguments)
        ask = ask and not any(isinstance(a, Bad) for a in flat(arguments))
        if ask:
            try:
                self.reference(*given)
            except Exception:
                pass
            else:
                Cases.wrong.append(f"{self.of}: Python does not refuse {js}")
        self.add({"of": self.of, "in": [s.json() for s in specs], "args": js[1:] if self.method else js,
                  **({"self": js[0]} if self.method and "$bad" in js[0] else {}), "refused": 1}, 1)

    def add(self, case, kind):
        Cases.counts[self.of][kind] += 1
        Cases.lines.append(json.dumps(case, separators=(",", ":"), allow_nan=False))


def flat(value):
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in flat(v)]
    return [leaf for v in value.values() for leaf in flat(v)] if isinstance(value, dict) else [value]


def js_value(value):
    if isinstance(value, numpy.ndarray):
        kind = next(kind for kind, dtype in TYPED.items() if dtype == str(value.dtype))
        return {"$a": kind, "v": [number(v) for v in value.reshape(-1).tolist()]}
    return value if isinstance(value, bool) else number(value)


def weights(x, output):
    return ((torch.arange(x.numel()) * 37 + output * 5) % 11 - 5).to(x.dtype).reshape(x.shape) / 4


def main():
    import operator_cases
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    operator_cases.write_all()
    if Cases.wrong:
        sys.exit("\n".join(Cases.wrong))
    with open(OUT, "w") as file:
        file.write("[\n" + ",\n".join(Cases.lines) + "\n]\n")
    answered, refused = (sum(c[kind] for c in Cases.counts.values()) for kind in (0, 1))
    print(f"{len(Cases.counts)} operators, {answered} answers, {refused} refusals, {os.path.getsize(OUT):,} bytes")


if __name__ == "__main__":
    sys.modules["operators"] = sys.modules["__main__"]
    main()
