/** What a CUDA device did while a function ran. */
import { engine } from './call.js';

/** A kernel, or a kind of copy or fill. */
export interface KernelTime {
  /** As it was compiled: `dsd_swiglu`, `void at::native::...`, `Memcpy HtoD (Pageable -> Device)`. */
  readonly name: string;
  readonly calls: number;
  /** Of all its calls. */
  readonly microseconds: number;
}

export interface Profile {
  /** The longest first. */
  readonly kernels: readonly KernelTime[];
  /** Microseconds in which the device was at work; less than the kernels' sum where some ran side by side. */
  readonly busy: number;
}

/**
 * Runs `fn` and waits for the device. Launches take longer than without, kernels do not: it is the times of these that are to be trusted.
 * @throws Error without a CUDA device, or a libtorch that has a profiler of it; and what `fn` throws
 */
export function profile(fn: () => void): Profile {
  engine().profileBegin();
  let found: ReturnType<ReturnType<typeof engine>['profileEnd']> | undefined;
  try {
    fn();
  } finally {
    found = engine().profileEnd();
  }
  const [names, calls, microseconds, busy] = found;
  const kernels = names.map((name, i) => ({ name, calls: calls[i] ?? 0, microseconds: microseconds[i] ?? 0 }));
  return { kernels: kernels.sort((a, b) => b.microseconds - a.microseconds), busy };
}
