import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  encodeSafetensors,
  parseSafetensors,
  readSafetensors,
  type SafeDType,
  type SafeTensor,
  SafetensorsError,
  writeSafetensors,
} from '../../src/io/safetensors.js';
import { TYPES } from './safetensors-types.js';

/** A file from a header's text, with its length before and `data` zero bytes behind. */
function file(header: string | Uint8Array, data = 0, claimed?: bigint): Uint8Array {
  const json = typeof header === 'string' ? Buffer.from(header) : header;
  const bytes = new Uint8Array(8 + json.byteLength + data);
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(json.byteLength), true);
  bytes.set(json, 8);
  return bytes;
}
const parse = (header: string | Uint8Array, data = 0, claimed?: bigint) => parseSafetensors(file(header, data, claimed), 'weights');
const refused = (reason: RegExp, header: string | Uint8Array, data = 0, claimed?: bigint): void =>
  assert.throws(
    () => parse(header, data, claimed),
    (error) => {
      assert.ok(error instanceof SafetensorsError, String(error));
      assert.match(error.message, /^weights is not a valid safetensors file: /);
      assert.match(error.message, reason);
      return true;
    },
  );
const tensor = (dtype: SafeDType, shape: number[], data: Uint8Array): SafeTensor => ({ dtype, shape, data });
const together = (chunks: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(chunks));

const anyTensor = fc
  .record({ type: fc.constantFrom(...TYPES), shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }), seed: fc.nat() })
  .map(({ type: [dtype, width], shape, seed }) => {
    const length = shape.reduce((a, b) => a * b, width);
    const data = Uint8Array.from({ length }, (_, i) => (seed + i * 7) % (dtype === 'BOOL' ? 2 : 256));
    return tensor(dtype, shape, data);
  });
const anyText = fc.string({ unit: 'grapheme', maxLength: 12 });
const anyTensors = fc
  .array(fc.tuple(fc.oneof(anyText, fc.constantFrom('__proto__', 'constructor', 'toString', '"\\\n')), anyTensor), { maxLength: 6 })
  .map((pairs) => new Map(pairs));
const anyMetadata = fc.array(fc.tuple(anyText, anyText), { maxLength: 4 }).map((pairs) => new Map(pairs));

test('what is encoded is parsed again, to the byte', () => {
  fc.assert(
    fc.property(anyTensors, anyMetadata, (tensors, metadata) => {
      const found = parseSafetensors(together(encodeSafetensors(tensors, metadata)), 'weights');
      assert.deepEqual(new Map([...found.tensors].sort()), new Map([...tensors].sort()));
      assert.deepEqual(found.metadata, new Map([...metadata].sort(([a], [b]) => (a < b ? -1 : 1))));
      for (const { data } of found.tensors.values()) assert.equal(data.byteOffset, 0);
    }),
    { numRuns: 400 },
  );
});

test('the bytes do not depend on the order of the maps; wide elements come first and are aligned in the file', () => {
  fc.assert(
    fc.property(anyTensors, anyMetadata, (tensors, metadata) => {
      const bytes = together(encodeSafetensors(tensors, metadata));
      assert.deepEqual(together(encodeSafetensors(new Map([...tensors].reverse()), new Map([...metadata].reverse()))), bytes);
      const widths = [...parseSafetensors(bytes, 'weights').tensors.values()].map(({ dtype }) => new Map(TYPES).get(dtype)!);
      assert.deepEqual(
        widths,
        widths.toSorted((a, b) => b - a),
      );
      assert.equal((8 + new DataView(bytes.buffer).getUint32(0, true)) % 8, 0);
    }),
    { numRuns: 200 },
  );
});

test('a small file has exactly these bytes', () => {
  const tensors = new Map([
    ['b', tensor('U8', [3], Uint8Array.of(1, 2, 3))],
    ['a', tensor('F32', [1, 1], new Uint8Array(new Float32Array([1.5]).buffer))],
  ]);
  const header =
    '{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}}';
  const padded = header.padEnd(Math.ceil(header.length / 8) * 8);
  const expected = Buffer.concat([file(padded), Buffer.from(new Float32Array([1.5]).buffer), Buffer.of(1, 2, 3)]);
  assert.deepEqual(together(encodeSafetensors(tensors, new Map([['k', 'v']]))), new Uint8Array(expected));
});

test('files are written and read through the disk', () => {
  const folder = fs.mkdtempSync(join(tmpdir(), 'dsd-safetensors-'));
  try {
    const path = join(folder, 'model.safetensors');
    const tensors = new Map([['__proto__', tensor('I16', [2, 2], Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))]]);
    writeSafetensors(path, tensors, new Map([['config', '{}']]));
    assert.deepEqual(readSafetensors(path), { tensors, metadata: new Map([['config', '{}']]) });
    assert.equal(Object.getPrototypeOf(readSafetensors(path).tensors), Map.prototype);

    const bytes = fs.readFileSync(path);
    for (let length = 0; length < bytes.length; length++) {
      fs.writeFileSync(path, bytes.subarray(0, length));
      assert.throws(() => readSafetensors(path), SafetensorsError, `cut to ${length} bytes`);
    }
    fs.writeFileSync(path, Buffer.concat([bytes, Buffer.of(0)]));
    assert.throws(() => readSafetensors(path), /its tensors take 8 bytes and 9 follow/);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test('parsed tensors are copies, aligned for any element', () => {
  const bytes = Buffer.from(together(encodeSafetensors(new Map([['a', tensor('F64', [1], new Uint8Array(8))]]))));
  const odd = Buffer.alloc(bytes.length + 1).subarray(1);
  bytes.copy(odd);
  const { data } = parseSafetensors(odd, 'weights').tensors.get('a')!;
  odd.fill(255);
  assert.deepEqual([data.byteOffset, data.buffer.byteLength, new Float64Array(data.buffer)[0]], [0, 8, 0]);
});

test('spaces between tokens and after the header, empty headers and empty tensors are accepted', () => {
  assert.equal(parse('{}').tensors.size, 0);
  assert.equal(parse('{ }     ').tensors.size, 0);
  const spaced = '{ "a" :\n{ "shape" : [ 2 , 1 ] ,\t"data_offsets":[ 0,2 ] , "dtype": "U8" } , "__metadata__" : { } }  ';
  assert.deepEqual(parse(spaced, 2).tensors, new Map([['a', tensor('U8', [2, 1], new Uint8Array(2))]]));
  const empty = '{"a":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}';
  assert.deepEqual([...parse(empty, 1).tensors.keys()], ['a', 'b']);
});

test('the header length is bounded before anything is allocated', () => {
  for (const length of [0, 1, 9])
    assert.throws(
      () => parseSafetensors(new Uint8Array(length), 'weights'),
      new RegExp(`not a valid safetensors file: it has ${length} bytes`),
    );
  refused(/claims more than 16777216 bytes/, '{}', 0, 2n ** 24n + 1n);
  refused(/claims more than 16777216 bytes/, '{}', 0, 2n ** 32n + 2n); // its lower half would do
  refused(/claims more than 16777216 bytes/, '{}', 0, 2n ** 53n + 2n);
  refused(/claims more than 16777216 bytes/, '{}', 0, 2n ** 64n - 1n);
  refused(/claims 3 of the 2 bytes that follow/, '{}', 0, 3n);
  refused(/claims 1 of the 2 bytes that follow/, '{}', 0, 1n);
  refused(/claims 0 of the 2 bytes that follow/, '{}', 0, 0n);
});

test('text that is not the JSON of a header is refused', () => {
  const entry = (dtype: string, shape: string, offsets: string) => `{"a":{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}}`;
  refused(/not UTF-8/, Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d));
  refused(/not UTF-8/, Uint8Array.of(0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x7d)); // a surrogate in UTF-8
  refused(/not UTF-8/, Uint8Array.of(0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x7d)); // a slash in two bytes
  refused(/should have '\{'/, '\ufeff{}');
  refused(/should have '\{'/, ' {}');
  refused(/should have '\{'/, '[]');
  refused(/nothing but spaces/, '{}\n');
  refused(/nothing but spaces/, '{}x');
  refused(/nothing but spaces/, '{}\0');
  refused(/should have a string/, '{"a\\x":1}');
  refused(/should have a string/, '{"a\n":1}');
  refused(/should have a string/, '{a:1}');
  refused(/should have a string/, '{"a');
  refused(/should have a string/, '{"a\\');
  refused(/should have a string/, '{"__metadata__":{},}');
  refused(/should have a string/, '{"__metadata__":{"a":"b",}}');
  refused(/valid Unicode/, '{"\\ud800":{}}');
  refused(/should have ':'/, '{"a" 1}');
  refused(/should have '\{'/, '{"a":1}');
  refused(/should have '\{'/, '{"a":null}');
  refused(/should have '\{'/, '{"a":[[[[[[[[]]]]]]]]}');
  refused(/should have a string/, '{"__metadata__":{"a":1}}');
  refused(/should have a string/, '{"__metadata__":{"a":{"b":"c"}}}');
  refused(/should have '\{'/, '{"__metadata__":null}');
  for (const bad of ['-1', '1.0', '1e3', '01', '+1', '0x1', '"1"', 'true', '1_0', '٣', '.5', '1.', '1E2', '-0', '18446744073709551616'])
    refused(/should have (an integer|'\]')/, entry('"U8"', `[${bad}]`, '[0,1]'), 1);
  refused(/below 2\^53/, entry('"U8"', '[9007199254740992]', '[0,0]'));
  refused(/should have an integer/, entry('"U8"', '[1,]', '[0,1]'), 1);
  refused(/an integer/, entry('"U8"', '[,1]', '[0,1]'), 1);
  refused(/at most 2 numbers/, entry('"U8"', '[1]', '[0,1,1]'), 1);
  refused(/at most 32 numbers/, entry('"U8"', `[${Array(33).fill(1)}]`, '[0,1]'), 1);
});

test('duplicate keys are refused at every level, also under another spelling', () => {
  const a = '"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}';
  refused(/has the key "a" twice/, `{${a},${a}}`, 1);
  refused(/has the key "a" twice/, `{${a},"\\u0061"${a.slice(3)}}`, 1);
  refused(/has the key "__metadata__" twice/, '{"__metadata__":{},"__metadata__":{}}');
  refused(/the metadata has the key "k" twice/, '{"__metadata__":{"k":"1","k":"2"}}');
  refused(/tensor "a" has the key "dtype" twice/, '{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1);
});

test('fields, types, shapes and offsets must be known, complete and agree', () => {
  const entry = (dtype: string, shape: number[], begin: number, end: number) =>
    `{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${begin},${end}]}`;
  refused(/unknown field "x"/, '{"a":{"x":1}}');
  refused(/unknown field "__proto__"/, '{"a":{"__proto__":1}}');
  refused(/lacks its dtype/, '{"a":{"shape":[],"data_offsets":[0,1]}}', 1);
  refused(/lacks its dtype/, '{"a":{"dtype":"U8","data_offsets":[0,1]}}', 1);
  refused(/lacks its dtype/, '{"a":{"dtype":"U8","shape":[]}}', 1);
  refused(/has the offsets \[0\]/, '{"a":{"dtype":"U8","shape":[],"data_offsets":[0]}}', 1);
  refused(/has the offsets \[\]/, '{"a":{"dtype":"U8","shape":[],"data_offsets":[]}}', 1);
  for (const dtype of ['u8', 'F8_E4M3', '', 'constructor', '__proto__']) refused(/has the type/, `{"a":${entry(dtype, [], 0, 1)}}`, 1);
  refused(/has the offsets \[1,0\]/, `{"a":${entry('U8', [1], 1, 0)}}`, 1);
  refused(/takes 2 bytes and its offsets span 1/, `{"a":${entry('U8', [2], 0, 1)}}`, 1);
  refused(/takes 4 bytes and its offsets span 1/, `{"a":${entry('F32', [], 0, 1)}}`, 1);
  refused(/takes too many bytes/, `{"a":${entry('F64', [2 ** 51], 0, 8)}}`, 8);
  refused(/takes too many bytes/, `{"a":${entry('U8', [2 ** 32, 2 ** 32], 0, 0)}}`); // 2^64 wraps to 0
  refused(/takes too many bytes/, `{"a":${entry('U8', [0, 2 ** 32, 2 ** 32], 0, 0)}}`);
  refused(/starts at byte 1 of the data and not at 0/, `{"a":${entry('U8', [1], 1, 2)}}`, 2);
  refused(/starts at byte 2 of the data and not at 1/, `{"a":${entry('U8', [1], 0, 1)},"b":${entry('U8', [1], 2, 3)}}`, 3);
  refused(/starts at byte 0 of the data and not at 1/, `{"a":${entry('U8', [1], 0, 1)},"b":${entry('U8', [1], 0, 1)}}`, 1);
  refused(/starts at byte 1 of the data and not at 2/, `{"a":${entry('U8', [2], 0, 2)},"b":${entry('U8', [2], 1, 3)}}`, 3);
  refused(/take 1 bytes and 2 follow/, `{"a":${entry('U8', [1], 0, 1)}}`, 2);
  refused(/take 2 bytes and 1 follow/, `{"a":${entry('U8', [2], 0, 2)}}`, 1);
  refused(/take 1099511627776 bytes and 0 follow/, `{"a":${entry('U8', [2 ** 40], 0, 2 ** 40)}}`);
  const bool = file(`{"a":${entry('BOOL', [2], 0, 2)}}`, 2);
  assert.equal(parseSafetensors(bool, 'weights').tensors.size, 1);
  bool[bool.length - 1] = 2;
  assert.throws(() => parseSafetensors(bool, 'weights'), /neither 0 nor 1/);
});

test('a header as large as may be, of one name, is scanned without running out of stack', () => {
  const name = 'x'.repeat(2 ** 24 - 60);
  assert.equal(parse(`{"__metadata__":{"k":"${name}"}}`).metadata.get('k'), name);
  refused(/should have a string/, `{"${name}`);
});

test('names are bounded in number, so that a header of short ones takes no multiple of its size in memory', () => {
  const names = (n: number): Map<string, string> => new Map(Array.from({ length: n }, (_, i) => [i.toString(36), '']));
  const most = together(encodeSafetensors(new Map(), names(2 ** 17)));
  assert.equal(parseSafetensors(most, 'weights').metadata.size, 2 ** 17);
  assert.throws(() => encodeSafetensors(new Map(), names(2 ** 17 + 1)), /131073 names, and readers accept 131072/);
  const tensors = new Map(Array.from({ length: 2 ** 17 }, (_, i) => [`${i}`, tensor('U8', [0], new Uint8Array(0))]));
  assert.equal(parseSafetensors(together(encodeSafetensors(tensors)), 'weights').tensors.size, 2 ** 17);
  assert.throws(() => encodeSafetensors(tensors, names(1)), /131073 names/);
  const pairs = [...names(2 ** 17 + 1).keys()].map((name) => `"${name}":""`);
  refused(/the metadata has more than 131072 names/, `{"__metadata__":{${pairs}}}`);
});

test('a message quotes little of a file, and nothing that commands a terminal', () => {
  refused(/unknown field "x{80}…"\. /, `{"a":{"${'x'.repeat(5000)}":1}}`);
  refused(/unknown field "\\u\{9b\}2J\\u001b\[2J\\u\{202e\}"\. /, '{"a":{"\u009b2J\\u001b[2J\u202e":1}}');
});

test('what a reader would refuse is not written', () => {
  const u8 = (length: number) => tensor('U8', [length], new Uint8Array(length));
  const cannot = (reason: RegExp, tensors: [string, SafeTensor][], metadata: [string, string][] = []): void =>
    assert.throws(
      () => encodeSafetensors(new Map(tensors), new Map(metadata)),
      (error) => error instanceof SafetensorsError && reason.test(error.message),
    );
  cannot(/cannot be called __metadata__/, [['__metadata__', u8(1)]]);
  cannot(/not valid Unicode/, [['\ud800', u8(1)]]);
  cannot(/not valid Unicode/, [], [['a', '\udc00']]);
  cannot(/not valid Unicode/, [], [['\udc00', 'a']]);
  cannot(/has 2 bytes where U8 \[3\] takes 3/, [['a', tensor('U8', [3], new Uint8Array(2))]]);
  cannot(/impossible type/, [['a', tensor('U8', [-1], new Uint8Array(0))]]);
  cannot(/impossible type/, [['a', tensor('U8', [1.5], new Uint8Array(0))]]);
  cannot(/impossible type/, [['a', tensor('X' as SafeDType, [1], new Uint8Array(1))]]);
  cannot(/neither 0 nor 1/, [['a', tensor('BOOL', [1], Uint8Array.of(3))]]);
  cannot(/readers accept/, [], [['a', 'x'.repeat(2 ** 24)]]);
});
