/** The thread that writes checkpoints while training goes on. See `saver.ts`. */
import { parentPort } from 'node:worker_threads';
import { DiskError } from '../io/disk.js';
import { Checkpoints, type Snapshot } from './checkpoints.js';

/** To the thread. */
export interface SaveRequest {
  readonly run: string;
  readonly keep: number;
  readonly snapshot: Snapshot;
}

/** From it: where the checkpoint is and how long writing took, or what went wrong. A class does not cross to another thread. */
export type SaveResponse =
  | { readonly path: string; readonly milliseconds: number }
  | { readonly disk: { readonly message: string; readonly code: string; readonly path: string } }
  | { readonly failure: string };

if (parentPort === null) throw new Error('saver-thread.js is started by saver.js as a thread, not as a program');
const port = parentPort;

port.on('message', ({ run, keep, snapshot }: SaveRequest) => {
  const began = performance.now();
  try {
    const path = new Checkpoints(run).write(snapshot, keep);
    port.postMessage({ path, milliseconds: performance.now() - began } satisfies SaveResponse);
  } catch (error) {
    port.postMessage(describe(error));
  }
});

function describe(error: unknown): SaveResponse {
  if (error instanceof DiskError) return { disk: { message: error.message, code: error.code, path: error.path } };
  return { failure: error instanceof Error ? error.message : String(error) };
}
