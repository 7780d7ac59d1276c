/** How fast the engine is here: of `dsd doctor`, in two seconds, and the parts of `dsd bench`. */
import type { Batch } from '../data/loader.js';
import { type Device, type DType, type EngineInfo, full, noGrad, scope, synchronize, type Tensor } from '../torch/index.js';

export interface Speed {
  readonly device: Device;
  /** GFLOP/s of square matrix products, the best of several: other programs only slow one down. */
  readonly float32: number;
  readonly bfloat16: number;
  /** Microseconds from JavaScript to an operator on one number and back. */
  readonly call: number;
}

const MILLISECONDS = 400;

export function measureSpeed({ cuda }: EngineInfo): Speed {
  const device: Device = cuda.length > 0 ? 'cuda' : 'cpu';
  return noGrad(() =>
    scope(() => {
      const x = full([1], 1, { device });
      return { device, float32: product('float32', device), bfloat16: product('bfloat16', device), call: callTime(() => x.add(x)) / 1000 };
    }),
  );
}

/** GFLOP/s of a square matrix product. */
export function product(dtype: DType, device: Device = 'cpu'): number {
  const n = device === 'cpu' ? 1024 : 8192;
  return scope(() => {
    const a = full([n, n], 0.5, { device, dtype });
    const once = (): number => {
      const begun = performance.now();
      a.matmul(a).dispose();
      wait(device);
      return performance.now() - begun;
    };
    once(); // threads start, kernels are chosen
    let [best, spent] = [Number.POSITIVE_INFINITY, 0];
    while (spent < MILLISECONDS) {
      const took = once();
      best = Math.min(best, took);
      spent += took;
    }
    return (2 * n ** 3) / best / 1e6;
  });
}

const wait = (device: Device): void => (device === 'cpu' ? undefined : synchronize());

/** Nanoseconds of a call from JavaScript, what it makes freed again: the best of 20 rounds. */
export function callTime(call: () => Tensor): number {
  const COUNT = 1000;
  const round = (): number => {
    const begun = performance.now();
    scope(() => {
      for (let i = 0; i < COUNT; i++) call();
    });
    synchronize();
    return ((performance.now() - begun) * 1e6) / COUNT;
  };
  return Math.min(...Array.from({ length: 20 }, round));
}

export type Range = readonly [smallest: number, largest: number];

/** @param values at least one */
export const range = (values: readonly number[]): Range => [Math.min(...values), Math.max(...values)];

/** A batch to time steps on: pictures that no network can learn anything from. */
export function noisePictures(batch: number, size: number, classes: number, channels: 1 | 3 = 3): Omit<Batch, 'firstImage'> {
  const images = new Uint8Array(batch * size * size * channels);
  for (let i = 0; i < images.length; i++) images[i] = Math.imul(i, 2654435761) >>> 16;
  return {
    images,
    labels: Int32Array.from({ length: batch }, (_, i) => i % classes),
    indices: Uint32Array.from({ length: batch }, (_, i) => i),
    waitedMs: 0,
  };
}
