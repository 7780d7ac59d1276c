/** Runs an operation with every fault at every of its calls, on the simulated disk, and looks at what is left. */
import assert from 'node:assert/strict';
import { DsdError } from '../../src/core/errors.js';
import type { Disk } from '../../src/io/disk.js';
import { Ended, type FaultKind, PowerDisk } from './power-disk.js';

export { Ended, type FaultKind, PowerDisk } from './power-disk.js';

const KINDS: readonly FaultKind[] = ['ENOSPC', 'EIO', 'EIO for good', 'end'];

/**
 * For N = 1, 2, 3, ... until the operation makes fewer calls, and for each kind of fault: prepares a new disk, runs the operation with a
 * fault at its Nth call, and has `check` look: as the process finds the disk (or the next one, where it ended), and after a power cut, for
 * each seed. At last the same without a fault.
 *
 * Of the operation, errors for the user (DsdError) are expected; any other passes, and so does one that came without a fault. It may leave no
 * file open.
 * @param setup on a disk that has the root folder `/` alone; what it did not sync, a later power cut may take
 * @param check gets a disk of its own each time, that works, and may write on it. `what` says what happened, and begins with 'done' where
 *   nothing did; after a power cut it has 'power cut' in it, and names the seed. `done`: the operation returned without an error, so that
 *   what it promises must be so
 */
export function forEachFault<T>(
  setup: (disk: Disk) => T,
  operation: (disk: Disk, t: T) => void,
  check: (disk: Disk, what: string, done: boolean) => void,
  { seeds = 12 }: { readonly seeds?: number } = {},
): void {
  const look = (power: PowerDisk, what: string, done: boolean): void => {
    for (let seed = -1; seed < seeds; seed++) {
      const copy = power.clone();
      const now = seed < 0 ? what : `${what}, then a power cut, seed ${seed}`;
      if (seed >= 0) copy.powerLoss(seed);
      try {
        check(copy.disk, now, done);
      } catch (error) {
        throw new Error(`after ${now}: ${error instanceof Error ? error.message : error}`, { cause: error });
      }
    }
  };
  for (let n = 1; ; n++) {
    for (const kind of KINDS) {
      const power = new PowerDisk();
      const t = setup(power.disk);
      const before = power.log.length;
      power.failAt(n, kind);
      let done = true;
      try {
        operation(power.disk, t);
      } catch (error) {
        if (!power.failed || !(error instanceof Ended || error instanceof DsdError)) throw error;
        done = false;
      }
      if (!power.failed) {
        assert.ok(n > 1, 'the operation made no call');
        look(power, 'done', true);
        return;
      }
      const what = `${kind} at call ${n} (${power.log[before + n - 1]})`;
      if (kind !== 'end') assert.equal(power.open, 0, `after ${what}: a file was left open`);
      look(power, what, done && kind !== 'end');
    }
  }
}
