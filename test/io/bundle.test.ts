import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { FailureError } from '../../src/core/errors.js';
import { BundleError, discardBundle, readManifest, sweepBundles, verifyBundle, writeBundle } from '../../src/io/bundle.js';
import { type Calls, type Content, DiskError, openDisk } from '../../src/io/disk.js';

let folder = '';
let path = '';
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'dsd-bundle-'));
  path = join(folder, 'checkpoints', '100');
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

const FILES = new Map<string, Content>([
  ['state.json', '{"images": 100}'],
  ['weights', [Uint8Array.of(1, 2), new Uint8Array(0), Uint8Array.of(3)]],
  ['empty', new Uint8Array(0)],
]);

const sha256 = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex');
const broken = (action: () => unknown, reason: RegExp): void => {
  assert.throws(action, (error) => {
    assert.ok(error instanceof BundleError && error instanceof FailureError, String(error));
    assert.match(error.reason, reason);
    assert.ok(error.message.includes(error.reason) && error.message.includes(error.path), error.message);
    assert.equal(error.path, path);
    return true;
  });
};
/** Both ways of looking at the bundle fail alike. */
const brokenBothWays = (reason: RegExp): void => {
  broken(() => readManifest(path), reason);
  broken(() => verifyBundle(path), reason);
};

test('a bundle holds its files and a manifest with their sizes and hashes', () => {
  writeBundle(path, FILES);
  const expected = new Map([
    ['state.json', { size: 15, sha256: sha256('{"images": 100}') }],
    ['weights', { size: 3, sha256: sha256(Uint8Array.of(1, 2, 3)) }],
    ['empty', { size: 0, sha256: sha256('') }],
  ]);
  assert.deepEqual(readManifest(path).files, expected);
  assert.deepEqual(verifyBundle(path).files, expected);
  assert.deepEqual(fs.readdirSync(path).sort(), ['empty', 'manifest.json', 'state.json', 'weights']);
  assert.deepEqual([...fs.readFileSync(join(path, 'weights'))], [1, 2, 3]);
  assert.deepEqual(fs.readdirSync(join(folder, 'checkpoints')), ['100']);
});

test('an empty bundle is whole, and a bundle is never written over', () => {
  writeBundle(path, new Map());
  assert.equal(verifyBundle(path).files.size, 0);
  assert.throws(() => writeBundle(path, FILES), /cannot write .*100: it exists, and a bundle is never written over/);
  assert.equal(verifyBundle(path).files.size, 0);
});

test('names that are paths, or the name of the manifest, are refused before anything is written', () => {
  for (const name of ['', '.', '..', 'a/b', '/a', 'a\\b', 'a\0', 'manifest.json'])
    assert.throws(() => writeBundle(path, new Map([[name, 'x']])), RangeError, name);
  assert.deepEqual(fs.readdirSync(folder), []);
});

test('every file is synced before the manifest, the folder before its name, and the folder above last', () => {
  const log: string[] = [];
  const short = (file: string): string => (/\.dsd-[0-9a-f]+\.tmp$/.test(file) ? 'TEMPORARY' : basename(file));
  const calls: Calls = {
    ...fs,
    fsyncSync: (fd) => log.push(`sync ${short(fs.readlinkSync(`/proc/self/fd/${fd}`))}`),
    renameSync: (from, to) => {
      log.push(`rename ${short(String(from))} ${short(String(to))}`);
      fs.renameSync(from, to);
    },
  };
  fs.mkdirSync(join(folder, 'checkpoints'));
  const two = new Map([...FILES].slice(0, 2));
  writeBundle(path, two, openDisk(calls));
  // The first is the temporary folder's own name, which nothing depends on.
  assert.deepEqual(log.slice(1), [
    'sync state.json',
    'sync weights',
    'sync manifest.json',
    'sync TEMPORARY',
    'rename TEMPORARY 100',
    'sync checkpoints',
  ]);
});

test('a chunk is asked for when the one before is written', () => {
  const order: string[] = [];
  const calls: Calls = {
    ...fs,
    writeSync: ((fd: number, bytes: Uint8Array, at: number, length: number) => {
      order.push(`write ${bytes[0]}`);
      return fs.writeSync(fd, bytes, at, length);
    }) as Calls['writeSync'],
  };
  function* chunks(): Generator<Uint8Array> {
    for (const n of [1, 2]) {
      order.push(`make ${n}`);
      yield Uint8Array.of(n);
    }
  }
  writeBundle(path, new Map([['weights', chunks()]]), openDisk(calls));
  assert.deepEqual(order.slice(0, 4), ['make 1', 'write 1', 'make 2', 'write 2']);
});

test('after an error of the disk or of what makes the chunks, nothing is left', () => {
  const full: Calls = {
    ...fs,
    writeSync: (() => {
      throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
    }) as Calls['writeSync'],
  };
  assert.throws(
    () => writeBundle(path, FILES, openDisk(full)),
    (error) => error instanceof DiskError && error.code === 'ENOSPC',
  );
  function* chunks(): Generator<Uint8Array> {
    yield Uint8Array.of(1);
    throw new TypeError('a bug elsewhere');
  }
  assert.throws(() => writeBundle(path, new Map([['weights', chunks()]])), TypeError);
  assert.deepEqual(fs.readdirSync(join(folder, 'checkpoints')), []);
});

test('what is missing, too much, of another size or kind is found without reading contents', () => {
  broken(() => readManifest(path), /does not exist/);
  writeBundle(path, FILES);
  const weights = join(path, 'weights');

  fs.appendFileSync(weights, 'x');
  brokenBothWays(/weights has 4 bytes and should have 3/);
  fs.truncateSync(weights, 2);
  brokenBothWays(/weights has 2 bytes/);
  fs.rmSync(weights);
  brokenBothWays(/weights is missing/);
  fs.mkdirSync(weights);
  brokenBothWays(/weights is not a file/);
  fs.rmdirSync(weights);
  fs.writeFileSync(weights, Uint8Array.of(1, 2, 3));
  verifyBundle(path);
  fs.writeFileSync(join(path, 'more'), '');
  brokenBothWays(/more does not belong/);
  fs.rmSync(join(path, 'more'));
  fs.rmSync(join(path, 'manifest.json'));
  brokenBothWays(/has no manifest.json/);
  fs.rmSync(path, { recursive: true });
  fs.writeFileSync(path, '');
  brokenBothWays(/not a folder/);
});

test('another content of the same size is found by verifying', () => {
  writeBundle(path, FILES);
  fs.writeFileSync(join(path, 'weights'), Uint8Array.of(1, 2, 4));
  readManifest(path);
  broken(() => verifyBundle(path), /content of weights is not what was written/);
});

test('a manifest that is none is found', () => {
  writeBundle(path, FILES);
  const manifest = join(path, 'manifest.json');
  const good = fs.readFileSync(manifest);
  const text = good.toString();
  for (let length = 0; length < good.length - 1; length += 7) {
    fs.writeFileSync(manifest, good.subarray(0, length));
    brokenBothWays(/manifest.json is not/);
  }
  const entry = { name: 'weights', size: 3, sha256: sha256('') };
  const wrong: [string | Uint8Array, RegExp][] = [
    [Uint8Array.of(0xff), /not a manifest/],
    [new Uint8Array(good.length), /not valid JSON/],
    ['null', /not a manifest/],
    ['[]', /not a manifest/],
    ['{"format":"dsd-bundle","version":1}', /not a manifest/],
    ['{"format":"dsd-bundle","version":1,"files":[null]}', /not a manifest/],
    [text.replace('dsd-bundle', 'other'), /not a manifest/],
    [text.replace('"version": 1', '"version": 2'), /has version 2, and this program knows version 1/],
    [' '.repeat(2 ** 20) + text, /not a manifest/],
    ...[
      { ...entry, name: '../weights' },
      { ...entry, name: 'manifest.json' },
      { ...entry, name: 7 },
      { ...entry, size: -1 },
      { ...entry, size: 0.5 },
      { ...entry, size: '3' },
      { ...entry, sha256: 'abc' },
      { ...entry, sha256: undefined },
    ].map((e): [string, RegExp] => [JSON.stringify({ format: 'dsd-bundle', version: 1, files: [e] }), /has a wrong entry/]),
    [JSON.stringify({ format: 'dsd-bundle', version: 1, files: [entry, entry] }), /has a wrong entry/],
  ];
  for (const [content, reason] of wrong) {
    fs.writeFileSync(manifest, content);
    brokenBothWays(reason);
  }
  fs.rmSync(manifest);
  fs.mkdirSync(manifest);
  brokenBothWays(/not a manifest/);
  fs.rmdirSync(manifest);
  fs.writeFileSync(manifest, good);
  verifyBundle(path);
});

test('a file that the device cannot read is an error of the disk, not a broken bundle', () => {
  writeBundle(path, FILES);
  const calls: Calls = {
    ...fs,
    readSync: (() => {
      throw Object.assign(new Error('EIO'), { code: 'EIO' });
    }) as Calls['readSync'],
  };
  for (const look of [readManifest, verifyBundle])
    assert.throws(
      () => look(path, openDisk(calls)),
      (error) => error instanceof DiskError && error.code === 'EIO',
    );
});

test('verifying tells how far it is, a piece at a time', () => {
  const large = 2 ** 24 + 5;
  writeBundle(path, new Map<string, Content>([['large', new Uint8Array(large)], ...FILES]));
  const seen: [number, number][] = [];
  verifyBundle(path, undefined, (bytes, of) => seen.push([bytes, of]));
  const of = large + 18;
  assert.deepEqual(seen, [
    [2 ** 24, of],
    [large, of],
    [large + 15, of],
    [of, of],
  ]);
});

test('a discarded bundle loses its name before anything of it is removed', () => {
  writeBundle(path, FILES);
  const stuck: Calls = {
    ...fs,
    rmSync: () => {
      throw Object.assign(new Error('EIO'), { code: 'EIO' });
    },
  };
  assert.throws(() => discardBundle(path, openDisk(stuck)), DiskError);
  assert.equal(fs.existsSync(path), false);
  const parent = join(folder, 'checkpoints');
  const left = fs.readdirSync(parent);
  assert.equal(left.length, 1);
  assert.deepEqual(sweepBundles(parent), left);
  writeBundle(path, FILES);
  discardBundle(path);
  discardBundle(path);
  assert.deepEqual(fs.readdirSync(parent), []);
});

test('a sweep removes what crashes leave, folders and files, and nothing else', () => {
  writeBundle(path, FILES);
  const parent = join(folder, 'checkpoints');
  fs.mkdirSync(join(parent, '.dsd-00ff.tmp'));
  fs.writeFileSync(join(parent, '.dsd-00ff.tmp', 'weights'), 'x');
  fs.writeFileSync(join(parent, '.dsd-12.tmp'), 'x');
  for (const other of ['.dsd-zz.tmp', 'x.dsd-12.tmp', '.dsd-12.tmp.bak', '.dsd-.tmp']) fs.writeFileSync(join(parent, other), 'x');
  assert.deepEqual(sweepBundles(parent), ['.dsd-00ff.tmp', '.dsd-12.tmp']);
  assert.deepEqual(fs.readdirSync(parent).sort(), ['.dsd-.tmp', '.dsd-12.tmp.bak', '.dsd-zz.tmp', '100', 'x.dsd-12.tmp']);
  assert.deepEqual(sweepBundles(parent), []);
  assert.deepEqual(sweepBundles(join(folder, 'none')), []);
  verifyBundle(path);
});
