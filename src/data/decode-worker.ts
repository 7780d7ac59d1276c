/**
 * A decoding process: takes jobs, writes their pixels to the file that it was given and answers that they are there, or says what went wrong.
 * See `pool.ts`.
 */
import { writeSync } from 'node:fs';
import { FailureError } from '../core/errors.js';
import { DiskError } from '../io/disk.js';
import type { DecodeJob } from './job.js';
import { mirror, PictureError } from './job.js';
import { pictureBytes } from './source.js';

/** A job under a number. */
export interface Order {
  readonly id: number;
  readonly job: DecodeJob;
  /** Each row from right to left. */
  readonly mirrored: boolean;
}

/** To a process: jobs, and from where on in the file their pixels go, one picture behind the other. Several jobs, since the main thread has better to do than to send and take messages. */
export interface Request {
  readonly region: number;
  readonly position: number;
  readonly orders: readonly Order[];
}

/** Errors of the classes that callers tell apart are sent as their fields; a class does not cross to another process. */
export type Answer =
  | { readonly id: number; readonly written: true }
  /** Where there is no file, or the disk that it is on is full. */
  | { readonly id: number; readonly pixels: Uint8Array }
  | { readonly id: number; readonly broken: { readonly path: string; readonly reason: string } }
  | { readonly id: number; readonly disk: { readonly message: string; readonly code: string; readonly path: string } }
  | { readonly id: number; readonly failure: string }
  | { readonly id: number; readonly bug: string };

/** From a process, when all of a request is done; in the order of the jobs. */
export interface Response {
  readonly region: number;
  readonly position: number;
  readonly answers: readonly Answer[];
}

/** Pictures at a time: while the library decodes one in a thread of its own, this one resizes the other. */
const SIDE_BY_SIDE = 2;

// Who asks for pictures decides when there are to be no more: a signal for all processes of a program is not for this one.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

/** Number of the file, if there is one. */
const file = process.argv[2] === undefined ? undefined : Number(process.argv[2]);
const waiting: (() => Promise<void>)[] = [];
let running = 0;

process.on('message', ({ region, position, orders }: Request) => {
  const answers: Answer[] = [];
  let left = orders.length;
  let next = position;
  for (const [i, order] of orders.entries()) {
    const at = next;
    next += pictureBytes(order.job);
    waiting.push(async () => {
      answers[i] = await answer(order, at);
      // An error is that nobody listens any more.
      if (--left === 0) process.send?.({ region, position, answers } satisfies Response, undefined, undefined, () => {});
    });
  }
  while (running < SIDE_BY_SIDE && waiting.length > 0) void work();
});

// Whoever asked has closed the pool or is gone. Without the channel this process ends when what is under way has: never in the middle of the decoder's native code.
process.on('disconnect', () => {
  waiting.length = 0;
});

async function work(): Promise<void> {
  running++;
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await next();
  running--;
}

async function answer({ id, job, mirrored }: Order, position: number): Promise<Answer> {
  try {
    // Later than this file, so that a signal finds its handler while the decoder is still being loaded.
    const { decode } = await import('./decode.js');
    const pixels = await decode(job);
    if (mirrored) mirror(pixels, job);
    return write(pixels, position) ? { id, written: true } : { id, pixels };
  } catch (error) {
    return describe(id, error);
  }
}

/** Whether there was a place. */
function write(pixels: Uint8Array, position: number): boolean {
  if (file === undefined) return false;
  try {
    for (let done = 0; done < pixels.length; ) done += writeSync(file, pixels, done, pixels.length - done, position + done);
    return true;
  } catch {
    return false;
  }
}

function describe(id: number, error: unknown): Answer {
  if (error instanceof PictureError) return { id, broken: { path: error.path, reason: error.reason } };
  if (error instanceof DiskError) return { id, disk: { message: error.message, code: error.code, path: error.path } };
  if (error instanceof FailureError) return { id, failure: error.message };
  return { id, bug: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}
