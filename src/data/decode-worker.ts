/** A decoding thread: takes jobs, answers each with its pixels (moved, not copied) or with what went wrong. See `pool.ts`. */
import { parentPort } from 'node:worker_threads';
import { DiskError } from '../io/disk.js';
import { decode } from './decode.js';
import type { DecodeJob } from './job.js';
import { PictureError } from './job.js';

/** To a thread: a job under a number, or null to finish. */
export type Request = { readonly id: number; readonly job: DecodeJob } | null;

/** From a thread. Errors of the two classes that callers tell apart are sent as their fields; a class does not cross to another thread. */
export type Response =
  | { readonly id: number; readonly pixels: Uint8Array<ArrayBuffer> }
  | { readonly id: number; readonly broken: { readonly path: string; readonly reason: string } }
  | { readonly id: number; readonly disk: { readonly message: string; readonly code: string; readonly path: string } }
  | { readonly id: number; readonly bug: string };

if (parentPort === null) throw new Error('decode-worker.js is started by pool.js as a thread, not as a program');
const port = parentPort;

port.on('message', (request: Request) => {
  // Closing the port lets what is under way end by itself: a thread is never ended in the middle of the decoder's native code.
  if (request === null) port.close();
  else void answer(request.id, request.job);
});

async function answer(id: number, job: DecodeJob): Promise<void> {
  try {
    const pixels = await decode(job);
    port.postMessage({ id, pixels } satisfies Response, [pixels.buffer]);
  } catch (error) {
    port.postMessage(describe(id, error));
  }
}

function describe(id: number, error: unknown): Response {
  if (error instanceof PictureError) return { id, broken: { path: error.path, reason: error.reason } };
  if (error instanceof DiskError) return { id, disk: { message: error.message, code: error.code, path: error.path } };
  return { id, bug: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}
