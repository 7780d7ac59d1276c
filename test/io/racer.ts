/**
 * Processes that race for a lock in an order chosen by a seed: threads that stop before each call of the file system until the scheduler,
 * who is in the thread of the test, lets one of them do it. Two of them differ by the purpose of their locks alone.
 */

import { once } from 'node:events';
import fs from 'node:fs';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { type Calls, openDisk } from '../../src/io/disk.js';
import { acquireLock, type Lock, LockedError } from '../../src/io/lock.js';

/** What a racer is doing. The last three are ends or rests: the scheduler's order starts it again. */
const STATE = { running: 0, beforeCall: 1, holding: 2, refused: 3, released: 4, failed: 5 } as const;

interface Start {
  readonly state: Int32Array<SharedArrayBuffer>;
  readonly index: number;
}

/** Chooses one of the racers that can move; who holds the lock can, to release it. */
export type Choose = (movable: readonly number[], holding: (racer: number) => boolean) => number;

export class Race {
  private constructor(
    private readonly workers: readonly Worker[],
    private readonly state: Int32Array<SharedArrayBuffer>,
  ) {}

  static async of(racers: number): Promise<Race> {
    const state = new Int32Array(new SharedArrayBuffer(4 * racers));
    const workers = Array.from({ length: racers }, (_, index) => {
      return new Worker(new URL(import.meta.url), { workerData: { state, index } satisfies Start });
    });
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    return new Race(workers, state);
  }

  async end(): Promise<void> {
    await Promise.all(this.workers.map((worker) => worker.terminate()));
  }

  /**
   * All try for the lock; who gets it releases it when chosen again.
   * @returns how many got it, one after another, and the most that held it at once
   */
  run(folder: string, choose: Choose): { wins: number; most: number; failed: number } {
    const indices = this.workers.map((_, i) => i);
    for (const [i, worker] of this.workers.entries()) {
      Atomics.store(this.state, i, STATE.running);
      worker.postMessage(folder);
    }
    for (const i of indices) this.rest(i);
    const result = { wins: 0, most: 0, failed: 0 };
    for (;;) {
      const movable = indices.filter((i) => this.state[i] === STATE.beforeCall || this.state[i] === STATE.holding);
      if (movable.length === 0) break;
      const i = choose(movable, (i) => this.state[i] === STATE.holding);
      Atomics.store(this.state, i, STATE.running);
      Atomics.notify(this.state, i);
      this.rest(i);
      if (this.state[i] === STATE.holding) result.wins++;
      result.most = Math.max(result.most, indices.filter((k) => this.state[k] === STATE.holding).length);
    }
    result.failed = indices.filter((i) => this.state[i] === STATE.failed).length;
    return result;
  }

  private rest(i: number): void {
    Atomics.wait(this.state, i, STATE.running);
  }
}

if (!isMainThread) {
  const { state, index } = workerData as Start;
  const say = (now: number): void => {
    Atomics.store(state, index, now);
    Atomics.notify(state, index);
  };
  const stopAs = (now: number): void => {
    say(now);
    Atomics.wait(state, index, now);
  };
  // The pauses between attempts, of a random length, then take no time: the order is the scheduler's alone.
  Math.random = () => 0;
  const calls = new Proxy(fs, {
    get(target, name: keyof Calls) {
      const call = target[name] as (...args: unknown[]) => unknown;
      return (...args: unknown[]) => {
        stopAs(STATE.beforeCall);
        // Nothing here depends on what reaches the device, and it takes its time.
        return name === 'fsyncSync' ? undefined : call(...args);
      };
    },
  });
  const disk = openDisk(calls);
  parentPort!.on('message', (folder: string) => {
    let lock: Lock;
    try {
      lock = acquireLock(folder, `racer ${index}`, disk);
    } catch (error) {
      return say(error instanceof LockedError ? STATE.refused : STATE.failed);
    }
    stopAs(STATE.holding);
    lock.release();
    say(STATE.released);
  });
  parentPort!.postMessage('ready');
}
