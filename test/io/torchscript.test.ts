import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import type { SafeTensor } from '../../src/io/safetensors.js';
import { looksLike, readTorchScript, TorchScriptError } from '../../src/io/torchscript.js';
import { crc32 } from '../../src/io/zip.js';

/** Written by PyTorch; test/oracle/inception.py says what is in it. The tests run from dist/test/io. */
const FIXTURE = join(import.meta.dirname, '..', '..', '..', 'test', 'fixtures', 'inception', 'torchscript.pt');

let folder = '';
before(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'dsd-torchscript-'));
});
after(() => fs.rmSync(folder, { recursive: true, force: true }));

const bytesOf = (values: Float32Array | Float64Array | BigInt64Array): Uint8Array => new Uint8Array(values.buffer);

test('the tensors of an archive that PyTorch wrote', () => {
  const ten = Array.from({ length: 10 }, (_, i) => i);
  const plain = Float32Array.from({ length: 24 }, (_, i) => i);
  // The other kernel lies in memory as [kw, in, kh, out] of 2, 2, 3, 2 and is seen as [out, kh, kw, in].
  const turned = Float32Array.from({ length: 24 }, (_, i) => {
    const [a, b, c, d] = [Math.floor(i / 12), Math.floor(i / 4) % 3, Math.floor(i / 2) % 2, i % 2];
    return ((c * 2 + d) * 3 + b) * 2 + a;
  });
  const expected: [string, SafeTensor][] = [
    ['wide', { dtype: 'F64', shape: [10], data: bytesOf(Float64Array.from(ten, (i) => i / 3)) }],
    ['whole', { dtype: 'I64', shape: [10], data: bytesOf(BigInt64Array.from(ten, (i) => BigInt(i - 5))) }],
    ['truth', { dtype: 'BOOL', shape: [10], data: Uint8Array.from(ten, (i) => Number(i > 4)) }],
    ['scalar', { dtype: 'F32', shape: [], data: bytesOf(Float32Array.of(1.5)) }],
    ['none', { dtype: 'F32', shape: [0, 3], data: new Uint8Array(0) }],
    ['first', { dtype: 'F32', shape: [5], data: bytesOf(Float32Array.of(0, 1, 2, 3, 4)) }],
    ['second', { dtype: 'F32', shape: [3], data: bytesOf(Float32Array.of(2, 5, 8)) }],
    ['layers.conv.weight', { dtype: 'F32', shape: [2, 3, 2, 2], data: bytesOf(plain) }],
    ['layers.mixed_1.0.weight', { dtype: 'F32', shape: [2, 3, 2, 2], data: bytesOf(turned) }],
  ];
  const found = readTorchScript(FIXTURE)!;
  assert.equal(looksLike(FIXTURE), 'zip');
  assert.deepEqual(
    [...found].filter(([name]) => name !== 'narrow' && name !== 'coarse'),
    expected,
  );
  assert.deepEqual(
    ['narrow', 'coarse'].map((name) => [found.get(name)?.dtype, found.get(name)?.data.length]),
    [
      ['F16', 20],
      ['BF16', 20],
    ],
  );
});

test('a damaged file is read as it was or refused, and nothing else happens', () => {
  const path = join(folder, 'damaged.pt');
  const good = fs.readFileSync(FIXTURE);
  const whole = readTorchScript(FIXTURE)!;
  const damage = fc.array(fc.record({ at: fc.nat(good.length - 1), to: fc.nat(255) }), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(damage, (steps) => {
      const bytes = Buffer.from(good);
      for (const { at, to } of steps) bytes[at] = to;
      fs.writeFileSync(path, bytes);
      try {
        const found = readTorchScript(path);
        if (found) assert.deepEqual(found, whole);
      } catch (error) {
        if (!(error instanceof TorchScriptError)) throw error;
      }
    }),
    { numRuns: 300 },
  );
  for (let length = 0; length < good.length; length += 97) {
    fs.writeFileSync(path, good.subarray(0, length));
    assert.throws(() => readTorchScript(path), TorchScriptError, `cut to ${length} bytes`);
  }
});

/** A zip of stored entries. */
function archive(entries: Record<string, Uint8Array>): Uint8Array {
  const [bodies, directory]: [Buffer[], Buffer[]] = [[], []];
  let offset = 0;
  for (const [name, bytes] of Object.entries(entries)) {
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt32LE(crc32(bytes, 0), 10);
    common.writeUInt32LE(bytes.length, 14);
    common.writeUInt32LE(bytes.length, 18);
    common.writeUInt16LE(name.length, 22);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(offset, 10);
    const body = Buffer.concat([Buffer.from('PK\x03\x04'), common, Buffer.from(name), bytes]);
    directory.push(Buffer.concat([Buffer.from('PK\x01\x02\x14\0'), common, tail, Buffer.from(name)]));
    bodies.push(body);
    offset += body.length;
  }
  const table = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(directory.length, 10);
  end.writeUInt32LE(table.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...bodies, table, end]);
}

/** Pieces of byte code. */
const text = (value: string): string => `X${String.fromCharCode(value.length)}\0\0\0${value}`;
const MODULE = '\x80\x02c__torch__\nNet\n)\x81';
const STORAGE = `(${text('storage')}ctorch\nFloatStorage\n${text('0')}${text('cpu')}K\x04tQ`;
/** A float tensor on the four elements: offset, shape and strides by their byte code. */
const view = (offset: string, shape: string, strides: string): string =>
  `ctorch._utils\n_rebuild_tensor_v2\n(${STORAGE}${offset}(${shape}t(${strides}t\x89ccollections\nOrderedDict\n)RtR`;

function read(program: string, extra: Record<string, Uint8Array> = {}): Map<string, SafeTensor> | undefined {
  const path = join(folder, 'made.pt');
  const data = { 'net/data/0': bytesOf(Float32Array.of(1, 2, 3, 4)), 'net/constants.pkl': new Uint8Array(4), ...extra };
  fs.writeFileSync(path, archive({ 'net/data.pkl': Buffer.from(program, 'latin1'), ...data }));
  return readTorchScript(path);
}

test('byte code that calls something makes nothing of it', () => {
  const marker = join(folder, 'ran');
  const found = read(
    `${MODULE}}(${text('a')}cposix\nsystem\n(${text(`touch ${marker}`)}tR${text('w')}${view('K\x01', 'K\x02', 'K\x02')}ub.`,
  );
  assert.deepEqual([...found!], [['w', { dtype: 'F32', shape: [2], data: bytesOf(Float32Array.of(2, 4)) }]]);
  assert.equal(fs.existsSync(marker), false);
});

test('byte code that makes no sense, or has no end, is refused by name', () => {
  const refused = (reason: RegExp, program: string, extra?: Record<string, Uint8Array>): void =>
    assert.throws(
      () => read(program, extra),
      (error) => error instanceof TorchScriptError && reason.test(error.message),
      String(reason),
    );
  const module = (attributes: string): string => `${MODULE}}(${attributes}ub.`;
  refused(/instruction "i", which TorchScript does not use/, `${MODULE}iposix\nsystem\n.`);
  refused(/unknown protocol/, '\x80\x04N.');
  refused(/has no end/, MODULE);
  refused(/cut off/, '\x80\x02X\xff\xff\xff\xff');
  refused(/takes what it has not given/, '\x80\x02R.');
  refused(/takes what it has not given/, '\x80\x02t.');
  refused(/asks for what it has not kept/, '\x80\x02h\x07.');
  refused(/holds no module/, '\x80\x02N.');
  refused(/appends to what is no list/, '\x80\x02NNa.');
  refused(/what is no dictionary/, '\x80\x02NNNs.');
  refused(/modules have no end/, `${MODULE}q\0}(${text('self')}h\0ub.`);
  // Twenty modules, each with the one before twice: a million tensors, told in a kilobyte.
  const doubling = (of: string): string => `${MODULE.slice(2)}}(${text('a')}${of}q\0${text('b')}h\0ub`;
  refused(
    /modules have no end|more than twice its size/,
    `\x80\x02${Array.from({ length: 20 }).reduce<string>(doubling, view('K\0', 'K\x04', 'K\x01'))}.`,
  );
  for (const [offset, shape, strides] of [
    ['K\x01', 'K\x04', 'K\x01'],
    ['K\0', 'K\x08', 'K\0'],
    ['K\0', 'K\x02', 'K\x04'],
    ['K\0', 'J\xff\xff\xff\xff', 'K\x01'],
    ['K\0', 'K\x02K\x02', 'K\x01'],
    ['J\xff\xff\xff\xff', 'K\x02', 'K\x01'],
    ['K\0', 'G\x3f\xe0\0\0\0\0\0\0', 'K\x01'],
  ] as const)
    refused(/does not lie in its 4 elements/, module(text('w') + view(offset, shape, strides)));
  refused(/describes a tensor in an unknown way/, module(text('w') + view('N', 'K\x02', 'K\x01')));
  refused(/should have 4 elements in 8 bytes/, module(text('w') + view('K\0', 'K\x02', 'K\x01')), { 'net/data/0': new Uint8Array(8) });
  refused(/not little-endian/, module(''), { 'net/byteorder': Buffer.from('big') });
  refused(/has 2 files called data\.pkl/, module(''), { 'other/data.pkl': new Uint8Array(4) });
});

test('what torch.save writes is a pickle, in both of its forms', () => {
  const path = join(folder, 'saved.pth');
  fs.writeFileSync(path, archive({ 'net/data.pkl': Buffer.from('\x80\x02}.', 'latin1'), 'net/version': Buffer.from('3') }));
  assert.equal(looksLike(path), 'zip');
  assert.equal(readTorchScript(path), undefined);
  fs.writeFileSync(path, Uint8Array.of(0x80, 2, 0x8a, 10, 0x6c, 0xfc));
  assert.equal(looksLike(path), 'pickle');
  fs.writeFileSync(path, Uint8Array.of(0x80, 2, 1, 0, 0, 0, 0, 0, 0x7b)); // safetensors with a header of 66,176 bytes
  assert.equal(looksLike(path), undefined);
});
