import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Disk, disk } from '../../src/io/disk.js';
import {
  encodeSafetensors,
  parseSafetensors,
  readSafetensors,
  type SafeTensor,
  type Safetensors,
  SafetensorsError,
} from '../../src/io/safetensors.js';
import { bytesOf, Dice, draft } from './safetensors-draft.js';
import { SPOILERS, VARIANTS } from './safetensors-hostile.js';
import { oracle, same } from './safetensors-oracle.js';

/**
 * The parser's work, counted and not timed: characters that go through the built-in functions which do its work in strings, and keys put
 * into sets. A scan that goes back, or a slice of all that is left for each token, shows as a count that grows with the square of a file.
 */
const meter = { on: false, steps: 0 };
function count<A extends unknown[], R>(owner: object, name: string, cost: (args: A, result: R) => number): void {
  const original = Reflect.get(owner, name) as (...args: A) => R;
  Reflect.set(owner, name, function (this: unknown, ...args: A): R {
    const result = Reflect.apply(original, this, args);
    if (meter.on) meter.steps += 1 + cost(args, result);
    return result;
  });
  after(() => Reflect.set(owner, name, original));
}
count(JSON, 'parse', ([text]: [string]) => text.length);
count(String.prototype, 'slice', (_: unknown[], result: string) => result.length);
count(String.prototype, 'includes', () => 0);
count(RegExp.prototype, 'exec', (_: unknown[], result: RegExpExecArray | null) => result?.[0].length ?? 0);
count(Set.prototype, 'add', () => 0);
count(Map.prototype, 'set', () => 0);

/** What a file asks of memory and time at most: each byte is read once, and a character costs this many steps (2.9 are the most seen). */
const STEPS_A_CHARACTER = 4;
const STEPS_AT_LEAST = 200;
const LONGEST_MESSAGE = 1000;

/** Counts of all files of this test file; how many were accepted. */
const seen = { files: 0, accepted: 0 };

/** Reads a file through a disk that counts, and compares with the oracle; undefined if both refuse it. */
function examine(bytes: Buffer, what: () => string): Safetensors | undefined {
  seen.files++;
  let asked = 0;
  let closed = 0;
  const counting: Disk = {
    ...disk,
    open: () => ({
      size: bytes.length,
      read: (position, length) => {
        asked += length;
        if (position < 0 || length < 0 || position + length > bytes.length)
          assert.fail(`${what()}: read of ${length} bytes at ${position}`);
        return new Uint8Array(bytes.subarray(position, position + length));
      },
      close: () => closed++,
    }),
  };
  let found: Safetensors | undefined;
  meter.steps = 0;
  meter.on = true;
  try {
    found = readSafetensors('weights', counting);
  } catch (error) {
    meter.on = false;
    if (!(error instanceof SafetensorsError)) throw new Error(`${what()}: ${error}`, { cause: error });
    if (error.message.length > LONGEST_MESSAGE) assert.fail(`${what()}: a message of ${error.message.length} characters`);
    if (/[\p{Cc}\p{Cf}]/u.test(error.message)) assert.fail(`${what()}: controls in the message ${JSON.stringify(error.message)}`);
  } finally {
    meter.on = false;
  }
  if (asked > bytes.length) assert.fail(`${what()}: ${asked} bytes were asked for, the file has ${bytes.length}`);
  if (closed !== 1) assert.fail(`${what()}: the file was closed ${closed} times`);
  if (meter.steps > STEPS_A_CHARACTER * bytes.length + STEPS_AT_LEAST)
    assert.fail(`${what()}: ${meter.steps} steps for ${bytes.length} bytes`);
  const wanted = oracle(bytes);
  if ((found === undefined) !== (wanted === undefined)) assert.fail(`${what()}: ${found ? 'read' : 'refused'}, unlike the oracle`);
  if (found === undefined || wanted === undefined) return undefined;
  if (!same(found, wanted)) assert.fail(`${what()}: not what the oracle reads`);
  seen.accepted++;
  return found;
}

function encoded({ tensors, metadata }: Safetensors): Buffer {
  return Buffer.concat(encodeSafetensors(tensors, metadata));
}

function shown(bytes: Buffer): string {
  return bytes.toString('latin1').slice(0, 600);
}

const u8 = (shape: number[], ...data: number[]): SafeTensor => ({ dtype: 'U8', shape, data: Uint8Array.from(data) });
/** Small files as our writer makes them. */
const SMALL: Buffer[] = [
  encoded({ tensors: new Map(), metadata: new Map() }),
  encoded({ tensors: new Map([['a', u8([2, 2], 1, 2, 3, 4)]]), metadata: new Map() }),
  encoded({
    tensors: new Map<string, SafeTensor>([
      ['é\u{1f600}', { dtype: 'F32', shape: [2], data: Uint8Array.from({ length: 8 }, (_, i) => i) }],
      ['__proto__', { dtype: 'BOOL', shape: [3], data: Uint8Array.of(0, 1, 1) }],
      ['none', { dtype: 'BF16', shape: [0, 3], data: new Uint8Array(0) }],
    ]),
    metadata: new Map([['config', '{"a":[1,2]}']]),
  }),
];
/** And one that another writer might make: other order, escapes, spaces, metadata last. */
const OTHER = bytesOf({
  tensors: [
    [
      '"b"',
      [
        ['"shape"', '[ 1, 3 ]'],
        ['"data_offsets"', '[ 8,\n11 ]'],
        ['"dtype"', '"\\u0055\\u0038"'],
      ],
    ],
    [
      '"\\u0061\\n"',
      [
        ['"data_offsets"', '[0,8]'],
        ['"dtype"', '"I64"'],
        ['"shape"', '[]'],
      ],
    ],
  ],
  ...{ metadata: [['"k"', '"\\ud83d\\ude00"']], more: [], before: '', after: '  ', space: ' ', data: Buffer.from('01234567abc') },
  ...{ patch: (json) => json, claim: (length) => length },
});

test('a file cut, with a byte left out, put in or changed, at every position', () => {
  const marks = [...Buffer.from('{}[]":,\\ 019.-eutaU\n'), 0x00, 0x7f, 0x80, 0xc3, 0xff];
  for (const [number, whole] of [...SMALL, OTHER].entries()) {
    const original = examine(whole, () => `file ${number}`)!;
    const data = 8 + Number(whole.readBigUInt64LE());
    for (let at = 0; at < whole.length; at++) {
      const rest = whole.subarray(at);
      assert.equal(
        examine(whole.subarray(0, at), () => `file ${number} cut at ${at}`),
        undefined,
      );
      examine(Buffer.concat([whole.subarray(0, at), rest.subarray(1)]), () => `file ${number} without byte ${at}`);
      for (const byte of marks) {
        examine(Buffer.concat([whole.subarray(0, at), Buffer.of(byte), rest]), () => `file ${number} with a byte ${byte} at ${at}`);
        changed(whole, at, byte);
      }
      for (let bit = 0; bit < 8; bit++) changed(whole, at, whole[at]! ^ (1 << bit));
      if (at >= data) onlyThatByte(original, whole, at - data, `file ${number}, byte ${at}`);
    }
    function changed(bytes: Buffer, at: number, to: number): void {
      const copy = Buffer.from(bytes);
      copy[at] = to;
      examine(copy, () => `file ${number} with byte ${at} changed to ${to}`);
    }
  }
});

/** Where only data changes, that very value changes and nothing else; a boolean may become one that is refused. */
function onlyThatByte(original: Safetensors, whole: Buffer, at: number, what: string): void {
  const copy = Buffer.from(whole);
  copy[whole.length - [...original.tensors.values()].reduce((n, { data }) => n + data.length, 0) + at]! ^= 1;
  const found = examine(copy, () => what)!;
  let begin = 0;
  for (const [name, { dtype, shape, data }] of original.tensors) {
    const wanted = data.slice();
    if (at >= begin && at < begin + data.length) wanted[at - begin]! ^= 1;
    assert.deepEqual(found.tensors.get(name), { dtype, shape, data: wanted }, what);
    begin += data.length;
  }
}

test('sound files in other words are read, and written again they are the same', () => {
  for (let file = 0; file < 16_000; file++) {
    const dice = new Dice(file);
    const one = draft(dice);
    for (const [, apply] of VARIANTS) if (dice.below(3) === 0) apply(one, dice);
    const bytes = bytesOf(one);
    const found = examine(bytes, () => `file ${file}: ${shown(bytes)}`);
    if (found === undefined) assert.fail(`file ${file} was refused: ${shown(bytes)}`);
    const again = parseSafetensors(encoded(found), 'again');
    if (!same(again, found)) assert.fail(`file ${file} is another when written again: ${shown(bytes)}`);
  }
});

test('one thing wrong in the structure: refused', () => {
  const first = 1_000_000;
  for (let file = first; file < first + 32_000; file++) {
    const dice = new Dice(file);
    const one = draft(dice);
    for (const [, apply] of VARIANTS) if (dice.below(8) === 0) apply(one, dice);
    const [name, spoil] = SPOILERS[file % SPOILERS.length]!;
    spoil(one, dice);
    const bytes = bytesOf(one);
    if (examine(bytes, () => `file ${file}, ${name}: ${shown(bytes)}`) !== undefined)
      assert.fail(`file ${file}, ${name}, was read: ${shown(bytes)}`);
  }
});

test('damage anywhere: read as the oracle reads it, or refused', () => {
  const first = 2_000_000;
  const before = { ...seen };
  for (let file = first; file < first + 20_000; file++) {
    const dice = new Dice(file);
    const one = draft(dice);
    if (dice.below(4) === 0) dice.pick(SPOILERS)[1](one, dice);
    let bytes = bytesOf(one);
    for (let times = 1 + dice.below(2); times > 0; times--) bytes = damaged(bytes, dice);
    examine(bytes, () => `file ${file}: ${shown(bytes)}`);
  }
  const accepted = seen.accepted - before.accepted;
  assert.ok(accepted > 500 && accepted < 10_000, `${accepted} were read: damage should do harm, and not always`);
});

/** A few bytes overwritten, left out, or copied to another place; the header's length follows half of the time. */
function damaged(bytes: Buffer, dice: Dice): Buffer {
  if (bytes.length < 12) return bytes;
  const at = dice.below(bytes.length);
  const length = dice.below(20);
  const into = dice.below(bytes.length);
  const how = dice.below(4);
  if (how === 0) {
    const copy = Buffer.from(bytes);
    copy[at] = dice.below(2) ? dice.below(256) : dice.pick([...Buffer.from('{}[]":,\\ 0123456789abdfnopst_\n')]);
    return copy;
  }
  const out =
    how === 1
      ? Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)])
      : Buffer.concat([bytes.subarray(0, into), bytes.subarray(at, at + length), bytes.subarray(into)]);
  if (out.length < 12 || at < 8 || into < 8) return out;
  const header = Number(bytes.readBigUInt64LE() & 0xffffffffn);
  if (dice.below(2) && (how === 1 ? at : into) < 8 + header) out.writeUInt32LE((header + out.length - bytes.length) >>> 0);
  return out;
}

test('long headers of every kind take steps in proportion to their length', () => {
  const file = (json: string): Buffer =>
    Buffer.concat([Buffer.from(new BigUint64Array([BigInt(Buffer.byteLength(json))]).buffer), Buffer.from(json)]);
  const entry = (name: string): string => `"${name}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`;
  const repeat = (n: number, one: (i: number) => string): string => Array.from({ length: n }, (_, i) => one(i)).join(',');
  const kinds: Record<string, (n: number) => string> = {
    'a name': (n) => `{${entry('x'.repeat(n))}}`,
    'a name that does not end': (n) => `{"${'x'.repeat(n)}`,
    'a name of escapes': (n) => `{${entry('\\u0061'.repeat(n / 8))}}`,
    'a name of escapes that does not end': (n) => `{"${'\\"'.repeat(n / 2)}`,
    'an unknown field': (n) => `{"a":{"${'x'.repeat(n)}":1}}`,
    'an unknown type': (n) => `{"a":{"dtype":"${'x'.repeat(n)}","shape":[],"data_offsets":[0,0]}}`,
    'a name twice': (n) => `{${entry('x'.repeat(n))},${entry('x'.repeat(n))}}`,
    tensors: (n) => `{${repeat(n / 64, (i) => entry(String(i)))}}`,
    'tensors, the last one twice': (n) => `{${repeat(n / 64, (i) => entry(String(i)))},${entry('0')}}`,
    metadata: (n) => `{"__metadata__":{${repeat(n / 12, (i) => `"${i}":""`)}}}`,
    'spaces between': (n) => `{${' \n\t'.repeat(n / 3)}}`,
    'spaces behind': (n) => `{}${' '.repeat(n)}`,
    'spaces behind, and something': (n) => `{}${' '.repeat(n)}x`,
    digits: (n) => `{"a":{"shape":[${'1'.repeat(n)}]}}`,
    numbers: (n) => `{"a":{"shape":[${'1,'.repeat(n / 2)}1]}}`,
    brackets: (n) => `{"a":${'['.repeat(n)}`,
    braces: (n) => '{"":'.repeat(n / 4),
    quotes: (n) => `{${'"'.repeat(n)}`,
    'zero bytes': (n) => '\0'.repeat(n),
    'controls of a terminal': (n) => `{"a":{"${'\u009b2J\u202e'.repeat(n / 4)}":1}}`,
  };
  for (const [kind, make] of Object.entries(kinds))
    for (const n of [1 << 12, 1 << 15, 1 << 18]) examine(file(make(n)), () => `${kind}, ${n}`);
});

test('the same through the disk and from memory', () => {
  const folder = fs.mkdtempSync(join(tmpdir(), 'dsd-fuzz-'));
  try {
    const path = join(folder, 'model.safetensors');
    const outcome = (read: () => Safetensors): Safetensors | string => {
      try {
        return read();
      } catch (error) {
        if (!(error instanceof SafetensorsError)) throw error;
        return error.message;
      }
    };
    let read = 0;
    for (let file = 3_000_000; file < 3_000_600; file++) {
      const dice = new Dice(file);
      const one = draft(dice);
      if (dice.below(2)) dice.pick(SPOILERS)[1](one, dice);
      const bytes = bytesOf(one);
      fs.writeFileSync(path, bytes);
      const found = outcome(() => readSafetensors(path));
      assert.deepEqual(
        found,
        outcome(() => parseSafetensors(bytes, path)),
      );
      if (typeof found !== 'string') read++;
      seen.files++;
    }
    assert.ok(read > 200 && read < 400, `${read} of 600 were read`);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test('a hundred thousand files were tried, and the meter runs', () => {
  assert.ok(seen.files >= 100_000, `${seen.files} files`);
  assert.ok(seen.accepted > 16_000, `${seen.accepted} were read`);
  examine(SMALL[2]!, () => 'a sound file');
  assert.ok(meter.steps > 100, `${meter.steps} steps`);
});
