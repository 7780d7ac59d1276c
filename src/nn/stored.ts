/** Tensors as safetensors files have them. */
import { FailureError } from '../core/errors.js';
import { readSafetensors, type SafeTensor } from '../io/safetensors.js';
import { type Device, type Tensor, tensor } from '../torch/index.js';
import { Weights } from './weights.js';

/** A float32 tensor's bytes, copied from wherever it is. @throws FailureError for another type: only float32 is trained */
export function toFile(value: Tensor): SafeTensor {
  if (value.dtype !== 'float32') throw new FailureError(`a tensor to be written is ${value.dtype}, and only float32 is`);
  const data = value.toArray() as Float32Array;
  return { dtype: 'F32', shape: value.shape, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}

/** @param found of dtype F32 */
export function toTensor(found: SafeTensor, device: Device): Tensor {
  return tensor(new Float32Array(found.data.buffer, found.data.byteOffset, found.data.byteLength / 4), [...found.shape], { device });
}

/** Any safetensors file of float32 tensors as weights, such as those of a perceptual network. @throws SafetensorsError, FailureError, DiskError */
export function loadTensors(path: string, device: Device): Weights {
  const out = new Map<string, Tensor>();
  for (const [name, found] of readSafetensors(path).tensors) {
    if (found.dtype !== 'F32') throw new FailureError(`'${path}': tensor '${name}' is ${found.dtype}, wanted F32`);
    out.set(name, toTensor(found, device));
  }
  return new Weights(out);
}
