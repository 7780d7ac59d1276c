import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { centreSquare, type Pixels, resample } from '../../src/data/resample.js';
import { type Filter, load, resizer } from '../../src/data/resizer.js';
import { temporaryFolder } from './corpus.js';
import { resampleOracle } from './resample-oracle.js';

interface Fixtures {
  readonly resizes: readonly { filter: Filter; from: [number, number, 1 | 3]; to: [number, number]; bytes: string }[];
  readonly crops: readonly { from: [number, number, 1 | 3]; size: number; bytes: string }[];
}

const fixtures = JSON.parse(readFileSync(new URL('../../../test/data/fixtures/pillow.json', import.meta.url), 'utf8')) as Fixtures;

/** The same picture as in fixtures/pillow.py. */
function picture(width: number, height: number, channels: 1 | 3): Pixels {
  const pixels = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) {
        const noise = (x * 7919 + y * 104729 + c * 1299709 + x * y * 31) % 61;
        const edge = (Math.floor(x / 5) + Math.floor(y / 3) + c) % 2 === 1 ? 190 : 0;
        pixels[(y * width + x) * channels + c] = Math.min(255, noise + edge);
      }
    }
  }
  return { pixels, width, height, channels };
}

function assertBytes(found: Uint8Array, wanted: string, what: string): void {
  assert.deepEqual([...found], [...Buffer.from(wanted, 'base64')], what);
}

test('resizing equals Pillow to the bit', () => {
  assert.ok(fixtures.resizes.length >= 20);
  for (const { filter, from, to, bytes } of fixtures.resizes)
    assertBytes(resample(picture(...from), ...to, filter), bytes, `${filter} ${from} -> ${to}`);
});

test('the centre crop equals ADM with Pillow to the bit', () => {
  assert.ok(fixtures.crops.length >= 8);
  for (const { from, size, bytes } of fixtures.crops) assertBytes(centreSquare(picture(...from), size), bytes, `${from} -> ${size}`);
});

test('on any sizes the addon equals the oracle to the bit', () => {
  const side = fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 130 }));
  // The smallest numbers are black and the largest white, so that filters overshoot at both ends.
  const value = (seed: number, i: number): number => Math.min(255, Math.max(0, ((Math.imul(i + seed, 2654435761) >>> 22) % 512) - 128));
  fc.assert(
    fc.property(
      fc.constantFrom<Filter[]>('box', 'bicubic', 'lanczos'),
      fc.constantFrom<(1 | 3)[]>(1, 3),
      ...([side, side, side, side, fc.nat()] as const),
      (filter, channels, width, height, toWidth, toHeight, seed) => {
        const pixels = Uint8Array.from({ length: width * height * channels }, (_, i) => value(seed, i));
        const source: Pixels = { pixels, width, height, channels };
        assert.deepEqual(resample(source, toWidth, toHeight, filter), resampleOracle(source, toWidth, toHeight, filter));
      },
    ),
    { numRuns: 300 },
  );
});

test('arguments that do not do are errors that name what was found', () => {
  const good = [new Uint8Array(4 * 3 * 3), 4, 3, 3, 2, 5, 'box', 1, 2, 1, 3, new Uint8Array(1 * 3 * 3)] as const;
  type Call = Parameters<ReturnType<typeof resizer>['resize']>;
  const call = (changed: Record<number, unknown>) => resizer().resize(...(Object.assign([...good], changed) as unknown as Call));
  call({});
  const whole = (name: string, least: number, most: number, found: string): string =>
    `resize: ${name} must be a whole number from ${least} to ${most}, found ${found}`;
  const longest = 2 ** 31 - 1;
  const buffer = new Uint8Array(64);
  for (const [changed, name, message] of [
    [{ 0: undefined }, 'TypeError', 'resize: pixels must be a Uint8Array, found undefined'],
    [{ 0: [1, 2, 3] }, 'TypeError', 'resize: pixels must be a Uint8Array, found an object'],
    [{ 0: new ArrayBuffer(36) }, 'TypeError', 'resize: pixels must be a Uint8Array, found an object'],
    [{ 0: new Int8Array(36) }, 'TypeError', 'resize: pixels must be a Uint8Array, found another typed array'],
    [{ 11: new Float32Array(9) }, 'TypeError', 'resize: out must be a Uint8Array, found another typed array'],
    [{ 11: null }, 'TypeError', 'resize: out must be a Uint8Array, found null'],
    [{ 0: new Uint8Array(35) }, 'RangeError', 'resize: pixels must have 4 x 3 x 3 bytes, found 35'],
    [{ 1: longest, 2: longest }, 'RangeError', `resize: pixels must have ${longest} x ${longest} x 3 bytes, found 36`],
    [{ 11: new Uint8Array(10) }, 'RangeError', 'resize: out must have 1 x 3 x 3 bytes, found 10'],
    [{ 1: '4' }, 'TypeError', "resize: width must be a number, found '4'"],
    [{ 1: 0 }, 'RangeError', whole('width', 1, longest, '0')],
    [{ 2: -3 }, 'RangeError', whole('height', 1, longest, '-3')],
    [{ 2: 2.5 }, 'RangeError', whole('height', 1, longest, '2.5')],
    [{ 3: 4 }, 'RangeError', whole('channels', 1, 3, '4')],
    [{ 3: 2 }, 'RangeError', 'resize: channels must be 1 or 3, found 2'],
    [{ 4: Number.NaN }, 'RangeError', whole('outWidth', 1, longest, 'NaN')],
    [{ 5: Number.POSITIVE_INFINITY }, 'RangeError', whole('outHeight', 1, longest, 'Infinity')],
    [{ 5: 3n }, 'TypeError', 'resize: outHeight must be a number, found a bigint'],
    [{ 6: 'bilinear' }, 'TypeError', "resize: filter must be 'box', 'bicubic' or 'lanczos', found 'bilinear'"],
    [{ 6: {} }, 'TypeError', "resize: filter must be 'box', 'bicubic' or 'lanczos', found an object"],
    [{ 7: 2 }, 'RangeError', whole('x', 0, 1, '2')],
    [{ 8: -1 }, 'RangeError', whole('y', 0, 4, '-1')],
    [{ 9: 2 }, 'RangeError', whole('windowWidth', 1, 1, '2')],
    [{ 10: 4 }, 'RangeError', whole('windowHeight', 1, 3, '4')],
    [{ 0: buffer.subarray(0, 36), 11: buffer.subarray(35, 44) }, 'RangeError', 'resize: pixels and out must not overlap'],
  ] as const)
    assert.throws(() => call(changed), { name, message });
  const gone = new Uint8Array(36);
  structuredClone(gone.buffer, { transfer: [gone.buffer] });
  assert.throws(() => call({ 0: gone }), { name: 'RangeError', message: 'resize: pixels must have 4 x 3 x 3 bytes, found 0' });
  assert.throws(() => resizer().resize(...([] as unknown as Call)), {
    name: 'TypeError',
    message: 'resize: width must be a number, found undefined',
  });
});

test('pixels may lie in memory that is shared', () => {
  const { pixels, ...about } = picture(20, 10, 3);
  const shared = new Uint8Array(new SharedArrayBuffer(pixels.length + 1), 1);
  shared.set(pixels);
  assert.deepEqual(resample({ ...about, pixels: shared }, 7, 6, 'bicubic'), resample({ ...about, pixels }, 7, 6, 'bicubic'));
});

test('an addon that is not there, or is none, is an error that says what to run', (t) => {
  const path = join(temporaryFolder(t), 'dsd_pictures.node');
  assert.throws(() => load(path), { name: 'FailureError', message: /dsd_pictures\.node does not exist\): run 'npm run setup'$/ });
  writeFileSync(path, 'no addon');
  assert.throws(() => load(path), { name: 'FailureError', message: /could not be loaded: .*; run 'npm run setup' to build it again$/ });
});

test('a window of a resized picture is the part of the whole', () => {
  const filters = fc.constantFrom<Filter[]>('box', 'bicubic', 'lanczos');
  const side = fc.integer({ min: 1, max: 24 });
  fc.assert(
    fc.property(
      filters,
      side,
      side,
      side,
      side,
      fc.nat(),
      fc.nat(),
      fc.nat(),
      fc.nat(),
      (filter, width, height, toWidth, toHeight, a, b, c, d) => {
        const source = picture(width, height, 3);
        const x = a % toWidth;
        const y = b % toHeight;
        const window = { x, y, width: 1 + (c % (toWidth - x)), height: 1 + (d % (toHeight - y)) };
        const whole = resample(source, toWidth, toHeight, filter);
        const part = resample(source, toWidth, toHeight, filter, window);
        for (let row = 0; row < window.height; row++) {
          const start = ((y + row) * toWidth + x) * 3;
          const wanted = whole.subarray(start, start + window.width * 3);
          assert.deepEqual(part.subarray(row * window.width * 3, (row + 1) * window.width * 3), wanted);
        }
      },
    ),
    { numRuns: 200 },
  );
});

test('a picture far longer than wide costs no more than its middle', () => {
  // Resized as a whole this would be 64 x 12,800,000 pixels.
  const strip: Pixels = { pixels: new Uint8Array(200_000).fill(77), width: 1, height: 200_000, channels: 1 };
  assert.deepEqual(centreSquare(strip, 64), new Uint8Array(64 * 64).fill(77));
});

test('a plain picture stays plain whatever the sizes', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 0, max: 255 }),
      (width, height, value) => {
        const source: Pixels = { pixels: new Uint8Array(width * height * 3).fill(value), width, height, channels: 3 };
        assert.deepEqual(centreSquare(source, 16), new Uint8Array(16 * 16 * 3).fill(value));
      },
    ),
  );
});
