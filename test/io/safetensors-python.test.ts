/** Files between here and Python's `safetensors`: its files are in test/fixtures/safetensors, made by make.py there. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { encodeSafetensors, readSafetensors, type SafeTensor, type Safetensors } from '../../src/io/safetensors.js';
import { expected, METADATA, sha256, TENSORS } from './safetensors-sample.js';

const fixtures = fileURLToPath(new URL('../../../test/fixtures/safetensors', import.meta.url)); // from dist/test/io
const fromPython = (name: string): Safetensors => readSafetensors(join(fixtures, `${name}.safetensors`));

/** Of a tensor's bytes, its shape and the values as numbers of the view. */
function values<T>(tensor: SafeTensor | undefined, View: new (buffer: ArrayBufferLike) => Iterable<T>): T[] {
  assert.ok(tensor);
  return [...new View(tensor.data.buffer)];
}

test("every type of Python's is read, to the ends of its range", () => {
  const { tensors, metadata } = fromPython('types');
  assert.equal(metadata.size, 0);
  const types = [...tensors].map(([name, { dtype, shape }]) => `${name} ${dtype} ${shape}`).sort();
  const wanted = ['f64 F64 6', 'f32 F32 6', 'f16 F16 6', 'bf16 BF16 6', 'i64 I64 4', 'i32 I32 4', 'i16 I16 4', 'i8 I8 4', 'u8 U8 5'];
  assert.deepEqual(types, [...wanted, 'bool BOOL 3'].sort());
  const { fround } = Math;
  assert.deepEqual(values(tensors.get('f64'), Float64Array), [0.1, -0, 5e-324, 1.7976931348623157e308, -Infinity, NaN]);
  assert.deepEqual(values(tensors.get('f32'), Float32Array), [...[0.1, -0, 1e-45, 3.4028235e38].map(fround), -Infinity, NaN]);
  assert.deepEqual(values(tensors.get('f16'), Uint16Array), [0x2e66, 0x8000, 0x0001, 0x7bff, 0xfc00, 0x7e00]);
  assert.deepEqual(values(tensors.get('bf16'), Uint16Array), [0x3dcd, 0x8000, 0x0001, 0x7f7f, 0xff80, 0x7fc0]);
  assert.deepEqual(values(tensors.get('i64'), BigInt64Array), [-(2n ** 63n), -1n, 0n, 2n ** 63n - 1n]);
  assert.deepEqual(values(tensors.get('i32'), Int32Array), [-(2 ** 31), -1, 0, 2 ** 31 - 1]);
  assert.deepEqual(values(tensors.get('i16'), Int16Array), [-(2 ** 15), -1, 0, 2 ** 15 - 1]);
  assert.deepEqual(values(tensors.get('i8'), Int8Array), [-128, -1, 0, 127]);
  assert.deepEqual(values(tensors.get('u8'), Uint8Array), [0, 1, 127, 128, 255]);
  assert.deepEqual(values(tensors.get('bool'), Uint8Array), [0, 1, 1]);
});

test("Python's tensors without axes, without elements and of many axes are read", () => {
  const { tensors } = fromPython('shapes');
  assert.deepEqual(Object.fromEntries([...tensors].map(([name, { dtype, shape }]) => [name, [dtype, ...shape]])), {
    scalar: ['F32'],
    none: ['F64', 0],
    'none in the middle': ['I16', 2, 0, 3],
    matrix: ['I32', 2, 3],
    ones: ['U8', 1, 1, 1, 1, 1, 1, 1, 1],
    'five axes': ['U8', 1, 2, 3, 4, 2],
  });
  assert.deepEqual(values(tensors.get('scalar'), Float32Array), [1.5]);
  assert.deepEqual(values(tensors.get('none'), Float64Array), []);
  assert.deepEqual(values(tensors.get('none in the middle'), Int16Array), []);
  assert.deepEqual(values(tensors.get('matrix'), Int32Array), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(values(tensors.get('ones'), Uint8Array), [7]);
  const all = Array.from({ length: 48 }, (_, i) => i);
  assert.deepEqual(values(tensors.get('five axes'), Uint8Array), all);
});

test("Python's names and metadata are read, whatever is in them; files of nothing too", () => {
  const names = ['', ' ', 'é', 'e\u0301', '重み', '\u{1f600}', '"\\/', '\n\t\0\x1f', '\u2028', '__proto__', 'constructor', 'x'.repeat(300)];
  const { tensors, metadata } = fromPython('names');
  assert.equal(tensors.size, names.length);
  assert.equal(metadata.size, names.length);
  for (const [i, name] of names.entries()) {
    assert.deepEqual(tensors.get(name), { dtype: 'U8', shape: [1], data: Uint8Array.of(i) });
    assert.equal(metadata.get(name), `<${name}>`);
  }
  assert.deepEqual(fromPython('empty'), { tensors: new Map(), metadata: new Map() });
  assert.deepEqual(fromPython('only-metadata'), { tensors: new Map(), metadata: new Map([['config', '{"a": [1, 2.5]}']]) });
});

test('the file that Python was seen to load is the one that we write', () => {
  // Loaded, and compared value by value, by safetensors 0.8.0 (make.py --check). Who changes the writer: check again, then change this.
  assert.equal(sha256(encodeSafetensors(TENSORS, METADATA)), '2aaaa0222d2c03835dca2306db81f909fb6c44142fd7a54adbb39c7e1c67db78');
});

test('Python loads what we write, where it has safetensors', (t) => {
  if (spawnSync('python3', ['-c', 'import numpy, safetensors']).status !== 0) return t.skip('no Python with safetensors here');
  const folder = mkdtempSync(join(tmpdir(), 'dsd-python-'));
  try {
    const [file, wanted] = [join(folder, 'ours.safetensors'), join(folder, 'expected.json')];
    const program = fileURLToPath(new URL('./safetensors-sample.js', import.meta.url));
    assert.equal(spawnSync(process.execPath, [program, file, wanted], { encoding: 'utf8' }).stderr, '');
    const { stdout, stderr } = spawnSync('python3', [join(fixtures, 'make.py'), '--check', file, wanted], { encoding: 'utf8' });
    assert.match(stdout, new RegExp(`^${Object.keys(expected().tensors).length} tensors loaded as expected by safetensors `), stderr);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
