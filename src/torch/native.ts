/** Loads the addon on first use, and says what to do when it cannot be loaded. */
import { existsSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { FailureError } from '../core/errors.js';
import { packageRoot } from '../io/package.js';

/** A live tensor in the addon's table: a number that no arithmetic makes by chance. */
export type Handle = number;

/** What an argument of an operator may be. `undefined` takes the default of the operator's schema. */
export type Value = Handle | bigint | boolean | string | null | undefined | readonly Value[];

/** What an operator returns: a handle, a number, null for a tensor that is not there, or an array of these. */
export type Result = Handle | bigint | boolean | string | null | undefined | Result[];

export type TypedArray = Float32Array | Float64Array | BigInt64Array | Int32Array | Int16Array | Int8Array | Uint8Array;

/** The addon's exports (native/). Tensors are handles, dtypes libtorch's codes. */
export interface Native {
  resolve(operator: string): number;
  has(operator: string): boolean;
  schema(operator: string): string | undefined;
  call(operator: number, ...args: Value[]): Result;
  timeCall(times: number, operator: number, ...args: Value[]): number;
  onMemory(reclaim: () => void): void;
  fromData(data: TypedArray, shape: readonly number[], dtype: number, device: string, requiresGrad: boolean): Handle;
  toData(self: Handle): TypedArray;
  upload(self: Handle, data: TypedArray): void;
  shape(self: Handle): number[];
  strides(self: Handle): number[];
  dtype(self: Handle): number;
  device(self: Handle): string;
  dispose(handle: Handle): boolean;
  alive(handle: Handle): boolean;
  keep(handle: Handle): void;
  live(): number;
  beginScope(): void;
  endScope(keep: readonly Handle[], depth: number): void;
  adopt(handle: Handle, object: object): boolean;
  sweep(): void;
  backward(outputs: readonly Handle[], gradients: readonly (Handle | null)[] | null, retainGraph: boolean): void;
  grad(
    outputs: readonly Handle[],
    inputs: readonly Handle[],
    gradients: readonly (Handle | null)[] | null,
    retainGraph: boolean,
    createGraph: boolean,
    allowUnused: boolean,
  ): (Handle | null)[];
  gradMode(on?: boolean): boolean;
  gradient(self: Handle): Handle | null;
  gradients(tensors: readonly Handle[]): (Handle | null)[];
  clearGradients(tensors: readonly Handle[]): void;
  requiresGrad(self: Handle): boolean;
  isLeaf(self: Handle): boolean;
  cudaCount(): number;
  cudaNames(): string[];
  synchronize(): void;
  memory(resetPeak?: boolean): [current: number, peak: number, reserved: number, external: number];
  emptyCache(): void;
  graphBegin(device: string): void;
  graphEnd(keep: boolean): number | undefined;
  graphReplay(graph: number): void;
  graphFree(graph: number): void;
  markWork(device: string): void;
  workAhead(most: number): number;
  threads(count?: number): number;
  deterministic(on?: boolean): boolean;
  profileBegin(): void;
  profileEnd(): [names: string[], calls: number[], microseconds: number[], busy: number];
  engine(): [compiled: string, found: string, cuda: boolean, torch: string, blas: string, description: string, problem: string];
}

let loaded: Native | undefined;

/**
 * The addon.
 * @throws FailureError when it was never built, was built for another libtorch, or libtorch is gone; the message says what to run.
 */
export function native(): Native {
  loaded ??= load(join(packageRoot(), 'build', 'dsd_native.node'));
  return loaded;
}

/** The path of the engine in this thread, for whatever copy of this file asks. */
const LOADED = Symbol.for('dsd.engine');

/** Loads the addon at a path; `native()` is what to use. Exported for the tests of its errors. */
export function load(path: string): Native {
  if (!existsSync(path)) throw new FailureError(`the engine has not been built (${path} does not exist): run 'npm run setup'`);
  // Its operators are registered for the whole process: from a second copy, libtorch would end it.
  const shared = globalThis as { [LOADED]?: string };
  const real = realpathSync(path);
  if (shared[LOADED] !== undefined && shared[LOADED] !== real)
    throw new FailureError(
      `the engine could not be loaded: another copy of it is at work in this process (${shared[LOADED]}, not ${real})`,
    );
  // OpenMP's threads wait for each other by spinning, 300 times as long by default: beside another busy program that made a step four times as
  // slow, with this three; alone it costs nothing. Read by OpenMP when it is loaded.
  if (process.env.OMP_WAIT_POLICY === undefined) process.env.GOMP_SPINCOUNT ??= '1000';
  let addon: Native;
  try {
    addon = createRequire(import.meta.url)(path) as Native;
    shared[LOADED] = real;
  } catch (cause) {
    throw new FailureError(`the engine could not be loaded: ${explain(cause)}`, { cause });
  }
  const [compiled, found] = addon.engine();
  if (found && minor(compiled) !== minor(found))
    throw new FailureError(`the engine was built for libtorch ${compiled}, but ${found} was found: run 'npm run setup' to build it again`);
  // Debian's libtorch starts with one thread. A worker shares the cores with the main thread and keeps the one.
  if (isMainThread && !process.env.OMP_NUM_THREADS) addon.threads(availableParallelism());
  return addon;
}

const minor = (version: string): string => version.split('.', 2).join('.');

function explain(cause: unknown): string {
  const message = cause instanceof Error ? (cause.message.split('\n', 1)[0] as string) : String(cause);
  const library = /^(\S+): cannot open shared object file/.exec(message)?.[1];
  if (library)
    return `the library ${library} that it was built with is gone; install libtorch again or run 'npm run setup' to build for the one that is there`;
  if (/undefined symbol|version `.*' not found/.test(message))
    return `it was built for another libtorch (${message}); run 'npm run setup' to build it again`;
  return `${message}; run 'npm run setup' to build it again`;
}
