/** Reads the oracle's fixtures as tensors. */
import { join } from 'node:path';
import { readSafetensors, type SafeTensor } from '../../src/io/safetensors.js';
import { type Tensor, tensor } from '../../src/torch/index.js';

/** The compiled tests run from dist/test/eval; fixtures stay where they are. */
const FOLDER = join(import.meta.dirname, '..', '..', '..', 'test', 'fixtures', 'oracle');

export interface Fixture {
  /** A float64 or int64 tensor; float32 weights come widened. */
  get(name: string): Tensor;
  /** A 0-d value. */
  number(name: string): number;
  readonly names: readonly string[];
}

export function fixture(name: string): Fixture {
  const { tensors } = readSafetensors(join(FOLDER, `${name}.safetensors`));
  const find = (wanted: string): SafeTensor => {
    const found = tensors.get(wanted);
    if (!found) throw new Error(`fixture ${name} has no ${wanted}`);
    return found;
  };
  const get = (wanted: string): Tensor => {
    const { dtype, shape, data } = find(wanted);
    const bytes = new Uint8Array(data).buffer; // a copy, so that it is aligned
    if (dtype === 'I64') return tensor(new BigInt64Array(bytes), [...shape], { dtype: 'int64' });
    const values = dtype === 'F32' ? Float64Array.from(new Float32Array(bytes)) : new Float64Array(bytes);
    return tensor(values, [...shape], { dtype: 'float64' });
  };
  return { get, number: (wanted) => Number(get(wanted).item()), names: [...tensors.keys()] };
}

/** |a - b| / |b| over all values. */
export function relative(a: Tensor, b: Tensor): number {
  return Number(a.sub(b).square().sum().sqrt().div(b.square().sum().sqrt()).item());
}
