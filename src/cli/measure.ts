/** How fast the engine is here, in two seconds: enough to tell a fast BLAS from a slow one, no benchmark. */
import { type Device, type EngineInfo, full, noGrad, scope, synchronize, type Tensor } from '../torch/index.js';

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
  const wait = device === 'cpu' ? () => {} : synchronize;
  return noGrad(() =>
    scope(() => ({
      device,
      float32: product(full([side(device), side(device)], 0.5, { device }), wait),
      bfloat16: product(full([side(device), side(device)], 0.5, { device, dtype: 'bfloat16' }), wait),
      call: calls(full([1], 1, { device }), wait),
    })),
  );
}

const side = (device: Device): number => (device === 'cpu' ? 1024 : 8192);

function product(a: Tensor, wait: () => void): number {
  const n = a.size(0);
  const once = (): number => {
    const begun = performance.now();
    a.matmul(a).dispose();
    wait();
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
}

function calls(x: Tensor, wait: () => void): number {
  const COUNT = 1000;
  const round = (): number => {
    const begun = performance.now();
    scope(() => {
      for (let i = 0; i < COUNT; i++) x.add(x);
    });
    wait();
    return ((performance.now() - begun) * 1000) / COUNT;
  };
  return Math.min(...Array.from({ length: 20 }, round));
}
