/**
 * A few processes that decode pictures: not threads, because many of those in one process get in each other's way, so that sixteen cores do the work of
 * two. Which process takes which job never shows: every job is a function of its own data, and a caller waits for the promise of its own job.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { FailureError } from '../core/errors.js';
import { DiskError } from '../io/disk.js';
import type { Answer, Request, Response } from './decode-worker.js';
import { Exchange, type Part } from './exchange.js';
import type { DecodeJob, Place } from './job.js';
import { PictureError, put } from './job.js';
import { pictureBytes } from './source.js';

/** The most jobs in a message to a process. */
const AT_ONCE = 4;
/** Messages that a process has at most, each with a region of the file for its pixels: one to work on and one so that it need not wait for the next. */
const REGIONS = 2;
/** Bytes of the file from one region to the next, more than any AT_ONCE pictures have: what is between costs nothing. */
const REGION_BYTES = 2 ** 33;

/** The file's number in a process. */
const FILE = 4;

/** Processes where the caller does not say: as many as cores, up to sixteen. */
export const DEFAULT_WORKERS = Math.min(16, availableParallelism());

interface Task {
  readonly job: DecodeJob;
  readonly place: Place | undefined;
  readonly resolve: (pixels: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** Whoever stops all processes of a group or a service sends one of these; a process that has come so far is deaf to them. */
const STOPS: ReadonlySet<string> = new Set<NodeJS.Signals>(['SIGINT', 'SIGTERM', 'SIGHUP']);

/** A picture takes milliseconds to decode; a disk that does not answer, or a debugger, may take for ever. */
const GRACE_MS = 10_000;
/** More threads than these have nothing to do in a process, whatever the environment says; fewer are the user's wish. */
const THREADS = 4;

/** What a pool does not do by itself; for tests. */
interface PoolOptions {
  /** What a process runs. */
  readonly script?: URL;
  /** Where the file of pixels may be. */
  readonly folders?: readonly string[];
  /** How long `close` waits for a process, in milliseconds. */
  readonly graceMs?: number;
}

/** One process and the jobs it has now. */
interface Lane {
  readonly process: ChildProcess;
  /** One was started before it in its place. */
  readonly again: boolean;
  readonly tasks: Map<number, Task>;
  /** Regions that none of its messages has. */
  readonly free: number[];
  /** It has answered. */
  ready: boolean;
  readonly ended: Promise<void>;
}

export class DecodePool {
  readonly #lanes: Lane[] = [];
  #exchange: Exchange | undefined;
  #queue: Task[] = [];
  /** Jobs begun and not yet answered. */
  #running = 0;
  /** Settles when the decoding in this process has run out of jobs. */
  #here: Promise<void> = Promise.resolve();
  #nextId = 0;
  #failure: Error | undefined;
  #closed = false;
  readonly #script: URL;
  readonly #folders: readonly string[] | undefined;
  readonly #graceMs: number;
  readonly #came = { byFile: 0, byMessage: 0 };

  /**
   * Starts no process: the first job does.
   * @param workers number of processes; 0 decodes in this one, a picture at a time
   */
  constructor(
    readonly workers: number = DEFAULT_WORKERS,
    { script = new URL('./decode-worker.js', import.meta.url), folders, graceMs = GRACE_MS }: PoolOptions = {},
  ) {
    if (!Number.isInteger(workers) || workers < 0 || workers > 256)
      throw new RangeError(`DecodePool: workers must be an integer in [0, 256], got ${workers}`);
    this.#script = script;
    this.#folders = folders;
    this.#graceMs = graceMs;
  }

  /** Pictures that came from processes so far, by the way that they came. */
  get came(): { readonly byFile: number; readonly byMessage: number } {
    return { ...this.#came };
  }

  /**
   * The pixels of a picture: size * size * channels bytes, the caller's own.
   * @param place where to put them; what is returned is `place.into` then. Nobody else may use it until the job is done
   * @throws PictureError for a broken picture; FailureError if a process died, for this and every later job; Error after close
   */
  run(job: DecodeJob, place?: Place): Promise<Uint8Array> {
    if (this.#closed) return Promise.reject(closedError());
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, place, resolve, reject });
      this.#dispatch();
    });
  }

  /** Gives up what is queued, lets the processes end what they are at, and waits for their end: ten seconds, then it kills them. Once closed, closing again does nothing. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#abandon(closedError());
    for (const { process: child } of this.#lanes) {
      child.ref();
      if (child.connected) child.disconnect();
    }
    const stuck = setTimeout(() => {
      for (const { process: child } of this.#lanes) child.kill('SIGKILL');
    }, this.#graceMs);
    await Promise.all([this.#here, this.#exchange?.close(), ...this.#lanes.map((lane) => lane.ended)]);
    clearTimeout(stuck);
  }

  #dispatch(): void {
    if (this.workers === 0) {
      if (this.#running === 0 && this.#queue.length > 0) this.#here = this.#runHere();
      return;
    }
    while (this.#lanes.length < this.workers && this.#lanes.length < this.#queue.length + this.#running)
      if (!this.#start(this.#lanes.length)) return;
    while (this.#queue.length > 0) {
      const open = this.#lanes.filter((lane) => lane.free.length > 0);
      if (open.length === 0) return;
      const lane = open.reduce((least, other) => (other.tasks.size < least.tasks.size ? other : least));
      this.#give(lane, this.#queue.splice(0, Math.min(AT_ONCE, Math.ceil(this.#queue.length / this.workers))));
    }
  }

  #give(lane: Lane, tasks: readonly Task[]): void {
    if (lane.tasks.size === 0) hold(lane.process);
    const region = lane.free.pop()!;
    const orders = tasks.map((task) => {
      const id = this.#nextId++;
      lane.tasks.set(id, task);
      return { id, job: task.job, mirrored: task.place?.mirrored ?? false };
    });
    this.#running += tasks.length;
    // A process that could not be started has no channel, nor has one that has died; both are told of in another way.
    if (lane.process.connected) lane.process.send({ region, position: region * REGION_BYTES, orders } satisfies Request, () => {});
  }

  /** Whether there is a process in this place now; if not, all jobs have been given up. */
  #start(place: number, again = false): boolean {
    try {
      this.#lanes[place] = this.#startLane(place, again);
      return true;
    } catch (error) {
      this.#fail(notStarted(error as NodeJS.ErrnoException));
      return false;
    }
  }

  #startLane(place: number, again: boolean): Lane {
    // The jobs of a pool are of one size; what finds no room comes in a message.
    this.#exchange ??= new Exchange(this.workers * REGIONS * AT_ONCE * pictureBytes(this.#queue[0]!.job), this.#folders);
    const { fd } = this.#exchange;
    const child = fork(this.#script, fd === undefined ? [] : [`${FILE}`], {
      // A session of its own: Ctrl-C in a terminal is for this process alone, which may have a checkpoint to write and wants pictures until then.
      detached: true,
      env: environment(),
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc', ...(fd === undefined ? [] : [fd])],
    });
    let end: () => void;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const free = Array.from({ length: REGIONS }, (_, i) => place * REGIONS + i);
    const lane: Lane = { process: child, again, tasks: new Map(), free, ready: false, ended };
    child.on('message', (response) => {
      lane.ready = true;
      this.#take(lane, response as Response).catch((error) => this.#fail(error));
    });
    child.on('error', (error) => {
      end();
      if (child.pid === undefined) this.#fail(notStarted(error));
      else this.#died(lane, error.message);
    });
    child.on('exit', (code, signal) => {
      end();
      if (this.#closed || this.#failure !== undefined) return;
      if (signal !== null && STOPS.has(signal) && !lane.ready && !again) this.#startAgain(lane);
      else this.#died(lane, code === null ? `it was ended by ${signal}` : `it ended with code ${code}`);
    });
    return lane;
  }

  /** A signal found a process that was too young to be deaf to it, and says nothing about its jobs. */
  #startAgain(lane: Lane): void {
    const tasks = [...lane.tasks.values()];
    lane.tasks.clear();
    this.#running -= tasks.length;
    this.#queue.unshift(...tasks);
    if (this.#start(this.#lanes.indexOf(lane), true)) this.#dispatch();
  }

  async #take(lane: Lane, { region, position, answers }: Response): Promise<void> {
    if (!answers.every(({ id }) => lane.tasks.has(id))) return; // given up by close()
    const parts: (Part | undefined)[] = [];
    let next = position;
    for (const answer of answers) {
      const { job, place } = lane.tasks.get(answer.id)!;
      const bytes = pictureBytes(job);
      parts.push('written' in answer ? { into: place?.into ?? new Uint8Array(bytes), position: next } : undefined);
      next += bytes;
    }
    const failed = await this.#exchange!.read(parts.filter((part) => part !== undefined)).then(
      () => undefined,
      (error: Error) => error,
    );
    if (!answers.every(({ id }) => lane.tasks.has(id))) return;
    lane.free.push(region);
    for (const [i, answer] of answers.entries()) this.#settle(lane, answer, parts[i]?.into, failed);
    this.#dispatch();
  }

  #settle(lane: Lane, answer: Answer, pixels: Uint8Array | undefined, failed: Error | undefined): void {
    const { job, place, resolve, reject } = lane.tasks.get(answer.id)!;
    if ('pixels' in answer) place?.into.set(answer.pixels); // may throw: the job has still to be one that waits
    lane.tasks.delete(answer.id);
    this.#running--;
    if (lane.tasks.size === 0) letGo(lane.process);
    if (pixels !== undefined && failed === undefined) {
      this.#came.byFile++;
      resolve(pixels);
    } else if ('written' in answer) reject(new Error(`decoding of ${job.path}: its pixels cannot be read: ${failed?.message}`));
    else if ('pixels' in answer) {
      this.#came.byMessage++;
      resolve(place?.into ?? answer.pixels);
    } else reject(errorOf(answer, job));
  }

  /** Without its process a job would be waited for for ever, and the cause (memory, mostly) will not spare the other processes. */
  #died(lane: Lane, cause: string): void {
    const paths = [...lane.tasks.values()].map(({ job }) => job.path);
    const at = paths.length === 0 ? 'while it had nothing to do' : `while it was at ${paths.join(' or ')}`;
    this.#fail(
      new FailureError(
        `a decoding process died ${at}: ${cause}. If memory ran out, use fewer workers or smaller pictures; try 0 workers to see which picture it is`,
      ),
    );
  }

  /** Gives up all jobs, and later ones. */
  #fail(error: Error): void {
    if (this.#closed || this.#failure !== undefined) return;
    this.#failure = error;
    this.#abandon(error);
  }

  #abandon(error: Error): void {
    const tasks = [...this.#lanes.flatMap((lane) => [...lane.tasks.values()]), ...this.#queue];
    for (const lane of this.#lanes) {
      lane.tasks.clear();
      letGo(lane.process);
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

/** Keeps this program alive while there is something to wait for. */
function hold(child: ChildProcess): void {
  child.ref();
  child.channel?.ref();
}

/** A program that has finished may exit without closing its pools. */
function letGo(child: ChildProcess): void {
  child.unref();
  child.channel?.unref();
}

/** A debugger of the program's is not for its processes: with --inspect-brk each would wait for one of its own. */
function environment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS = '', UV_THREADPOOL_SIZE } = process.env;
  const options = [...NODE_OPTIONS.matchAll(/(?:"(?:\\.|[^"\\])*"|[^ "])+/g)].map(([option]) => option);
  const kept = options.filter((option, i) => {
    const itsValue = /^--inspect-(port|publish-uid)$/.test(options[i - 1] ?? '') && !option.startsWith('-');
    return !option.startsWith('--inspect') && !itsValue;
  });
  const threads = Math.max(1, Math.min(THREADS, Number(UV_THREADPOOL_SIZE) || THREADS));
  return { ...process.env, NODE_OPTIONS: kept.join(' '), UV_THREADPOOL_SIZE: String(threads) };
}

const NOT_STARTED: Readonly<Record<string, string>> = {
  EMFILE: 'this program has too many files open: raise `ulimit -n`, or use fewer workers (data.workers)',
  ENFILE: 'the system has too many files open: close some, or use fewer workers (data.workers)',
  EAGAIN: 'there are too many processes: raise `ulimit -u` or the limit of the container, or use fewer workers (data.workers)',
  ENOMEM: 'memory ran out: use fewer workers (data.workers), or free some',
};

function notStarted(error: NodeJS.ErrnoException): FailureError {
  const why = NOT_STARTED[error.code ?? ''] ?? 'try fewer workers (data.workers); 0 need no process';
  return new FailureError(`a decoding process could not be started: ${error.message}; ${why}`, { cause: error });
}

function closedError(): Error {
  return new Error('DecodePool: it is closed');
}

function errorOf(answer: Exclude<Answer, { pixels: unknown } | { written: true }>, job: DecodeJob): Error {
  if ('broken' in answer) return new PictureError(answer.broken.path, answer.broken.reason);
  if ('disk' in answer) return new DiskError(answer.disk.message, answer.disk.code, answer.disk.path, undefined);
  if ('failure' in answer) return new FailureError(answer.failure);
  return new Error(`decoding of ${job.path}: ${answer.bug}`);
}
