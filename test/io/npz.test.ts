import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { type NpzArray, NpzError, npzNames, openNpzRows, readNpz, writeNpz } from '../../src/io/npz.js';
import { tableCrc32 } from '../../src/io/zip.js';

let folder = '';
before(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'dsd-npz-'));
});
after(() => fs.rmSync(folder, { recursive: true, force: true }));

/** Files that NumPy wrote; `make.py` beside them says how. The tests run from dist/test/io. */
const fixture = (name: string): string => fileURLToPath(new URL(`../../../test/fixtures/npz/${name}.npz`, import.meta.url));

const written: [string, NpzArray][] = [
  ['arr_0', { dtype: 'uint8', shape: [2, 3, 4, 3], data: Uint8Array.from({ length: 72 }, (_, i) => i) }],
  ['mu', { dtype: 'float64', shape: [5], data: Float64Array.of(-1, -0.5, 0, 0.5, 1) }],
  ['label', { dtype: 'int64', shape: [3], data: BigInt64Array.of(-(2n ** 62n), 0n, 7n) }],
  ['scalar', { dtype: 'float32', shape: [], data: Float32Array.of(1.5) }],
  ['none', { dtype: 'float32', shape: [0, 3], data: new Float32Array(0) }],
];
const zeros: [string, NpzArray] = ['zeros', { dtype: 'float64', shape: [100, 100], data: new Float64Array(10_000) }];

test('what NumPy wrote is read, stored and deflated', () => {
  assert.deepEqual([...readNpz(fixture('stored'))], written);
  assert.deepEqual([...readNpz(fixture('deflated'))], [...written, zeros]);
});

test('only the arrays asked for are read, so that an unreadable neighbour does no harm', () => {
  assert.deepEqual([...readNpz(fixture('objects'), ['plain'])], [['plain', { dtype: 'uint8', shape: [1], data: Uint8Array.of(1) }]]);
  assert.throws(() => readNpz(fixture('stored'), ['arr_1']), /has no array "arr_1"; it has arr_0, mu, label, scalar, none/);
});

test('an array is read row by row, stored or deflated, and the checksum still counts', () => {
  const all = written[0]![1].data as Uint8Array; // arr_0: two rows of 36
  for (const name of ['stored', 'deflated']) {
    assert.deepEqual(npzNames(fixture(name)).slice(0, 2), ['arr_0', 'mu']);
    const rows = openNpzRows(fixture(name), 'arr_0');
    assert.deepEqual(rows.shape, [2, 3, 4, 3]);
    assert.deepEqual([...rows.read(1, 1)], [...all.subarray(36)], 'in any order');
    assert.deepEqual([...rows.read(0, 1), ...rows.read(1, 1)], [...all]);
    assert.equal(rows.read(2, 0).length, 0);
    for (const [first, count] of [
      [0, 3],
      [-1, 1],
      [0.5, 1],
      [3, 0],
    ] as const)
      assert.throws(() => rows.read(first, count), RangeError);
    rows.close();
  }
  const path = join(folder, 'rows.npz');
  const large = new Uint8Array(300 * 1000).map((_, i) => i * 7);
  writeNpz(
    path,
    new Map([
      ['arr_0', { dtype: 'uint8', shape: [300, 1000], data: large }],
      ['none', zeros[1]],
    ]),
  );
  const file = fs.readFileSync(path);
  file[200_000]! ^= 1;
  fs.writeFileSync(path, file);
  const rows = openNpzRows(path, 'arr_0');
  rows.read(0, 250);
  assert.throws(() => rows.read(250, 50), /rows\.npz is not a valid \.npz file: array "arr_0": it is damaged: its checksum differs/);
  rows.close();
  assert.throws(() => openNpzRows(path, 'none'), /array "none" holds no rows of uint8: float64/);
  assert.throws(() => openNpzRows(path, 'other'), /has no array "other"; it has arr_0, none/);
  fs.truncateSync(path, 100_000);
  assert.throws(() => openNpzRows(path, 'arr_0'), NpzError);
});

test('pickles, columns and other types are refused by name', () => {
  const cannot = (reason: RegExp, name: string, array: string): void =>
    assert.throws(
      () => readNpz(fixture(name), [array]),
      (error) => error instanceof NpzError && reason.test(error.message) && error.message.includes(fixture(name)),
    );
  cannot(/element type \|O is not supported/, 'objects', 'pickled');
  cannot(/element type <f2 is not supported/, 'columns', 'small');
  cannot(/numpy\.ascontiguousarray/, 'columns', 'fortran');
});

test('what is written is read, and written again it is the same file', () => {
  const path = join(folder, 'all.npz');
  writeNpz(path, new Map([...written, zeros]));
  const first = fs.readFileSync(path);
  assert.deepEqual([...readNpz(path)], [...written, zeros]);
  writeNpz(path, readNpz(path));
  assert.deepEqual(fs.readFileSync(path), first);
  writeNpz(path, new Map());
  assert.equal(readNpz(path).size, 0);
});

test('a view into a larger buffer writes its own part only', () => {
  const path = join(folder, 'view.npz');
  const data = Float32Array.of(0, 1, 2, 3).subarray(1, 3);
  writeNpz(path, new Map([['é', { dtype: 'float32', shape: [2], data }]]));
  assert.deepEqual([...readNpz(path)], [['é', { dtype: 'float32', shape: [2], data: Float32Array.of(1, 2) }]]);
});

test('shapes that do not fit and impossible names are not written', () => {
  const path = join(folder, 'bad.npz');
  const u8 = (shape: number[]): NpzArray => ({ dtype: 'uint8', shape, data: new Uint8Array(4) });
  for (const shape of [[3], [], [-2, -2], [1.6, 2.5], [2, 2, 2]])
    assert.throws(() => writeNpz(path, new Map([['a', u8(shape)]])), /4 values do not fill the shape/);
  assert.throws(() => writeNpz(path, new Map([['', u8([4])]])), NpzError);
  assert.throws(() => writeNpz(path, new Map([['a\0b', u8([4])]])), NpzError);
  assert.equal(fs.existsSync(path), false);
});

test('files that are no archive, cut at any byte, or too long are refused', () => {
  const path = join(folder, 'cut.npz');
  const good = fs.readFileSync(fixture('stored'));
  for (let length = 0; length < good.length; length += 3) {
    fs.writeFileSync(path, good.subarray(0, length));
    assert.throws(() => readNpz(path), NpzError, `cut to ${length} bytes`);
  }
  fs.writeFileSync(path, 'a text file, long enough to hold a directory if it had one');
  assert.throws(() => readNpz(path), /has no zip directory/);
});

test('a claim to unpack to more than deflate can is refused before memory is taken', () => {
  const path = join(folder, 'bomb.npz');
  const bytes = fs.readFileSync(fixture('deflated'));
  const at = bytes.lastIndexOf(Buffer.from('zeros.npy')) - 46; // the entry in the directory
  assert.equal(bytes.readUInt32LE(at), 0x02014b50);
  bytes.writeUInt32LE(0xf0000000, at + 24);
  fs.writeFileSync(path, bytes);
  assert.throws(() => readNpz(path), /claims to unpack from \d+ bytes to 4026531840/);
});

test('a damaged file is read as it was or refused, and nothing else happens', () => {
  const path = join(folder, 'damaged.npz');
  for (const name of ['stored', 'deflated']) {
    const good = fs.readFileSync(fixture(name));
    const plain = readNpz(fixture(name));
    let refusals = 0;
    const damage = fc.array(fc.record({ at: fc.nat(good.length - 1), to: fc.nat(255) }), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(damage, (steps) => {
        const bytes = Buffer.from(good);
        for (const { at, to } of steps) bytes[at] = to;
        fs.writeFileSync(path, bytes);
        try {
          // The checksum guards the contents: an array that is still there under its name is the same.
          for (const [key, array] of readNpz(path)) if (plain.has(key)) assert.deepEqual(array, plain.get(key));
        } catch (error) {
          if (!(error instanceof NpzError)) throw error;
          refusals++;
        }
      }),
      { numRuns: 1000 },
    );
    assert.ok(refusals > 300, `${refusals} refusals`);
  }
});

test('the checksum is that of zip, whoever computes it', () => {
  const bytes = new TextEncoder().encode('123456789');
  assert.equal(tableCrc32(bytes, 0), 0xcbf43926); // the check value of CRC-32's definition
  assert.equal(tableCrc32(bytes.subarray(4), tableCrc32(bytes.subarray(0, 4), 0)), 0xcbf43926);
});
