import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Calls, type Disk, DiskError, openDisk } from '../../src/io/disk.js';
import { Ended, PowerDisk } from './power-disk.js';

const FOLDER = '/run';
const FILE = '/run/file';
/** Longer than the piece that the simulated device writes at once, so that it is garbled in parts. */
const OLD = 'the old content of the file, which is of some length\n';

const read = (disk: Disk, path: string): string => Buffer.from(disk.readFile(path)).toString('latin1');

/** All that power cuts of many seeds make of a disk, as `look` tells them, in order. */
function outcomes(prepare: (disk: Disk, calls: Calls) => void, look: (disk: Disk) => string): string[] {
  const power = new PowerDisk();
  prepare(power.disk, power.calls);
  const seen = new Set<string>();
  for (let seed = 0; seed < 400; seed++) {
    const copy = power.clone();
    copy.powerLoss(seed);
    seen.add(look(copy.disk));
  }
  return [...seen].sort();
}

/** Files and empty folders under /run. */
function contents(disk: Disk, folder = ''): string {
  return disk
    .list(FOLDER + folder)
    .flatMap((name) => {
      const path = `${folder}/${name}`;
      if (disk.stat(FOLDER + path).kind === 'folder') return contents(disk, path) || `${path.slice(1)}/`;
      return `${path.slice(1)}=${read(disk, FOLDER + path)}`;
    })
    .join();
}

test('content that is not synced is lost, kept, cut off or garbled, and what was synced stays', () => {
  const tail = 'n'.repeat(40);
  const all = outcomes(
    (disk) => {
      disk.mkdir(FOLDER);
      disk.writeFileAtomic(FILE, OLD);
      disk.append(FILE, tail);
    },
    (disk) => read(disk, FILE),
  );
  for (const text of all) assert.ok(text.startsWith(OLD));
  const tails = all.map((text) => text.slice(OLD.length));
  assert.ok(tails.includes('') && tails.includes(tail));
  for (const length of [1, 39]) assert.ok(tails.includes(tail.slice(0, length)), 'cut off anywhere');
  assert.ok(
    tails.some((text) => /^n+\0+n+$/.test(text) && text.length === 40),
    'zeros in the middle',
  );
  assert.ok(
    tails.some((text) => /[^n\0]/.test(text)),
    'other bytes',
  );

  const lengths = outcomes(
    (disk) => {
      disk.mkdir(FOLDER);
      disk.createNew(FILE, '');
      disk.append(FILE, OLD);
    },
    (disk) => String(disk.stat(FILE).size),
  );
  assert.ok(lengths.length > OLD.length / 2, 'any length');
});

test('names that are not synced are there or not, each for itself, and a rename happens or not', () => {
  const after = (last: (disk: Disk, calls: Calls) => void): string[] =>
    outcomes((disk, calls) => {
      disk.mkdir(FOLDER);
      disk.createNew('/run/a', 'A');
      disk.createNew('/run/b', 'B');
      last(disk, calls);
    }, contents);
  const made = after((disk) => {
    disk.writeNew('/run/c', 'C');
    disk.writeNew('/run/d', 'D');
  });
  assert.deepEqual(made, ['a=A,b=B', 'a=A,b=B,c=C', 'a=A,b=B,c=C,d=D', 'a=A,b=B,d=D']);
  const removed = after((disk) => {
    disk.remove('/run/a');
    disk.remove('/run/b');
  });
  assert.deepEqual(removed, ['', 'a=A', 'a=A,b=B', 'b=B']);
  const replaced = after((disk) => {
    disk.remove('/run/a');
    disk.writeNew('/run/a', 'new');
  });
  assert.deepEqual(replaced, ['a=A,b=B', 'a=new,b=B', 'b=B']);
  assert.deepEqual(
    after((disk) => disk.mkdir('/run/c/d')),
    ['a=A,b=B,c/d/'],
  );
  // Through `Disk` a rename is synced.
  assert.deepEqual(
    after((_, calls) => calls.renameSync('/run/a', '/run/c')),
    ['a=A,b=B', 'b=B,c=A'],
  );
  assert.deepEqual(
    after((_, calls) => calls.renameSync('/run/a', '/run/b')),
    ['a=A,b=B', 'b=A'],
  );
});

test('a rename from folder to folder leaves the old name, the new one or both', () => {
  const after = (what: string, last: (disk: Disk) => void): string[] =>
    outcomes((disk, calls) => {
      disk.mkdir('/run/from/b');
      disk.mkdir('/run/to');
      disk.createNew('/run/from/a', 'A');
      calls.renameSync(`/run/from/${what}`, `/run/to/${what}`);
      last(disk);
    }, contents);
  const nothing = (): void => {};
  assert.deepEqual(after('a', nothing), ['from/a=A,from/b/,to/', 'from/a=A,from/b/,to/a=A', 'from/b/,to/a=A']);
  assert.deepEqual(after('b', nothing), ['from/a=A,from/b/,to/', 'from/a=A,to/b/']);
  assert.deepEqual(
    after('a', (disk) => disk.syncFolder('/run/to')),
    ['from/a=A,from/b/,to/a=A', 'from/b/,to/a=A'],
  );
  assert.deepEqual(
    after('a', (disk) => disk.syncFolder('/run/from')),
    ['from/b/,to/a=A'],
  );
});

test('a fault comes at its call, and a process that ended does nothing more', () => {
  const power = new PowerDisk();
  const { disk } = power;
  disk.createNew(FILE.replace('/run', ''), OLD);
  const code = (action: () => void): string => {
    try {
      action();
    } catch (error) {
      if (error instanceof DiskError) return error.code;
      return error instanceof Ended ? 'ended' : 'another error';
    }
    return 'none';
  };
  const append = (): void => disk.append('/file', 'four');
  const size = (): number => disk.stat('/file').size - OLD.length;

  power.failAt(3, 'ENOSPC'); // open, fstat, write, and ftruncate takes back
  assert.deepEqual([code(append), power.failed, size(), code(append), size()], ['ENOSPC', true, 0, 'none', 4]);
  power.failAt(3, 'EIO for good'); // the half that was written stays
  assert.deepEqual([code(append), code(append)], ['EIO', 'EIO']);
  power.restart();
  assert.equal(size(), 6);
  power.failAt(3, 'end');
  assert.deepEqual([code(append), code(() => disk.stat('/file'))], ['ended', 'ended']);
  assert.ok(power.failed);
  power.restart();
  assert.equal(size(), 6);
  assert.equal(power.open, 0);
  const before = disk.stat('/file').modified;
  power.powerLoss(0);
  assert.equal(size(), 0);
  assert.ok(before - disk.stat('/file').modified >= 3_600_000);
});

test('without faults it does what the real disk does', () => {
  const names = ['a', 'b', 'a/a', 'a/b', 'b/a', 'a/a/b'];
  const name = fc.constantFrom(...names);
  const text = fc.constantFrom('', 'x', 'yz');
  type Run = (disk: Disk, root: string) => unknown;
  interface Step {
    readonly what: string;
    readonly run: Run;
  }
  const step = fc.oneof<fc.Arbitrary<Step>[]>(
    name.map((n) => ({ what: `mkdir ${n}`, run: (disk, root) => disk.mkdir(join(root, n)) })),
    ...(['writeFileAtomic', 'createNew', 'writeNew', 'append'] as const).map((call) =>
      fc.tuple(name, text).map(([n, t]) => ({ what: `${call} ${n} '${t}'`, run: ((disk, root) => disk[call](join(root, n), t)) as Run })),
    ),
    fc.tuple(name, name).map(([n, m]) => ({ what: `rename ${n} ${m}`, run: (disk, root) => disk.rename(join(root, n), join(root, m)) })),
    ...(['exists', 'list', 'remove', 'sync', 'syncFolder', 'checkWritable'] as const).map((call) =>
      name.map((n) => ({ what: `${call} ${n}`, run: ((disk, root) => disk[call](join(root, n))) as Run })),
    ),
    name.map((n) => ({ what: `readFile ${n}`, run: (disk, root) => read(disk, join(root, n)) })),
    name.map((n) => ({
      what: `stat ${n}`,
      run: (disk, root) => {
        const { kind, size } = disk.stat(join(root, n));
        return [kind, kind === 'file' && size];
      },
    })),
  );
  const result = (run: Run, disk: Disk, root: string): unknown => {
    try {
      return run(disk, root) ?? 'done';
    } catch (error) {
      if (error instanceof DiskError) return error.code;
      throw error;
    }
  };
  const real = openDisk({ ...fs, fsyncSync: () => {} });
  const place = fs.mkdtempSync(join(tmpdir(), 'dsd-power-'));
  try {
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 30 }), (steps) => {
        const root = fs.mkdtempSync(join(place, 'x'));
        const simulated = new PowerDisk().disk;
        simulated.mkdir(root);
        for (const { what, run } of steps) assert.deepEqual(result(run, simulated, root), result(run, real, root), what);
        for (const n of names)
          for (const call of ['exists', 'list'] as const) {
            const look: Run = (disk) => disk[call](join(root, n));
            assert.deepEqual(result(look, simulated, root), result(look, real, root), `${call} ${n}`);
          }
      }),
      { numRuns: 300 },
    );
  } finally {
    fs.rmSync(place, { recursive: true });
  }
});
