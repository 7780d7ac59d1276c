/** The same work by a program in Python, bench/peer/dsd_torch.py or another that takes its flags and answers as it does. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { FailureError, UsageError } from '../../core/errors.js';
import { disk } from '../../io/disk.js';
import { engineInfo } from '../../torch/index.js';
import type { Engine } from '../engine.js';
import { findPeer } from '../peer.js';
import { packageRoot } from '../self.js';
import type { Times, Work } from './work.js';

/** torch.compile's modes, of the block; `graph`: compiled blocks, and the whole step as one CUDA graph. */
export const PEER_MODES = ['none', 'default', 'reduce-overhead', 'max-autotune', 'graph'] as const;
export type PeerMode = (typeof PEER_MODES)[number];

export interface PeerResult {
  readonly mode: PeerMode;
  readonly torch: string;
  readonly batch: number;
  readonly times: Times;
  readonly imagesPerSecond: number;
  /** Most bytes of tensors on the device. */
  readonly memory: number;
  readonly parameters: number;
  /** Seconds from the program's start to the end of its first step. */
  readonly first: number;
}

/** What it could not do, in its own last words: out of memory, mostly. */
export interface PeerFailure {
  readonly mode: PeerMode;
  readonly failure: string;
}

export interface PeerJob {
  readonly file: string;
  readonly modes: readonly PeerMode[];
  readonly work: Work;
  readonly batch: number;
  readonly engine: Engine;
  /** Timed steps, or draws. */
  readonly steps: number;
  /** Euler steps of a draw; 0: training. */
  readonly sample: number;
  readonly say: (text: string) => unknown;
}

export interface PeerAnswers {
  readonly results: readonly PeerResult[];
  readonly failures: readonly PeerFailure[];
}

export const NO_PEER: PeerAnswers = { results: [], failures: [] };

/**
 * Runs the program once in each mode, each to its end, so that nothing else is on the device meanwhile.
 * @throws UsageError when there is no such file or the work is not for it; FailureError when no Python has torch
 */
export async function runPeer({ file, modes, work, batch, engine, steps, sample, say }: PeerJob): Promise<PeerAnswers> {
  const path = [file, join(packageRoot(), file)].find((candidate) => disk.exists(candidate));
  if (path === undefined) throw new UsageError(`--against: there is no file '${file}', here or in ${packageRoot()}`);
  const { channels, width, depth, heads, hidden, image, patch, latent, classes } = work.model;
  if (channels !== 3) throw new UsageError('--against: the program in Python takes colour pictures, and this data is grey');
  const { version, threads } = engineInfo();
  const peer = findPeer(version);
  if (!peer)
    throw new FailureError(
      '--against wants PyTorch in Python, and neither $PYTHON nor python3 has torch (Debian, Ubuntu: apt-get install python3-torch)',
    );
  const results: PeerResult[] = [];
  const failures: PeerFailure[] = [];
  for (const mode of modes) {
    say(`the same in PyTorch ${peer.torch}, compile ${mode}`);
    const words = [
      ...[path, '--json', '--compile', mode, '--batch', `${batch}`, '--steps', `${steps}`, '--sample', `${sample}`],
      ...['--device', engine.device.replace(/:.*/, ''), '--dtype', engine.compute],
      ...['--model', JSON.stringify({ width, depth, heads, hidden, image, patch, latent, classes })],
      ...(engine.device === 'cpu' ? ['--threads', `${threads}`] : []),
    ];
    const { output, errors } = await lastLine(peer.python, words, engine.device === 'cpu' ? { OMP_NUM_THREADS: `${threads}` } : {});
    if (output === undefined) failures.push({ mode, failure: errors });
    else results.push(read(mode, output));
  }
  return { results, failures };
}

/** The last line that a program printed, or, of one that failed, the last line of its errors. */
function lastLine(program: string, words: readonly string[], env: NodeJS.ProcessEnv): Promise<{ output?: string; errors: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    let [output, errors] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-20_000);
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      const last = (text: string): string => text.trim().split('\n').at(-1) ?? '';
      if (code === 0) resolve({ output: last(output), errors });
      else resolve({ errors: last(errors) || `ended with ${signal ?? `code ${code}`}, without a word` });
    });
  });
}

/** @throws FailureError when it is no answer */
function read(mode: PeerMode, line: string): PeerResult {
  let found: Partial<Record<string, unknown>> = {};
  try {
    found = JSON.parse(line) as typeof found;
  } catch {
    // said below
  }
  const number = (name: string): number => {
    const value = found[name];
    if (typeof value !== 'number') throw new FailureError(`--against: the program did not answer with a number for '${name}': ${line}`);
    return value;
  };
  return {
    mode,
    torch: String(found.torch),
    batch: number('batch'),
    times: { median: number('milliseconds'), range: [number('least'), number('most')] },
    ...{
      imagesPerSecond: number('imagesPerSecond'),
      memory: number('gib') * 2 ** 30,
      parameters: number('parameters'),
      first: number('first'),
    },
  };
}
