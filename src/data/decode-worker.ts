/** A decoding thread: takes jobs, answers with their pixels (in their place, or moved, not copied) or with what went wrong. See `pool.ts`. */
import { parentPort } from 'node:worker_threads';
import { DiskError } from '../io/disk.js';
import { decode } from './decode.js';
import type { DecodeJob, Place } from './job.js';
import { PictureError, put } from './job.js';

/** A job under a number. */
export interface Order {
  readonly id: number;
  readonly job: DecodeJob;
  /** Where the pixels are to go; into the answer if absent. */
  readonly place: Place | undefined;
}

/** To a thread: jobs, or null to finish. Several at once, since the main thread has better to do than to send and take messages. */
export type Request = readonly Order[] | null;

/** Errors of the two classes that callers tell apart are sent as their fields; a class does not cross to another thread. */
export type Answer =
  | { readonly id: number; readonly pixels: Uint8Array<ArrayBuffer> }
  | { readonly id: number; readonly placed: true }
  | { readonly id: number; readonly broken: { readonly path: string; readonly reason: string } }
  | { readonly id: number; readonly disk: { readonly message: string; readonly code: string; readonly path: string } }
  | { readonly id: number; readonly bug: string };

/** From a thread, when all of a request is done. */
export type Response = readonly Answer[];

/** Pictures at a time: while the library decodes one in a thread of its own, this one resizes the other. */
const SIDE_BY_SIDE = 2;

if (parentPort === null) throw new Error('decode-worker.js is started by pool.js as a thread, not as a program');
const port = parentPort;
const waiting: (() => Promise<void>)[] = [];
let running = 0;

port.on('message', (request: Request) => {
  // Closing the port lets what is under way end by itself: a thread is never ended in the middle of the decoder's native code.
  if (request === null) {
    waiting.length = 0;
    port.close();
    return;
  }
  const answers: Answer[] = [];
  for (const order of request)
    waiting.push(async () => {
      answers.push(await answer(order));
      if (answers.length === request.length) port.postMessage(answers satisfies Response, answers.flatMap(movable));
    });
  while (running < SIDE_BY_SIDE && waiting.length > 0) void work();
});

async function work(): Promise<void> {
  running++;
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await next();
  running--;
}

async function answer({ id, job, place }: Order): Promise<Answer> {
  try {
    const pixels = await decode(job);
    if (place === undefined) return { id, pixels };
    put(pixels, place, job);
    return { id, placed: true };
  } catch (error) {
    return describe(id, error);
  }
}

function movable(answer: Answer): ArrayBuffer[] {
  return 'pixels' in answer ? [answer.pixels.buffer] : [];
}

function describe(id: number, error: unknown): Answer {
  if (error instanceof PictureError) return { id, broken: { path: error.path, reason: error.reason } };
  if (error instanceof DiskError) return { id, disk: { message: error.message, code: error.code, path: error.path } };
  return { id, bug: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}
