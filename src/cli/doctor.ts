/** `dsd doctor`: what is installed, how fast it computes, and what to do about what is missing. Works without an engine: that is when it is needed. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { DsdError } from '../core/errors.js';
import { openData } from '../data/open.js';
import { type EngineInfo, kernelProblem } from '../torch/index.js';
import { defineCommand } from './command.js';
import { measureSpeed, type Speed } from './measure.js';
import { print, printJson } from './output.js';
import { packageRoot, requiredNode, version } from './self.js';
import { count, counted, figure, table, wrap } from './text.js';

/** `bad`: training cannot run. `slow`: it can, and less well than it might. */
type State = 'ok' | 'note' | 'slow' | 'bad';

interface Finding {
  readonly what: string;
  readonly state: State;
  readonly found: string;
  /** What to do. */
  readonly remedy?: string;
}

/** GFLOP/s a thread below which a BLAS is not worth the name: the reference BLAS has 7, OpenBLAS 30 to 100. */
const SLOW_BLAS = 15;
/** Microseconds a call; 1 to 3 are usual on a CPU, under 10 with a GPU. */
const SLOW_CALL = 20;

export const doctor = defineCommand({
  name: 'doctor',
  about: 'Checks what training needs and measures, in two seconds, how fast this machine computes. Exits 0 if training can run, 1 if not.',
  operands: { names: '', min: 0, max: 0 },
  flags: { json: { kind: 'switch', about: 'print the findings as JSON' } },
  examples: [['dsd doctor', '']],
  run: async ({ json }) => {
    const findings: Finding[] = [checkNode(), checkProcessor()];
    const engine = await openEngineInfo();
    let speed: Speed | undefined;
    if (engine instanceof DsdError) {
      findings.push({
        what: 'engine',
        state: 'bad',
        found: engine.message,
        remedy: "'npm run setup' in the project's folder finds or installs libtorch and builds the engine",
      });
    } else {
      speed = measureSpeed(engine);
      findings.push(
        ...checkEngine(engine),
        ...(engine.cuda.length > 0 ? [checkKernels(kernelProblem('cuda'))] : []),
        ...checkSpeed(engine, speed),
      );
    }
    findings.push(await checkSharp(), checkOpenmoji(), await checkFashionMnist());
    const ready = findings.every(({ state }) => state !== 'bad');
    process.exitCode = ready ? 0 : 1;
    const info = engine instanceof DsdError ? undefined : engine;
    if (json) printJson({ ready, version: version(), findings, engine: info, speed });
    else show(findings, verdict(ready, info));
  },
});

function show(findings: readonly Finding[], last: string): void {
  const columns = Math.max(40, Math.min(process.stdout.columns ?? 100, 110));
  const names = table(findings.map(({ state, what }) => [state, what]));
  const left = Math.max(...findings.map(({ what }) => what.length)) + 8;
  for (const [i, { found, remedy }] of findings.entries()) {
    const text = [...wrap(found, columns - left), ...(remedy ? wrap(`-> ${remedy}`, columns - left) : [])];
    print(...text.map((line, row) => `${(row === 0 ? (names[i] as string) : '').padEnd(left)}${line}`));
  }
  print('', last);
}

function verdict(ready: boolean, info: EngineInfo | undefined): string {
  if (!ready || !info) return 'Training cannot run here yet: see the lines marked bad.';
  const where = info.cuda.length > 0 ? `on ${info.cuda[0]} in bfloat16` : `on the CPU in ${info.bf16 ? 'bfloat16' : 'float32'}`;
  return `Training can run here, ${where}.`;
}

function checkNode(): Finding {
  const needed = requiredNode();
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const good = major > needed[0] || (major === needed[0] && minor >= needed[1]);
  const found = `${process.versions.node} on ${process.platform} ${process.arch}`;
  return good
    ? { what: 'Node', state: 'ok', found }
    : { what: 'Node', state: 'bad', found, remedy: `install Node ${needed.join('.')} or newer` };
}

function checkProcessor(): Finding {
  const model = cpus()[0]?.model.trim() ?? 'unknown';
  return {
    what: 'processor',
    state: 'ok',
    found: `${model}, ${counted(availableParallelism(), 'core')}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB of memory`,
  };
}

/** What the engine is, or why there is none. */
async function openEngineInfo(): Promise<EngineInfo | DsdError> {
  try {
    return (await import('../torch/index.js')).engineInfo();
  } catch (error) {
    if (error instanceof DsdError) return error;
    throw error;
  }
}

function checkEngine({ version, path, threads, blas, bf16, cuda }: EngineInfo): Finding[] {
  return [
    { what: 'libtorch', state: 'ok', found: `${version} at ${path}` },
    checkBlas(blas),
    threads < availableParallelism()
      ? {
          what: 'threads',
          state: 'slow',
          found: `${threads} of ${availableParallelism()} cores`,
          remedy: 'OMP_NUM_THREADS keeps them down: unset it',
        }
      : { what: 'threads', state: 'ok', found: String(threads) },
    {
      what: 'bfloat16',
      state: bf16 || cuda.length > 0 ? 'ok' : 'note',
      found: bf16 ? 'the processor multiplies it' : `the processor does not multiply it: float32 is used on the CPU`,
    },
    checkGpu(cuda, path),
  ];
}

/** Which BLAS is behind the CPU's matrix products, by the name of its file. */
export function checkBlas(path: string): Finding {
  const remedy =
    'install libopenblas0-openmp (Debian, Ubuntu) and choose it: sudo update-alternatives --config libblas.so.3-x86_64-linux-gnu';
  if (path === '') return { what: 'BLAS', state: 'ok', found: 'part of libtorch' };
  if (/\/(blas|lapack)\/libblas/.test(path))
    return { what: 'BLAS', state: 'slow', found: `reference BLAS (${path}), a fifteenth as fast as OpenBLAS`, remedy };
  if (/pthread|serial|atlas/.test(path))
    return {
      what: 'BLAS',
      state: 'slow',
      found: `${path}, whose threads are in the way of libtorch's OpenMP threads: a training step takes three times as long`,
      remedy,
    };
  return { what: 'BLAS', state: 'ok', found: path };
}

function checkGpu(names: readonly string[], libtorch: string): Finding {
  if (names.length > 0) return { what: 'GPU', state: 'ok', found: names.map((name, i) => `cuda:${i} ${name}`).join(', ') };
  if (!existsSync('/dev/nvidia0') && !existsSync('/proc/driver/nvidia')) return { what: 'GPU', state: 'note', found: 'none' };
  const built = existsSync(join(dirname(libtorch), 'libtorch_cuda.so'));
  return built
    ? {
        what: 'GPU',
        state: 'slow',
        found: 'there is an NVIDIA device, and CUDA does not find it',
        remedy: 'see whether `nvidia-smi` lists it, and what CUDA_VISIBLE_DEVICES says',
      }
    : {
        what: 'GPU',
        state: 'slow',
        found: 'there is an NVIDIA device, and this libtorch is built for the CPU only',
        remedy: "set LIBTORCH to the folder of a PyTorch with CUDA and run 'npm run setup'",
      };
}

/** What training on a GPU cannot do without. @param problem why they cannot be compiled, if they cannot */
export function checkKernels(problem: string | undefined): Finding {
  const what = 'kernels';
  if (problem === undefined) return { what, state: 'ok', found: 'compiled for the GPU' };
  return {
    what,
    state: 'bad',
    found: `cannot be compiled for the GPU: ${problem}`,
    remedy: 'install a PyTorch for CUDA, which brings NVRTC along; training with --device cpu does without',
  };
}

function checkSpeed({ threads, cuda, bf16 }: EngineInfo, { float32, bfloat16, call, device }: Speed): Finding[] {
  const slow = device === 'cpu' && float32 / threads < SLOW_BLAS;
  return [
    {
      what: 'float32',
      state: slow ? 'slow' : 'ok',
      found: `${figure(float32)} GFLOP/s in a matrix product on ${device}`,
      ...(slow ? { remedy: 'see BLAS and threads; or other programs are using the cores' } : {}),
    },
    ...(bf16 || cuda.length > 0
      ? [
          {
            what: 'bfloat16',
            state: bfloat16 > float32 ? 'ok' : 'slow',
            found: `${figure(bfloat16)} GFLOP/s`,
            ...(bfloat16 > float32 ? {} : { remedy: 'it is no faster than float32 here: train with --dtype float32' }),
          } as const,
        ]
      : []),
    {
      what: 'calls',
      state: call > SLOW_CALL ? 'slow' : 'ok',
      found: `${figure(call)} microseconds a call of an operator`,
      ...(call > SLOW_CALL ? { remedy: 'other programs are using the cores' } : {}),
    },
  ];
}

async function checkSharp(): Promise<Finding> {
  try {
    const { default: sharp } = await import('sharp');
    return { what: 'sharp', state: 'ok', found: `decodes pictures; libvips ${sharp.versions.vips}` };
  } catch (error) {
    const reason = error instanceof Error ? (error.message.trim().split('\n', 1)[0] as string) : String(error);
    return { what: 'sharp', state: 'bad', found: `cannot be loaded: ${reason}`, remedy: `run \`npm install\` in ${packageRoot()}` };
  }
}

function checkOpenmoji(): Finding {
  const name = 'openmoji';
  try {
    const { version: found } = createRequire(import.meta.url)('openmoji/package.json') as { version: string };
    return { what: name, state: 'ok', found: `data set, npm package ${found}` };
  } catch {
    return {
      what: name,
      state: 'note',
      found: 'data set not found',
      remedy: '`npm install` in the project: the presets demo and toy train on it',
    };
  }
}

/** Opening it reads 30 MB, half a second, and finds damage too. */
async function checkFashionMnist(): Promise<Finding> {
  const what = 'fashion-mnist';
  try {
    const { train, heldOut } = await openData(what, { size: 28 });
    return { what, state: 'ok', found: `data set, ${count(train.length)} + ${count(heldOut.length)} pictures` };
  } catch (error) {
    if (!(error instanceof DsdError)) throw error;
    return { what, state: 'note', found: error.message };
  }
}
