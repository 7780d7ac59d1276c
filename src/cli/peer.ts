/** The same work in Python's PyTorch, by a program of bench/peer that runs beside this one and does nothing until asked. */
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { FailureError } from '../core/errors.js';
import { packageRoot } from './self.js';

/** A Python that has PyTorch. */
export interface PeerPython {
  readonly python: string;
  readonly torch: string;
}

/** The first of $PYTHON, python3 and the system's python3 that can import torch; one of libtorch's own version before others. */
export function findPeer(version: string): PeerPython | undefined {
  const names = process.env.PYTHON ? [process.env.PYTHON] : ['python3', '/usr/bin/python3'];
  const found = names.flatMap((python) => {
    const { status, stdout } = spawnSync(python, ['-c', 'import torch; print(torch.__version__)'], { encoding: 'utf8' });
    return status === 0 ? [{ python, torch: stdout.trim() }] : [];
  });
  return found.find((peer) => sameVersion(peer.torch, version)) ?? found[0];
}

/** Major and minor: Debian's 1.13.1 calls itself 1.13.0a0. */
export const sameVersion = (a: string, b: string): boolean => a.split('.', 2).join('.') === b.split('.', 2).join('.');

export class Peer {
  private readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  private readonly lines: AsyncIterator<string>;
  private errors = '';

  constructor({ python }: PeerPython, words: readonly string[]) {
    const threads = words[words.indexOf('--threads') + 1] ?? '1';
    this.child = spawn(python, [join(packageRoot(), 'bench', 'peer', 'step_torch.py'), ...words], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, OMP_NUM_THREADS: threads },
    });
    this.child.on('error', () => {});
    this.child.stdin.on('error', () => {});
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.errors = (this.errors + text).slice(-2000);
    });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  /** The answer to one request. @throws FailureError with the last line that the program left when it has ended */
  async ask<T>(...words: readonly (string | number)[]): Promise<T> {
    this.child.stdin.write(`${words.join(' ')}\n`);
    const { value, done } = await this.lines.next();
    if (done) throw new FailureError(`the program in Python ended: ${this.errors.trim().split('\n').at(-1) || 'without a word'}`);
    return JSON.parse(value) as T;
  }

  close(): void {
    this.child.stdin.end();
  }
}
