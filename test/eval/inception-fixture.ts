/** What test/oracle/inception.py and the tests share: pictures, the rule that makes weights, and the results. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Conv, convolutions } from '../../src/eval/inception.js';
import { readSafetensors, type SafeTensor } from '../../src/io/safetensors.js';

/** The compiled tests run from dist/test/eval; fixtures stay where they are. */
export const FOLDER = join(import.meta.dirname, '..', '..', '..', 'test', 'fixtures', 'inception');

export function fixture(name: string): Map<string, Float32Array> {
  const { tensors } = readSafetensors(join(FOLDER, `${name}.safetensors`));
  return new Map([...tensors].map(([key, { data }]) => [key, new Float32Array(data.buffer as ArrayBuffer)]));
}

/** By picture: what TensorFlow.js computes. */
export const tensorflow = (): Record<string, number[]> => JSON.parse(readFileSync(join(FOLDER, 'tfjs.json'), 'utf8'));

/** |a - b| / |b|. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return a.length === b.length ? Math.sqrt(difference / norm) : Number.NaN;
}

/** (height, width, 3) uint8: slopes, edges and a moire. */
export function picture(i: number, height: number, width: number): Uint8Array {
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) pixels[(y * width + x) * 3 + c] = (x * (3 + i) + y * 5 + c * 40 + ((x * y) >> (1 + i))) % 256;
  return pixels;
}

/** Uniform in [low, high), by an integer hash of each place and the name. */
function uniform(name: string, count: number, low: number, high: number): Float32Array {
  let seed = 2166136261;
  for (const byte of new TextEncoder().encode(name)) seed = Math.imul(seed ^ byte, 16777619);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let x = i ^ seed;
    x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
    x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
    values[i] = low + (high - low) * (((x ^ (x >>> 16)) >>> 0) / 2 ** 32);
  }
  return values;
}

const named = {
  graph: ({ name }: Conv) => ['weight', 'beta', 'mean', 'var'].map((part) => `layers.${name}.${part}`),
  torchvision: ({ torchvision }: Conv) =>
    ['conv.weight', 'bn.bias', 'bn.running_mean', 'bn.running_var'].map((part) => `${torchvision}.${part}`),
};

/** All tensors of an Inception of 2015 with made weights, under the names of the graph or of torchvision. */
export function madeInception(naming: 'graph' | 'torchvision'): Map<string, SafeTensor> {
  const tensors = new Map<string, SafeTensor>();
  const put = (name: string, shape: number[], values: Float32Array): void => {
    tensors.set(name, { dtype: 'F32', shape, data: new Uint8Array(values.buffer) });
  };
  for (const conv of convolutions()) {
    const { name, into, out, kernel } = conv;
    const [weight, beta, mean, variance] = named[naming](conv) as [string, string, string, string];
    const fan = into * kernel[0] * kernel[1];
    const bound = Math.sqrt(6 / fan);
    put(weight, [out, into, ...kernel], uniform(`${name}.weight`, out * fan, -bound, bound));
    put(beta, [out], uniform(`${name}.beta`, out, -0.1, 0.2));
    put(mean, [out], uniform(`${name}.mean`, out, -0.3, 0.3));
    put(variance, [out], uniform(`${name}.var`, out, 0.5, 1.5));
    if (naming === 'torchvision') {
      put(`${conv.torchvision}.bn.weight`, [out], new Float32Array(out).fill(1));
      tensors.set(`${conv.torchvision}.bn.num_batches_tracked`, { dtype: 'I64', shape: [], data: new Uint8Array(8) });
    }
  }
  const last = naming === 'graph' ? 'output' : 'fc';
  const bound = Math.sqrt(3 / 2048);
  put(`${last}.weight`, [1008, 2048], uniform('output.weight', 1008 * 2048, -bound, bound));
  put(`${last}.bias`, [1008], uniform('output.bias', 1008, -1, 1));
  return tensors;
}
