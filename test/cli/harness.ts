/** Runs the built command line as a user would, in a folder of its own. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encodePng } from '../../src/data/picture.js';

export const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  /** Resolves when this has been written to stderr; rejects if the process ends before. */
  said(text: string): Promise<void>;
  kill(signal: NodeJS.Signals): void;
  readonly ended: Promise<Ended>;
}

export interface StartOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Another entry, or a shell line in which "$@" stands for it and its words. */
  readonly main?: string;
  readonly shell?: string;
}

/**
 * One thread: runs of tests share the cores with other tests, and threads that wait for each other on busy cores are very slow. No GPU: two runs
 * on a CPU are the same to the bit.
 */
const ENV = { ...process.env, OMP_NUM_THREADS: '1', CUDA_VISIBLE_DEVICES: '', NO_COLOR: '1', NODE_TEST_CONTEXT: undefined };

export function start(words: readonly string[], { cwd, env = {}, main = MAIN, shell }: StartOptions = {}): Running {
  const line = [process.execPath, main, ...words];
  const [program = '', ...args] = shell ? ['/bin/sh', '-c', shell, 'dsd', ...line] : line;
  const child = spawn(program, args, { cwd, env: { ...ENV, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  const waiting: (() => void)[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (const look of waiting) look();
  });
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  const said = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (stderr.includes(text)) resolve();
      };
      waiting.push(look);
      look();
      ended.then(() => reject(new Error(`ended without saying '${text}': ${stderr}`)), reject);
    });
  return { said, kill: (signal) => child.kill(signal), ended };
}

export const dsd = (words: readonly string[], options?: StartOptions): Promise<Ended> => start(words, options).ended;

/** A folder for a file of tests, and what removes it. */
export function workplace(): { folder: string; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'dsd-cli-'));
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

export const CLASSES = ['dark', 'light square'] as const;

/** A set of two classes that differ at a glance, 24 pictures of 16 px each to train on and 6 held out. */
export async function makePictures(folder: string): Promise<void> {
  for (const [part, first, end] of [
    ['train', 0, 24],
    ['val', 24, 30],
  ] as const) {
    for (const [label, name] of CLASSES.entries()) {
      mkdirSync(join(folder, part, name), { recursive: true });
      for (let i = first; i < end; i++) {
        const pixels = Uint8Array.from({ length: 16 * 16 * 3 }, (_, at) => label * 160 + ((at * (i + 3)) % 64));
        writeFileSync(join(folder, part, name, `${i}.png`), await encodePng(pixels, 16, 16, 3));
      }
    }
  }
}

/** Flags that train the smallest run in a second or two. */
export const TOY = [
  'train',
  '--preset',
  'toy',
  '--set',
  'train.images=128',
  '--set',
  'train.batch=16',
  '--set',
  'log.every=32',
  '--set',
  'sample.steps=2',
  '--set',
  'data.workers=0',
];
