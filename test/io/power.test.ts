import assert from 'node:assert/strict';
import { test } from 'node:test';
import { discardBundle, readManifest, sweepBundles, verifyBundle, writeBundle } from '../../src/io/bundle.js';
import type { Content, Disk } from '../../src/io/disk.js';
import { acquireLock, LockedError } from '../../src/io/lock.js';
import { thisProcess } from '../../src/io/process.js';
import { forEachFault, PowerDisk } from './power.js';

const FOLDER = '/run';
const FILE = '/run/file';
/** Longer than the piece that the simulated device writes at once, so that it is garbled in parts. */
const OLD = 'the old content of the file, which is of some length\n';
const NEW = 'the new content, which is not as long\n';

const read = (disk: Disk, path: string): string => Buffer.from(disk.readFile(path)).toString('latin1');
const pieces = (text: string): Uint8Array[] => (text.match(/.{1,20}/gs) ?? []).map((part) => Buffer.from(part));

test('an atomic write leaves the old file or the new one, whole', () => {
  forEachFault(
    (disk) => {
      disk.mkdir(FOLDER);
      disk.writeFileAtomic(FILE, OLD);
    },
    (disk) => disk.writeFileAtomic(FILE, pieces(NEW)),
    (disk, what, done) => {
      const now = read(disk, FILE);
      if (done || now !== OLD) assert.equal(now, NEW);
      if (!/for good|end/.test(what))
        assert.deepEqual(
          disk.list(FOLDER).filter((name) => !what.includes('power cut') && name !== 'file'),
          [],
        );
    },
  );
});

test('an atomic write of a new file leaves it whole or absent', () => {
  forEachFault(
    (disk) => disk.mkdir(FOLDER),
    (disk) => disk.writeFileAtomic(FILE, NEW),
    (disk, _, done) => {
      if (done || disk.exists(FILE)) assert.equal(read(disk, FILE), NEW);
    },
  );
});

test('a folder that was made is there after a power cut', () => {
  forEachFault(
    () => {},
    (disk) => disk.mkdir('/a/b/c'),
    (disk, _, done) => {
      if (done) assert.equal(disk.stat('/a/b/c').kind, 'folder');
      disk.mkdir('/a/b/c');
      disk.writeFileAtomic('/a/b/c/file', 'x');
    },
  );
});

test('createNew makes the file or says that it did not, and then a second try makes it', () => {
  forEachFault(
    (disk) => disk.mkdir(FOLDER),
    (disk) => assert.ok(disk.createNew(FILE, NEW)),
    (disk, what, done) => {
      if (done) assert.equal(read(disk, FILE), NEW);
      else if (/^(ENOSPC|EIO at)/.test(what) && !what.includes('power cut')) {
        assert.equal(disk.exists(FILE), false);
        assert.ok(disk.createNew(FILE, NEW));
      }
    },
  );
});

test('an append keeps what was synced before; if it fails, only whole lines are left', () => {
  forEachFault(
    (disk) => {
      disk.mkdir(FOLDER);
      disk.append(FILE, OLD);
      disk.sync(FILE);
      disk.syncFolder(FOLDER);
      disk.append(FILE, OLD);
    },
    (disk) => disk.append(FILE, NEW),
    (disk, what, done) => {
      const now = read(disk, FILE);
      assert.ok(now.startsWith(OLD), now);
      if (what.includes('power cut') || what.startsWith('end')) return;
      assert.ok(now.startsWith(OLD + OLD), now);
      if (done) assert.equal(now, OLD + OLD + NEW);
      // A device that is gone takes nothing back.
      else if (!what.includes('for good')) assert.ok([OLD + OLD, OLD + OLD + NEW].includes(now), now);
    },
  );
});

test('what is appended and synced, with the folder of a new file, is there after a power cut', () => {
  forEachFault(
    (disk) => disk.mkdir(FOLDER),
    (disk) => {
      disk.append(FILE, OLD);
      disk.sync(FILE);
      disk.syncFolder(FOLDER);
    },
    (disk, _, done) => {
      if (done) assert.equal(read(disk, FILE), OLD);
    },
  );
});

const bundle = (n: number): Map<string, Content> =>
  new Map<string, Content>([
    ['state.json', JSON.stringify({ images: n })],
    ['weights', pieces(`weights of bundle ${n}, and more of them, so that they come in pieces`)],
  ]);
const path = (n: number): string => `/run/checkpoints/${n}`;
const isBundle = (disk: Disk, n: number): void => {
  verifyBundle(path(n), disk);
  assert.equal(read(disk, `${path(n)}/state.json`), JSON.stringify({ images: n }));
};
const names = (disk: Disk): string[] => (disk.exists('/run/checkpoints') ? disk.list('/run/checkpoints') : []);
/** Whatever has a bundle's name is whole, and a sweep leaves nothing else. */
const wholeOnes = (disk: Disk): number[] => {
  sweepBundles('/run/checkpoints', disk);
  const numbers = names(disk).map(Number);
  for (const n of numbers) isBundle(disk, n);
  return numbers;
};

test('a bundle is absent or whole, and an older one beside it is untouched', () => {
  forEachFault(
    (disk) => writeBundle(path(1), bundle(1), disk),
    (disk) => writeBundle(path(2), bundle(2), disk),
    (disk, what, done) => {
      if (/^(ENOSPC|EIO at)/.test(what) && !what.includes('power cut')) assert.match(names(disk).join(), /^1(,2)?$/, 'leftovers');
      const there = wholeOnes(disk);
      assert.ok(there.includes(1));
      if (done) assert.ok(there.includes(2));
      // The next try succeeds.
      if (!there.includes(2)) writeBundle(path(2), bundle(2), disk);
      assert.deepEqual(wholeOnes(disk), [1, 2]);
    },
  );
});

test('the first bundle, with the folders above it, is absent or whole', () => {
  forEachFault(
    () => {},
    (disk) => writeBundle(path(1), bundle(1), disk),
    (disk, _, done) => {
      const there = wholeOnes(disk);
      if (done) assert.deepEqual(there, [1]);
    },
  );
});

test('a bundle that is discarded is whole or absent, never half removed', () => {
  forEachFault(
    (disk) => {
      writeBundle(path(1), bundle(1), disk);
      writeBundle(path(2), bundle(2), disk);
    },
    (disk) => discardBundle(path(1), disk),
    (disk, _, done) => {
      const there = wholeOnes(disk);
      assert.ok(there.includes(2));
      if (done) assert.deepEqual(there, [2]);
    },
  );
});

test('a sweep removes nothing but leftovers, and what it did not reach is for the next', () => {
  forEachFault(
    (disk) => {
      writeBundle(path(1), bundle(1), disk);
      disk.mkdir('/run/checkpoints/.dsd-0a.tmp');
      disk.writeNew('/run/checkpoints/.dsd-0a.tmp/weights', 'x');
      disk.writeNew('/run/checkpoints/.dsd-0b.tmp', 'x');
    },
    (disk) => void sweepBundles('/run/checkpoints', disk),
    (disk) => assert.deepEqual(wholeOnes(disk), [1]),
  );
});

test('save bundle 3, then discard bundle 1: the newest whole bundle is 2 or 3', () => {
  forEachFault(
    (disk) => {
      writeBundle(path(1), bundle(1), disk);
      writeBundle(path(2), bundle(2), disk);
    },
    (disk) => {
      writeBundle(path(3), bundle(3), disk);
      discardBundle(path(1), disk);
    },
    (disk, _, done) => {
      const there = wholeOnes(disk);
      assert.ok([2, 3].includes(Math.max(...there)), there.join());
      if (done) assert.deepEqual(there, [2, 3]);
    },
  );
});

/** A process is killed at each call of an operation; the next one does another, and the power is cut at each call of that. */
function killedThenCut(
  setup: (disk: Disk) => void,
  first: (disk: Disk) => void,
  next: (disk: Disk) => void,
  check: (disk: Disk) => void,
): void {
  for (let n = 1, killed = true; killed; n++) {
    const power = new PowerDisk();
    setup(power.disk);
    killed = endsAt(power, n, first);
    for (let m = 1, cut = true; cut; m++) {
      const copy = power.clone();
      cut = endsAt(copy, m, next);
      for (let seed = 0; seed < 6; seed++) {
        const after = copy.clone();
        after.powerLoss(seed);
        try {
          check(after.disk);
        } catch (error) {
          throw new Error(`killed at call ${n}, power cut at call ${m}, seed ${seed}: ${String(error)}`, { cause: error });
        }
      }
    }
  }
}

/** Whether the operation came to its nth call, where it ends. */
function endsAt(power: PowerDisk, n: number, operation: (disk: Disk) => void): boolean {
  power.failAt(n, 'end');
  try {
    operation(power.disk);
  } catch (error) {
    if (!power.failed) throw error;
  }
  const ended = power.failed;
  power.restart();
  return ended;
}

test('a bundle whose writer was killed before it was synced is safe before an older one goes', () => {
  killedThenCut(
    (disk) => writeBundle(path(1), bundle(1), disk),
    (disk) => writeBundle(path(2), bundle(2), disk),
    (disk) => {
      sweepBundles('/run/checkpoints', disk);
      if (disk.exists(path(2))) {
        readManifest(path(2), disk);
        discardBundle(path(1), disk);
      }
    },
    (disk) => assert.ok(wholeOnes(disk).length > 0, 'no bundle is left'),
  );
});

const self = thisProcess();
/** The same machine after a power cut. */
const later = { ...self, boot: 'a later start of the system' };
const lock = (disk: Disk, who = self): boolean => {
  try {
    acquireLock(FOLDER, 'a test', disk, who);
    return true;
  } catch (error) {
    if (error instanceof LockedError) return false;
    throw error;
  }
};

test('a lock is held if it was acquired, and can be had if not', () => {
  for (const dead of [false, true])
    forEachFault(
      (disk) => {
        disk.mkdir(FOLDER);
        if (dead) acquireLock(FOLDER, 'an earlier one', disk, { ...self, boot: 'an earlier start' });
      },
      (disk) => void acquireLock(FOLDER, 'a test', disk),
      (disk, what, done) => {
        if (what.includes('power cut')) assert.ok(lock(disk, later), 'the lock of an earlier start was respected');
        else if (done) assert.equal(lock(disk), false, 'two holders');
        else if (/^(ENOSPC|EIO at)/.test(what)) assert.ok(lock(disk), 'a lock was left behind');
      },
    );
});

test('a lock that is released can be had; one whose release failed is held, and ends with its process', () => {
  forEachFault(
    (disk) => {
      disk.mkdir(FOLDER);
      return acquireLock(FOLDER, 'a test', disk);
    },
    (_, held) => held.release(),
    (disk, what) => {
      if (what.startsWith('done')) assert.ok(lock(disk, what.includes('power cut') ? later : self));
      if (what.includes('power cut')) assert.ok(disk.list(FOLDER).length === 1 || lock(disk, later));
    },
  );
});
