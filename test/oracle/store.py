"""safetensors files with equal bytes for equal contents, and gradients in little space.

A whole gradient is 350 KB and there are over twenty of them, so most are stored as a sketch: for a parameter of
shape (r, ...) the product (r) of the gradient, as an r x c matrix, with a fixed normal vector `probe.<c>` that lies in the
same file. The expected squared norm of a sketch's error is the squared Frobenius norm of the gradient's error, so that a
comparison of sketches judges every element. A parameter of one axis is stored whole. `reach.<loss>` holds the norm of
that loss's gradient for each parameter, in the order of the metadata's `parameters` (JSON); -1 where the loss
does not depend on the parameter at all (PyTorch gives no gradient).
"""
import json
import struct

import numpy
import torch

# within a file all elements have equal size, so that data in the order of names is aligned
TYPES = {torch.float64: ("F64", "<f8"), torch.int64: ("I64", "<i8"), torch.float32: ("F32", "<f4")}


def write(path, tensors, metadata, single=False):
    """`single`: all tensors are float32 numbers and are stored so."""
    header, chunks, at = {"__metadata__": {k: metadata[k] for k in sorted(metadata)}}, [], 0
    for name in sorted(tensors):
        value = torch.as_tensor(tensors[name]).detach().contiguous()
        if value.dtype == torch.bool:
            value = value.to(torch.int64)
        if single:
            assert (value.float().double() == value).all(), name
            value = value.float()
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{path}: {name} is not finite")
        dtype, layout = TYPES[value.dtype]
        raw = value.numpy().astype(layout).tobytes()
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, at + len(raw)]}
        chunks.append(raw)
        at += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))
    return 8 + len(text) + at


def probe(columns):
    """The fixed vector for matrices of so many columns: its own seed, so that no case disturbs another."""
    return torch.from_numpy(numpy.random.Generator(numpy.random.PCG64([2, columns])).standard_normal(columns))


def sketches(prefix, gradients, full=False):
    """Tensors that stand for the gradients {name: tensor or None}; None is left out."""
    out = {}
    for name, g in gradients.items():
        if g is None:
            continue
        if full or g.ndim < 2:
            out[f"{prefix}grad.{name}"] = g
        else:
            flat = g.reshape(g.shape[0], -1)
            out[f"{prefix}sketch.{name}"] = flat @ probe(flat.shape[1])
            out[f"probe.{flat.shape[1]}"] = probe(flat.shape[1])
    return out


def reach(gradients, names):
    norms = [-1.0 if gradients[n] is None else float(gradients[n].norm()) for n in names]
    return torch.tensor(norms, dtype=torch.float64)


def gradients(value, inputs, grad_output=None):
    """{name: gradient or None} of a scalar (or of `grad_output` times a tensor) for a dict of tensors."""
    names = list(inputs)
    if not names or not value.requires_grad:
        return dict.fromkeys(names)
    found = torch.autograd.grad(value, [inputs[n] for n in names], grad_output, retain_graph=True, allow_unused=True)
    return dict(zip(names, found))
