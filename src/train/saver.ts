/** Writes checkpoints in a thread of its own, one at a time. */
import { Worker } from 'node:worker_threads';
import { FailureError } from '../core/errors.js';
import { DiskError } from '../io/disk.js';
import type { Snapshot } from './checkpoints.js';
import type { SaveRequest, SaveResponse } from './saver-thread.js';

export interface Written {
  readonly path: string;
  readonly images: number;
  readonly bytes: number;
  /** What the write took, beside training. */
  readonly milliseconds: number;
}

/** A checkpoint was not written, for another reason than the disk's. The ones before stand. */
export class SaveError extends FailureError {}

export class Saver {
  private worker: Worker | undefined;
  private writing: Promise<Written> | undefined;
  private done: Written | undefined;
  private failure: unknown;

  /** Starts no thread: the first save does. */
  constructor(
    private readonly run: string,
    private readonly keep: number,
  ) {}

  /** Whether a checkpoint is being written now. */
  get busy(): boolean {
    return this.writing !== undefined;
  }

  /** Begins to write; the snapshot's memory goes to the thread. @throws Error while another is being written */
  save(snapshot: Snapshot): void {
    if (this.writing) throw new Error('Saver: a checkpoint is being written');
    this.writing = this.write(snapshot);
    this.writing.then(
      (written) => {
        this.done = written;
        this.writing = undefined;
      },
      (error: unknown) => {
        this.failure = error;
        this.writing = undefined;
      },
    );
  }

  /** What has been written since the last call, if anything. @throws DiskError, SaveError, once, when a write has failed */
  take(): Written | undefined {
    const { done, failure } = this;
    this.done = undefined;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
    return done;
  }

  /** Waits until nothing is being written; then as `take`. */
  async settle(): Promise<Written | undefined> {
    await this.writing?.catch(() => {});
    return this.take();
  }

  /** Waits for the write under way and ends the thread; of an error nothing is said. */
  async close(): Promise<void> {
    await this.writing?.catch(() => {});
    await this.worker?.terminate();
    this.worker = undefined;
  }

  private write(snapshot: Snapshot): Promise<Written> {
    this.worker ??= new Worker(new URL('./saver-thread.js', import.meta.url), { execArgv: [] });
    const { worker } = this;
    const pieces = [...snapshot.files.values()].flat();
    const bytes = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
    return new Promise((resolve, reject) => {
      const settle = (response: SaveResponse): void => {
        release();
        if ('path' in response) resolve({ ...response, images: snapshot.images, bytes });
        else if ('disk' in response) reject(new DiskError(response.disk.message, response.disk.code, response.disk.path, undefined));
        else reject(new SaveError(response.failure));
      };
      const died = (cause: unknown): void => {
        release();
        this.worker = undefined;
        reject(
          new SaveError(`the thread that writes checkpoints died: ${cause instanceof Error ? cause.message : `code ${cause}`}`, {
            cause,
          }),
        );
      };
      const release = (): void => {
        worker.off('message', settle).off('error', died).off('exit', died);
      };
      worker.on('message', settle).on('error', died).on('exit', died);
      worker.postMessage({ run: this.run, keep: this.keep, snapshot } satisfies SaveRequest, [
        ...new Set(pieces.map((piece) => piece.buffer as ArrayBuffer)),
      ]);
    });
  }
}
