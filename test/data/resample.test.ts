import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Filter, Pixels } from '../../src/data/resample.js';
import { centreSquare, resample } from '../../src/data/resample.js';

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
