import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { key, permutation, uniform } from '../../src/core/random.js';
import { openFolder } from '../../src/data/folder.js';
import type { Batch, LoaderOptions } from '../../src/data/loader.js';
import { Loader } from '../../src/data/loader.js';
import type { ImageSource } from '../../src/data/source.js';
import { MemorySource } from '../../src/data/source.js';
import { noise, put, temporaryFolder } from './corpus.js';

/** Pictures of 2 x 2 whose bytes are all different: (picture, y, x, channel) can be read off. */
function numbered(length: number, channels: 1 | 3 = 1): MemorySource {
  const pixels = Uint8Array.from({ length: length * 4 * channels }, (_, i) => i % 251);
  const labels = Array.from({ length }, (_, i) => i % 3);
  return new MemorySource({ name: 'numbered', size: 2, channels, classes: ['a', 'b', 'c'] }, pixels, labels, (i) => `#${i}`);
}

interface Seen {
  readonly image: number;
  readonly index: number;
  readonly label: number;
  readonly pixels: string;
}

/** What a loader gives, picture by picture. */
async function see(source: ImageSource, options: LoaderOptions, batches: number): Promise<Seen[]> {
  const loader = new Loader(source, options);
  const seen: Seen[] = [];
  for (let i = 0; i < batches; i++) {
    const { images, labels, indices, firstImage, waitedMs } = await loader.next();
    assert.equal(labels.length, options.batch);
    assert.equal(indices.length, options.batch);
    assert.ok(waitedMs >= 0);
    const each = images.length / options.batch;
    assert.equal(each, source.size ** 2 * source.channels);
    for (let b = 0; b < options.batch; b++) {
      const pixels = Buffer.from(images.subarray(b * each, (b + 1) * each)).toString('base64');
      seen.push({ image: firstImage + b, index: indices[b]!, label: labels[b]!, pixels });
    }
  }
  await loader.close();
  return seen;
}

async function corpus(folder: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++)
    put(
      join(folder, i % 2 === 0 ? 'even' : 'odd', `${100 + i}.png`),
      await noise(9 + (i % 4), 8, i + 1)
        .png()
        .toBuffer(),
    );
}

test('order, labels and pixels are those of the formula, over epochs', async () => {
  const source = numbered(7);
  const seen = await see(source, { batch: 5, seed: 42 }, 6);
  for (const [g, one] of seen.entries()) {
    assert.equal(one.image, g);
    assert.equal(one.index, permutation(key(42, 'order'), Math.floor(g / 7), 7)[g % 7]);
    assert.equal(one.label, source.label(one.index));
    assert.equal(one.pixels, Buffer.from(source.peek(one.index)).toString('base64'));
  }
});

test('an epoch shows each picture once, and epochs and seeds differ', async () => {
  const indices = (seen: Seen[]): number[] => seen.map((one) => one.index);
  const seen = indices(await see(numbered(50), { batch: 20, seed: 1 }, 5));
  for (const epoch of [0, 1]) assert.equal(new Set(seen.slice(epoch * 50, epoch * 50 + 50)).size, 50);
  assert.notDeepEqual(seen.slice(0, 50), seen.slice(50));
  assert.notDeepEqual(indices(await see(numbered(50), { batch: 20, seed: 2 }, 5)), seen);
});

test('a flip mirrors left and right, each colour in its place, for half of the pictures, by the formula', async () => {
  for (const channels of [1, 3] as const) {
    const source = numbered(40, channels);
    const seen = await see(source, { batch: 30, seed: 3, flip: true }, 4);
    let flips = 0;
    for (const { image, index, pixels } of seen) {
      const original = source.peek(index);
      const at = (y: number, x: number): number[] => [...original.subarray((2 * y + x) * channels, (2 * y + x + 1) * channels)];
      const flipped = uniform(key(3, 'flip'), image, 0) < 0.5;
      if (flipped) flips++;
      const wanted = flipped ? [at(0, 1), at(0, 0), at(1, 1), at(1, 0)] : [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
      assert.deepEqual([...Buffer.from(pixels, 'base64')], wanted.flat());
    }
    assert.ok(flips > 30 && flips < 90, `${flips} of 120`);
  }
});

test('0, 1 and 3 processes, any prefetch, cached or not: the same bits', async (t) => {
  const folder = temporaryFolder(t);
  await corpus(folder, 31);
  const results = [];
  for (const [workers, prefetch, keep] of [
    [0, 0, false],
    [1, 2, true],
    [3, 3, false],
    [3, 1, true],
  ] as const) {
    const { train } = openFolder(folder, { size: 8, channels: 3, keep });
    results.push(await see(train, { batch: 12, seed: 9, flip: true, workers, prefetch }, 6));
  }
  for (const other of results.slice(1)) assert.deepEqual(other, results[0]);
  assert.ok(new Set(results[0]!.map((one) => one.pixels)).size > 31, 'mirrored and plain ones');
});

test('broken pictures, skipped: the same bits whatever the processes', async (t) => {
  const folder = temporaryFolder(t);
  await corpus(folder, 31);
  for (const name of ['even/104.png', 'odd/111.png', 'odd/113.png']) put(join(folder, name), 'broken');
  const results = [];
  for (const workers of [0, 3]) {
    const { train } = openFolder(folder, { size: 8, channels: 3, broken: 'skip' });
    results.push(await see(train, { batch: 12, seed: 9, workers }, 5));
  }
  assert.deepEqual(results[1], results[0]);
});

test('resumed anywhere, with any batch, it goes on exactly as if it had not stopped', async () => {
  const source = numbered(11);
  const whole = await see(source, { batch: 1, seed: 5, flip: true }, 80);
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 50 }),
      fc.integer({ min: 1, max: 15 }),
      fc.integer({ min: 0, max: 3 }),
      async (start, batch, prefetch) => {
        const part = await see(source, { batch, seed: 5, flip: true, start, prefetch }, 2);
        assert.deepEqual(part, whole.slice(start, start + 2 * batch));
      },
    ),
    { numRuns: 40 },
  );
});

test('resume works beyond 2^32 images', async () => {
  const start = 2 ** 33 + 5;
  const seen = await see(numbered(11), { batch: 3, seed: 5, start }, 1);
  assert.deepEqual(
    seen.map((one) => one.index),
    [0, 1, 2].map((b) => permutation(key(5, 'order'), Math.floor((start + b) / 11), 11)[(start + b) % 11]),
  );
});

test('a broken picture: next names it, the first in order whatever the processes did, and goes no further', async (t) => {
  const folder = temporaryFolder(t);
  await corpus(folder, 20);
  for (let i = 0; i < 20; i += 3) put(join(folder, i % 2 === 0 ? 'even' : 'odd', `${100 + i}.png`), i % 2 === 0 ? '' : 'broken');
  const messages = [];
  for (const workers of [0, 3]) {
    const { train } = openFolder(folder, { size: 8, channels: 3 });
    const loader = new Loader(train, { batch: 10, seed: 0, workers });
    const message = await loader.next().then(
      () => 'no error',
      (error: Error) => error.message,
    );
    assert.match(message, /cannot use picture .*\.png: /);
    await assert.rejects(loader.next(), new RegExp(message.slice(0, 60).replace(/[.*+?^${}()|[\]\\]/g, '\\$&')));
    await loader.close();
    messages.push(message);
  }
  assert.equal(messages[1], messages[0]);
});

test('several calls at once are served in order', async () => {
  const loader = new Loader(numbered(9), { batch: 4, seed: 0, prefetch: 1 });
  const batches = await Promise.all([loader.next(), loader.next(), loader.next(), loader.next()]);
  assert.deepEqual(
    batches.map((batch) => batch.firstImage),
    [0, 4, 8, 12],
  );
  await loader.close();
});

test("a batch is its receiver's own: writing to it changes no later one", async () => {
  const source = numbered(4);
  const loader = new Loader(source, { batch: 4, seed: 0 });
  (await loader.next()).images.fill(255);
  const next = await loader.next();
  assert.deepEqual(next.images.subarray(0, 4), Uint8Array.from(source.peek(next.indices[0]!)));
  assert.ok(!next.images.includes(255));
  await loader.close();
});

test('lent batches are the same bits; memory that is released is used again, other is not touched', async (t) => {
  const folder = temporaryFolder(t);
  await corpus(folder, 31);
  const wanted = await see(openFolder(folder, { size: 8, channels: 3 }).train, { batch: 6, seed: 2, flip: true, workers: 0 }, 12);
  for (const [workers, keep] of [
    [0, false],
    [2, false],
    [2, true],
  ] as const) {
    const { train } = openFolder(folder, { size: 8, channels: 3, keep });
    const loader = new Loader(train, { batch: 6, seed: 2, flip: true, workers, prefetch: 1, lend: true });
    const memories = new Set<ArrayBufferLike>();
    const held: { batch: Batch; i: number }[] = [];
    for (let i = 0; i < 12; i++) {
      const batch = await loader.next();
      memories.add(batch.images.buffer);
      if (i < 2) held.push({ batch, i });
      for (const one of [...held, { batch, i }]) {
        const pixels = wanted.slice(one.i * 6, one.i * 6 + 6).map((picture) => Buffer.from(picture.pixels, 'base64'));
        assert.deepEqual(Buffer.from(one.batch.images), Buffer.concat(pixels), `batch ${one.i}, ${workers} processes`);
      }
      if (i < 2) continue;
      batch.images.fill(i);
      batch.release?.();
      batch.release?.();
    }
    assert.ok(memories.size <= 5, `${memories.size} for two that are held, one here, one ahead`);
    await loader.close();
  }
});

test('closed: next throws, also one that was waiting; closing twice does nothing', async (t) => {
  const folder = temporaryFolder(t);
  await corpus(folder, 8);
  for (const workers of [0, 2]) {
    const loader = new Loader(openFolder(folder, { size: 8, channels: 3 }).train, { batch: 64, seed: 0, workers });
    const waiting = assert.rejects(loader.next(), /Loader: it is closed/);
    await loader.close();
    await waiting;
    await loader.close();
    await assert.rejects(loader.next(), /Loader: it is closed/);
  }
});

test('options that make no sense are refused', () => {
  const source = numbered(3);
  for (const wrong of [{ batch: 0 }, { batch: 1.5 }, { prefetch: -1 }, { start: -1 }, { start: 0.5 }, { workers: -1 }])
    assert.throws(() => new Loader(source, { batch: 1, seed: 0, ...wrong }), RangeError, JSON.stringify(wrong));
});

test('a source that gives too few bytes is found out', async () => {
  const honest = numbered(3);
  const liar: ImageSource = { ...about(honest), peek: () => undefined, load: async () => new Uint8Array(3) };
  const loader = new Loader(liar, { batch: 1, seed: 0 });
  await assert.rejects(loader.next(), /gave 3 bytes where 4 were expected/);
  await loader.close();
});

function about(source: ImageSource): Omit<ImageSource, 'peek' | 'load'> {
  const { name, size, channels, classes, length } = source;
  return { name, size, channels, classes, length, label: (i) => source.label(i), path: (i) => source.path(i) };
}
