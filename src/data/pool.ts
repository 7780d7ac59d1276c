/**
 * A few threads that decode pictures. Which thread takes which job never shows: every job is a function of its own data, and a caller waits for
 * the promise of its own job.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { FailureError } from '../core/errors.js';
import { DiskError } from '../io/disk.js';
import type { Answer, Request, Response } from './decode-worker.js';
import type { DecodeJob, Place } from './job.js';
import { PictureError, put } from './job.js';

/** The most jobs in a message to a thread, which has two messages at most: one to work on and one so that it need not wait for the next. */
const AT_ONCE = 4;

/** Threads where the caller does not say: all cores, up to sixteen. */
export const DEFAULT_WORKERS = Math.min(16, availableParallelism());

interface Task {
  readonly job: DecodeJob;
  readonly place: Place | undefined;
  readonly resolve: (pixels: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** One thread and the jobs it has now. */
interface Lane {
  readonly worker: Worker;
  readonly tasks: Map<number, Task>;
  readonly ended: Promise<void>;
}

export class DecodePool {
  readonly #lanes: Lane[] = [];
  #queue: Task[] = [];
  /** Jobs begun and not yet answered. */
  #running = 0;
  /** Settles when the decoding in this thread has run out of jobs. */
  #here: Promise<void> = Promise.resolve();
  #nextId = 0;
  #failure: Error | undefined;
  #closed = false;

  /**
   * Starts no thread: the first job does.
   * @param workers number of threads; 0 decodes in this one, a picture at a time
   * @param script what a thread runs; for tests
   */
  constructor(
    readonly workers: number = DEFAULT_WORKERS,
    readonly script: URL = new URL('./decode-worker.js', import.meta.url),
  ) {
    if (!Number.isInteger(workers) || workers < 0 || workers > 256)
      throw new RangeError(`DecodePool: workers must be an integer in [0, 256], got ${workers}`);
  }

  /**
   * The pixels of a picture: size * size * channels bytes, the caller's own.
   * @param place where to put them; what is returned is `place.into` then. Nobody else may use it until the job is done
   * @throws PictureError for a broken picture; FailureError if a thread died, for this and every later job; Error after close
   */
  run(job: DecodeJob, place?: Place): Promise<Uint8Array> {
    if (this.#closed) return Promise.reject(closedError());
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, place, resolve, reject });
      this.#dispatch();
    });
  }

  /** Gives up what is queued, lets the threads end what they are at, and waits for their end. Once closed, closing again does nothing. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#abandon(closedError());
    for (const { worker } of this.#lanes) {
      worker.ref();
      worker.postMessage(null satisfies Request);
    }
    await Promise.all([this.#here, ...this.#lanes.map((lane) => lane.ended)]);
  }

  #dispatch(): void {
    if (this.workers === 0) {
      if (this.#running === 0 && this.#queue.length > 0) this.#here = this.#runHere();
      return;
    }
    while (this.#lanes.length < this.workers && this.#lanes.length < this.#queue.length + this.#running)
      this.#lanes.push(this.#startLane());
    while (this.#queue.length > 0) {
      const lane = this.#lanes.reduce((least, other) => (other.tasks.size < least.tasks.size ? other : least));
      if (lane.tasks.size > AT_ONCE) return;
      this.#give(lane, this.#queue.splice(0, Math.min(AT_ONCE, Math.ceil(this.#queue.length / this.workers))));
    }
  }

  #give(lane: Lane, tasks: readonly Task[]): void {
    if (lane.tasks.size === 0) lane.worker.ref();
    const request = tasks.map((task) => {
      const id = this.#nextId++;
      lane.tasks.set(id, task);
      return { id, job: task.job, place: task.place };
    });
    this.#running += tasks.length;
    lane.worker.postMessage(request satisfies Request);
  }

  #startLane(): Lane {
    const worker = new Worker(this.script, { execArgv: [] });
    const lane: Lane = { worker, tasks: new Map(), ended: new Promise((resolve) => worker.once('exit', () => resolve())) };
    worker.on('message', (response: Response) => {
      for (const answer of response) this.#settle(lane, answer);
      this.#dispatch();
    });
    worker.on('error', (error) => this.#died(lane, error));
    worker.on('exit', (code) => {
      if (!this.#closed) this.#died(lane, new Error(`it ended with code ${code}`));
    });
    return lane;
  }

  #settle(lane: Lane, answer: Answer): void {
    const task = lane.tasks.get(answer.id);
    if (task === undefined) return; // given up by close()
    lane.tasks.delete(answer.id);
    this.#running--;
    if (lane.tasks.size === 0) lane.worker.unref(); // a program that has finished may exit without closing its pools
    if ('placed' in answer) task.resolve(task.place!.into);
    else if ('pixels' in answer) task.resolve(answer.pixels);
    else task.reject(errorOf(answer, task.job));
  }

  /** Without its thread a job would be waited for for ever, and the cause (memory, mostly) will not spare the other threads. */
  #died(lane: Lane, cause: Error): void {
    if (this.#failure !== undefined) return;
    const paths = [...lane.tasks.values()].map(({ job }) => job.path);
    const at = paths.length === 0 ? 'while it had nothing to do' : `while it was at ${paths.join(' or ')}`;
    this.#failure = new FailureError(
      `a decoding thread died ${at}: ${cause.message}. If memory ran out, use fewer workers or smaller pictures; try 0 workers to see which picture it is`,
      { cause },
    );
    this.#abandon(this.#failure);
  }

  #abandon(error: Error): void {
    const tasks = [...this.#lanes.flatMap((lane) => [...lane.tasks.values()]), ...this.#queue];
    for (const lane of this.#lanes) {
      lane.tasks.clear();
      lane.worker.unref();
    }
    this.#queue = [];
    this.#running = 0;
    for (const task of tasks) task.reject(error);
  }

  async #runHere(): Promise<void> {
    this.#running = 1;
    const { decode } = await import('./decode.js');
    for (let task = this.#queue.shift(); task !== undefined; task = this.#queue.shift()) {
      const { job, place, resolve, reject } = task;
      await decode(job).then((pixels) => {
        if (place) put(pixels, place, job);
        resolve(place?.into ?? pixels);
      }, reject);
    }
    this.#running = 0;
  }
}

function closedError(): Error {
  return new Error('DecodePool: it is closed');
}

function errorOf(response: Exclude<Answer, { pixels: unknown } | { placed: true }>, job: DecodeJob): Error {
  if ('broken' in response) return new PictureError(response.broken.path, response.broken.reason);
  if ('disk' in response) return new DiskError(response.disk.message, response.disk.code, response.disk.path, undefined);
  return new Error(`decoding of ${job.path}: ${response.bug}`);
}
