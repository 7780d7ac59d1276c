/** Where and in what precision a command computes: flags, defaults, and what to say when the machine has no such thing. */
import { dirname, join } from 'node:path';
import { FailureError, UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import { type Device, type DType, type EngineInfo, engineInfo, isOutOfMemory, setThreads } from '../torch/index.js';
import type { Flags } from './args.js';
import { counted } from './text.js';

export const ENGINE = {
  device: { kind: 'text', value: 'cpu|cuda|cuda:N', about: 'where to compute; by default a GPU if there is one, else the CPU' },
  dtype: {
    kind: 'choice',
    of: ['auto', 'float32', 'bfloat16'],
    about: 'what token-wise layers compute in; auto: bfloat16 where the hardware multiplies it',
  },
  threads: { kind: 'whole', value: 'N', min: 1, max: 1024, about: 'CPU threads; by default one a core, or OMP_NUM_THREADS' },
} as const satisfies Flags;

export interface EngineFlags {
  readonly device: string | undefined;
  readonly dtype: 'auto' | 'float32' | 'bfloat16' | undefined;
  readonly threads: number | undefined;
}

export interface Engine {
  readonly device: Device;
  readonly compute: DType;
  /** 'cpu, 2 threads, bfloat16 (libtorch 1.13.1)'. */
  readonly about: string;
}

/**
 * Loads the engine and settles device, precision and threads.
 * @throws UsageError for a device that is not there, FailureError when the engine cannot be loaded
 */
export function openEngine(flags: EngineFlags): Engine {
  checkDeviceName(flags.device);
  if (flags.threads !== undefined) setThreads(flags.threads);
  const info = engineInfo();
  const device = chooseDevice(flags.device, info);
  const wanted = flags.dtype ?? 'auto';
  const compute = wanted === 'auto' ? (device !== 'cpu' || info.bf16 ? 'bfloat16' : 'float32') : wanted;
  const name = device === 'cpu' ? `cpu, ${counted(info.threads, 'thread')}` : `${device} (${info.cuda[Number(device.split(':')[1] ?? 0)]})`;
  return { device, compute, about: `${name}, ${compute} (libtorch ${info.version})` };
}

/** Before the engine is loaded: a slip of the pen needs no engine to be seen. */
function checkDeviceName(name: string | undefined): void {
  if (name !== undefined && !/^(cpu|cuda(:\d{1,3})?)$/.test(name)) throw new UsageError(`--device is cpu, cuda or cuda:N; found '${name}'`);
}

/** @throws UsageError for a GPU that is not there, saying what was found */
export function chooseDevice(name: string | undefined, info: EngineInfo): Device {
  if (name === undefined) return info.cuda.length > 0 ? 'cuda' : 'cpu';
  if (name === 'cpu') return 'cpu';
  const index = Number(name.split(':')[1] ?? 0);
  if (index < info.cuda.length) return name as Device;
  if (info.cuda.length > 0)
    throw new UsageError(
      `--device ${name}: there is no GPU of this number. Found: ${info.cuda.map((gpu, i) => `cuda:${i} ${gpu}`).join(', ')}`,
    );
  const built = disk.exists(join(dirname(info.path), 'libtorch_cuda.so'));
  const found = built
    ? `libtorch ${info.version} can use CUDA, but no GPU or driver was found (does \`nvidia-smi\` list one?)`
    : `libtorch ${info.version} at ${info.path} is built for the CPU only. With a CUDA build of PyTorch: set LIBTORCH to its folder and run 'npm run setup'`;
  throw new UsageError(`--device ${name}: ${found}. To go on without a GPU: --device cpu`);
}

/** Does what handles `batch` pictures at a time; when memory runs out, says what to lower. @throws FailureError then, and what `work` throws */
export async function inBatches<T>(batch: number, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!isOutOfMemory(cause)) throw cause;
    const remedy = batch > 1 ? `try --batch ${Math.floor(batch / 2)}` : 'try a smaller model, or --device cpu where there is more memory';
    throw new FailureError(`out of memory with ${counted(batch, 'picture')} at a time: ${remedy}`, { cause });
  }
}
