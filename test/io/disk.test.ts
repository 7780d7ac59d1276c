import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { FailureError } from '../../src/core/errors.js';
import { type Calls, type Disk, DiskError, disk, openDisk } from '../../src/io/disk.js';

let folder = '';
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'dsd-disk-'));
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

/** The real calls, with a chance to act before each (after a close: a failed one closes too); the log has their names. */
function watched(before: (name: string, n: number) => void): { calls: Calls; log: string[] } {
  const log: string[] = [];
  const calls = new Proxy(fs, {
    get(target, name: keyof Calls) {
      const call = target[name] as (...args: unknown[]) => unknown;
      return (...args: unknown[]) => {
        log.push(name);
        if (name === 'closeSync') call(...args);
        before(name, log.length);
        return name === 'closeSync' ? undefined : call(...args);
      };
    },
  });
  return { calls, log };
}

const systemError = (code: string): Error => Object.assign(new Error(`${code}: as if the system said so`), { code });
const fails = (action: () => unknown, code: string, ...patterns: RegExp[]): void => {
  assert.throws(action, (error) => {
    assert.ok(error instanceof DiskError && error instanceof FailureError, String(error));
    assert.equal(error.code, code);
    for (const pattern of patterns) assert.match(error.message, pattern);
    return true;
  });
};

test('checkWritable asks the nearest folder that is there', () => {
  const deep = join(folder, 'not', 'yet', 'there.png');
  disk.checkWritable(deep);
  disk.checkWritable(folder);
  const asked: string[] = [];
  const denied: Calls = {
    ...fs,
    accessSync: (path) => {
      asked.push(String(path));
      throw Object.assign(new Error('no'), { code: 'EROFS' });
    },
  };
  assert.throws(
    () => openDisk(denied).checkWritable(deep),
    (error) => error instanceof DiskError && /cannot write .*there\.png: its file system is read-only/.test(error.message),
  );
  assert.deepEqual(asked, [folder]);
});

test('what is written is read: text, bytes, chunks, appended lines', () => {
  const path = join(folder, 'file');
  disk.writeFileAtomic(path, 'Größe\n');
  assert.equal(Buffer.from(disk.readFile(path)).toString(), 'Größe\n');
  disk.writeFileAtomic(path, Uint8Array.of(1, 2, 3));
  assert.deepEqual([...disk.readFile(path)], [1, 2, 3]);
  disk.writeFileAtomic(path, [Uint8Array.of(1), new Uint8Array(0), Uint8Array.of(2, 3, 4)]);
  assert.deepEqual([...disk.readFile(path)], [1, 2, 3, 4]);
  disk.append(path, '5');
  disk.append(path, Uint8Array.of(6));
  assert.deepEqual([...disk.readFile(path)], [1, 2, 3, 4, 0x35, 6]);
  disk.writeFileAtomic(path, '');
  assert.equal(disk.readFile(path).length, 0);
  assert.deepEqual(disk.list(folder), ['file']);
});

test('a file is read by position into aligned buffers, and never beyond its end', () => {
  const path = join(folder, 'file');
  disk.writeFileAtomic(path, Uint8Array.of(0, 0, 0, 0x80, 0x3f, 9));
  const file = disk.open(path);
  assert.equal(file.size, 6);
  assert.equal(new Float32Array(file.read(1, 4).buffer)[0], 1);
  fails(() => file.read(4, 3), 'DSD_SHORT', /file: it ends at byte 6 where 1 more/);
  file.close();
});

test('folders: made with those above, listed in order, told apart, removed whole', () => {
  const deep = join(folder, 'a/b/c');
  disk.mkdir(deep);
  disk.mkdir(deep);
  disk.writeFileAtomic(join(deep, 'B'), 'x');
  disk.writeFileAtomic(join(deep, 'a'), 'x');
  assert.deepEqual(disk.list(deep), ['B', 'a']);
  assert.equal(disk.stat(deep).kind, 'folder');
  assert.deepEqual([disk.stat(join(deep, 'a')).kind, disk.stat(join(deep, 'a')).size], ['file', 1]);
  assert.equal(disk.stat('/dev/null').kind, 'other');
  disk.rename(deep, join(folder, 'moved'));
  assert.equal(disk.exists(deep), false);
  assert.equal(disk.exists(join(folder, 'moved/a')), true);
  assert.equal(disk.exists(join(folder, 'moved/a/under a file')), false);
  disk.remove(join(folder, 'moved'));
  disk.remove(join(folder, 'moved'));
  assert.deepEqual(disk.list(folder), ['a']);
});

test('createNew makes a file once', () => {
  const path = join(folder, 'lock');
  assert.equal(disk.createNew(path, 'first'), true);
  assert.equal(disk.createNew(path, 'second'), false);
  assert.equal(Buffer.from(disk.readFile(path)).toString(), 'first');
  fails(() => disk.createNew(join(folder, 'none/lock'), ''), 'ENOENT', /the folder .*none does not exist/);
});

test('writeNew makes a synced file where nothing is, and leaves nothing after an error', () => {
  const path = join(folder, 'part');
  const { calls, log } = watched(() => {});
  openDisk(calls).writeNew(path, [Buffer.from('a'), Buffer.from('b')]);
  assert.deepEqual(log, ['openSync', 'writeSync', 'writeSync', 'fsyncSync', 'closeSync']);
  fails(() => disk.writeNew(path, 'other'), 'EEXIST', /cannot write .*part: something else exists/);
  assert.equal(Buffer.from(disk.readFile(path)).toString(), 'ab');
  failEach(
    (broken) => broken.writeNew(`${path}2`, 'x'),
    () => assert.deepEqual(disk.list(folder), ['part']),
    3,
  );
});

test('sync and syncFolder reach the file and the folder, and a new folder reaches the one above it', () => {
  const path = join(folder, 'log');
  disk.append(path, 'line\n');
  const synced: string[] = [];
  const calls: Calls = {
    ...fs,
    fsyncSync: (fd) => {
      synced.push(fs.readlinkSync(`/proc/self/fd/${fd}`));
      fs.fsyncSync(fd);
    },
  };
  const watchedDisk = openDisk(calls);
  watchedDisk.sync(path);
  watchedDisk.syncFolder(folder);
  watchedDisk.mkdir(join(folder, 'a/b'));
  watchedDisk.mkdir(join(folder, 'a/b'));
  assert.deepEqual(synced, [path, folder, folder, join(folder, 'a')]);
  fails(() => disk.sync(folder), 'EISDIR');
  fails(() => disk.sync(join(folder, 'none')), 'ENOENT');
  fails(() => disk.syncFolder(path), 'ENOTDIR');
});

test('wrong paths fail with their reason', () => {
  const file = join(folder, 'file');
  const pipe = join(folder, 'pipe');
  disk.writeFileAtomic(file, '12345');
  execFileSync('mkfifo', [pipe]);
  fails(() => disk.readFile(join(folder, 'none')), 'ENOENT', /cannot read .*none: no such file/);
  fails(() => disk.list(join(folder, 'none')), 'ENOENT', /no such file or folder/);
  fails(() => disk.stat(join(folder, 'none')), 'ENOENT', /no such file or folder/);
  fails(() => disk.writeFileAtomic(join(folder, 'none/x'), ''), 'ENOENT', /cannot write .*the folder .*none does not exist/);
  fails(() => disk.readFile(join(file, 'x')), 'ENOTDIR', /a part of this path is a file/);
  fails(() => disk.mkdir(join(file, 'x')), 'ENOTDIR', /a part of this path is a file/);
  fails(() => disk.mkdir(file), 'EEXIST', /something else exists/);
  fails(() => disk.mkdir('/proc/dsd/run'), 'ENOENT', /takes no new folders/); // Node's recursive mkdir would never return
  fails(() => disk.readFile(folder), 'EISDIR', /it is a folder/);
  fails(() => disk.writeFileAtomic(folder, 'x'), 'EISDIR', /it is a folder/);
  fails(() => disk.readFile(pipe), 'DSD_SPECIAL', /a pipe or a device/);
  fails(() => disk.readFile(join(folder, 'x'.repeat(300))), 'ENAMETOOLONG', /has 300 characters/);
  fails(() => disk.readFile('a\0b'), 'ERR_INVALID_ARG_VALUE', /zero byte/);
  fails(() => disk.readFile(file, 4), 'DSD_LARGE', /5 bytes, and at most 4/);
  fails(() => disk.append('/dev/full', 'x'), 'ENOSPC', /the disk is full/);
  assert.equal(disk.readFile(file, 5).length, 5);
});

test('every reason of the system becomes a message with the path and a remedy', () => {
  const path = join(folder, 'file');
  for (const [code, remedy] of [
    ['ENOSPC', /Free some space/],
    ['EDQUOT', /Remove files of yours/],
    ['EACCES', /Check the owner and the rights/],
    ['EPERM', /Check the owner and the rights/],
    ['EROFS', /Choose a folder elsewhere/],
    ['EMFILE', /ulimit -n/],
    ['ENFILE', /ulimit -n/],
    ['EIO', /dmesg/],
    ['ELOOP', /symbolic links/],
    ['EFBIG', /ulimit -f/],
    ['EWHATEVER', /as if the system said so/],
  ] as const) {
    const { calls } = watched(() => {
      throw systemError(code);
    });
    const broken = openDisk(calls);
    for (const action of [
      () => broken.mkdir(path),
      () => broken.readFile(path),
      () => broken.open(path),
      () => broken.writeFileAtomic(path, 'x'),
      () => broken.createNew(path, 'x'),
      () => broken.writeNew(path, 'x'),
      () => broken.sync(path),
      () => broken.syncFolder(path),
      () => broken.append(path, 'x'),
      () => broken.rename(path, path),
      () => broken.exists(path),
      () => broken.list(path),
      () => broken.stat(path),
      () => broken.remove(path),
    ]) {
      fails(action, code, remedy, /^cannot (read|write|remove|make folder) .*file: /);
    }
  }
});

/** Fails call 1, then 2, ... of an operation until it passes; after each failure `check` looks at the disk. */
function failEach(operation: (broken: Disk) => void, check: (reached: readonly string[]) => void, atLeast = 4): void {
  for (let failing = 1; ; failing++) {
    const { calls, log } = watched((_, n) => {
      if (n === failing) throw systemError('EIO');
    });
    try {
      operation(openDisk(calls));
      assert.ok(failing >= atLeast, 'the calls were not watched');
      return;
    } catch (error) {
      assert.ok(error instanceof DiskError && error.code === 'EIO', String(error));
      check(log);
    }
  }
}

test('whichever call of an atomic write fails, the file is the old or the new one and no temporary one is left', () => {
  const path = join(folder, 'file');
  disk.writeFileAtomic(path, 'old');
  failEach(
    (broken) => broken.writeFileAtomic(path, [Buffer.from('ne'), Buffer.from('w')]),
    (log) => {
      const content = Buffer.from(disk.readFile(path)).toString();
      const failedAt = log.lastIndexOf('renameSync');
      // Only what follows the rename may fail with the new content in place.
      assert.equal(content, failedAt >= 0 && log.length > failedAt + 1 && log[failedAt + 1] !== 'unlinkSync' ? 'new' : 'old');
      assert.deepEqual(disk.list(folder), ['file']);
      disk.writeFileAtomic(path, 'old');
    },
  );
  assert.equal(Buffer.from(disk.readFile(path)).toString(), 'new');
});

test('an atomic write syncs the file before the rename and the folder after it', () => {
  const { calls, log } = watched(() => {});
  openDisk(calls).writeFileAtomic(join(folder, 'file'), 'x');
  const order = ['openSync', 'writeSync', 'fsyncSync', 'closeSync', 'renameSync', 'openSync', 'fsyncSync', 'closeSync'];
  assert.deepEqual(log, order);
});

test('a folder that cannot be synced because its file system knows no such thing is no error', () => {
  const { calls } = watched((name, n) => {
    if (name === 'fsyncSync' && n > 4) throw systemError('EINVAL');
  });
  openDisk(calls).writeFileAtomic(join(folder, 'file'), 'x');
  assert.deepEqual(disk.list(folder), ['file']);
});

test('whichever call of createNew fails, it says so and leaves nothing half made', () => {
  const path = join(folder, 'lock');
  failEach(
    (broken) => broken.createNew(path, 'mine'),
    () => assert.equal(disk.exists(path), false),
  );
});

test('a failed append takes back what it wrote', () => {
  const path = join(folder, 'log');
  disk.append(path, 'line 1\n');
  const short: Calls = {
    ...fs,
    writeSync: ((fd: number, bytes: Uint8Array, at: number) => {
      if (at >= 3) throw systemError('ENOSPC');
      return fs.writeSync(fd, bytes, at, 3);
    }) as Calls['writeSync'],
  };
  fails(() => openDisk(short).append(path, 'line 2\n'), 'ENOSPC', /disk is full/);
  assert.equal(Buffer.from(disk.readFile(path)).toString(), 'line 1\n');
});

test('short writes and short reads are continued', () => {
  const path = join(folder, 'file');
  const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i);
  const short: Calls = {
    ...fs,
    writeSync: ((fd: number, data: Uint8Array, at: number, length: number) =>
      fs.writeSync(fd, data, at, Math.min(7, length))) as Calls['writeSync'],
    readSync: ((fd: number, data: Uint8Array, at: number, length: number, position: number) =>
      fs.readSync(fd, data, at, Math.min(11, length), position)) as Calls['readSync'],
  };
  openDisk(short).writeFileAtomic(path, bytes);
  assert.deepEqual(disk.readFile(path), bytes);
  assert.deepEqual(openDisk(short).readFile(path), bytes);
});

test('an error of what makes the chunks passes through and leaves no temporary file', () => {
  function* chunks(): Generator<Uint8Array> {
    yield Uint8Array.of(1);
    throw new TypeError('a bug elsewhere');
  }
  assert.throws(() => disk.writeFileAtomic(join(folder, 'file'), chunks()), TypeError);
  assert.deepEqual(disk.list(folder), []);
});

test('no descriptor is left open, whatever fails', () => {
  const open = (): number => fs.readdirSync('/proc/self/fd').length;
  const before = open();
  const path = join(folder, 'file');
  const closed = (): void => assert.equal(open(), before);
  failEach((broken) => broken.writeFileAtomic(path, 'x'), closed);
  failEach((broken) => broken.createNew(`${path}2`, 'x'), closed);
  failEach((broken) => broken.append(path, 'x'), closed);
  failEach((broken) => void broken.open(path).close(), closed);
  disk.readFile(path);
  closed();
});
