/** The thread that writes checkpoints while training goes on. See `saver.ts`. */
import { MessageChannel, parentPort } from 'node:worker_threads';
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
  const response = write(run, keep, snapshot);
  free(snapshot);
  port.postMessage(response);
});

function write(run: string, keep: number, snapshot: Snapshot): SaveResponse {
  const began = performance.now();
  try {
    const path = new Checkpoints(run).write(snapshot, keep);
    return { path, milliseconds: performance.now() - began };
  } catch (error) {
    return describe(error);
  }
}

/**
 * Gives a snapshot's memory back now. The garbage collector would wait for the next one to arrive, so that the state of a run would lie in memory
 * for nothing between two checkpoints, and twice while the next is written.
 */
function free(snapshot: Snapshot): void {
  const { port1, port2 } = new MessageChannel();
  // What is sent to a port whose other end is closed goes nowhere, and the buffers that move with it are gone.
  port2.close();
  port1.postMessage(null, [...new Set([...snapshot.files.values()].flat().map((piece) => piece.buffer as ArrayBuffer))]);
  port1.close();
}

function describe(error: unknown): SaveResponse {
  if (error instanceof DiskError) return { disk: { message: error.message, code: error.code, path: error.path } };
  return { failure: error instanceof Error ? error.message : String(error) };
}
