/** The machine under the engine: threads, memory, versions. */
import { readFileSync, realpathSync } from 'node:fs';
import { engine, h, isTensor } from './call.js';
import type { Device } from './dtype.js';
import type { Value } from './native.js';
import type { Tensor } from './tensor.js';

export interface EngineInfo {
  /** libtorch's. */
  readonly version: string;
  /** Names of the CUDA devices; empty without. */
  readonly cuda: readonly string[];
  readonly threads: number;
  /** File of the BLAS in use; empty if it is part of libtorch. */
  readonly blas: string;
  /** Whether the processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX). */
  readonly bf16: boolean;
  /** File of libtorch. */
  readonly path: string;
  /**
   * Why our own kernels for CUDA could not be compiled here; absent if they could, or have not been needed yet. Without them draws are made on the CPU,
   * blocks and attention go by compositions of libtorch's operators, and the optimizer, which has no other way, throws.
   */
  readonly kernelProblem?: string;
}

export function engineInfo(): EngineInfo {
  const [, version, , path, blas, , kernelProblem] = engine().engine();
  return {
    version,
    cuda: engine().cudaNames(),
    threads: engine().threads(),
    blas: realPath(blas),
    bf16: hasBf16(),
    path: realPath(path),
    ...(kernelProblem ? { kernelProblem } : {}),
  };
}

function realPath(path: string): string {
  try {
    return path && realpathSync(path);
  } catch {
    return path;
  }
}

/** Without asking libtorch: 1.13 does not know. */
function hasBf16(): boolean {
  try {
    return /\b(avx512_bf16|amx_bf16)\b/.test(readFileSync('/proc/cpuinfo', 'utf8'));
  } catch {
    return false;
  }
}

/** Threads within an operator on the CPU, from now on. At start: all cores, or OMP_NUM_THREADS. */
export function setThreads(count: number): void {
  engine().threads(count);
}

/**
 * From now on, every operator gives the same bits for the same input: on CUDA the kernels that do not are replaced, at a cost. An operator that
 * has no such kernel throws. On a CPU it is always so, for one number of threads.
 */
export function setDeterministic(on: boolean): void {
  // cuBLAS reads it when it is first used: without a workspace of its own its sums depend on what ran beside.
  if (on) process.env.CUBLAS_WORKSPACE_CONFIG ??= ':4096:8';
  engine().deterministic(on);
}

export const cudaAvailable = (): boolean => engine().cudaCount() > 0;

/** Nanoseconds that libtorch itself takes for a call of an operator (`aten::add.Tensor`), by a loop of `times` calls without JavaScript between. */
export function timeCall(operator: string, args: readonly (Tensor | readonly Tensor[] | Value)[], times: number): number {
  const values = args.map((value) =>
    isTensor(value) ? h(value) : Array.isArray(value) && value.every(isTensor) ? value.map(h) : (value as Value),
  );
  return engine().timeCall(times, engine().resolve(operator), ...values);
}

/** Waits until the CUDA device has done all it was given. */
export function synchronize(): void {
  engine().synchronize();
}

/** Puts a mark behind all the work that a CUDA device was given. Without effect on a CPU, which has done what it was given. */
export function markWork(device: Device): void {
  if (device !== 'cpu') engine().markWork(device);
}

/**
 * How many marks of this thread the devices have not come to. A program that waits for nothing gets far ahead of them: the values for the work to come
 * pile up, and whoever asks for a result waits for all of it.
 * @param most wait until there are no more
 */
export const workAhead = (most: number = Number.MAX_SAFE_INTEGER): number => engine().workAhead(most);

export interface Memory {
  /** Tensors alive in this thread. */
  readonly live: number;
  /** Bytes on the CPU that belong to tensors outside of scopes: the garbage collector is told of them. */
  readonly external: number;
  /** Bytes of tensors on the CUDA device: now, at most since the last reset, and held for reuse. */
  readonly cudaAllocated: number;
  readonly cudaPeak: number;
  readonly cudaReserved: number;
}

export function memory(options: { resetPeak?: boolean } = {}): Memory {
  const [cudaAllocated, cudaPeak, cudaReserved, external] = engine().memory(options.resetPeak ?? false);
  return { live: engine().live(), external, cudaAllocated, cudaPeak, cudaReserved };
}

/** Gives the device back what is held for reuse; what a captured graph holds stays. Without a device, nothing. */
export const emptyCache = (): void => engine().emptyCache();

/** Whether an error says that memory ran out (of the machine or the device). */
export const isOutOfMemory = (error: unknown): boolean =>
  error instanceof Error && (error as { code?: unknown }).code === 'ERR_TORCH_MEMORY';
