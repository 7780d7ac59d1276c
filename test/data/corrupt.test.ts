/** Folders in which some pictures are broken: the first by order is named, or each is replaced by a function of its index. */
import assert from 'node:assert/strict';
import { symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { FailureError } from '../../src/core/errors.js';
import { key, permutation } from '../../src/core/random.js';
import { decode } from '../../src/data/decode.js';
import type { Broken, FolderOptions } from '../../src/data/folder.js';
import { openFolder } from '../../src/data/folder.js';
import { PictureError } from '../../src/data/job.js';
import { Loader } from '../../src/data/loader.js';
import type { ImageSource } from '../../src/data/source.js';
import { stack } from '../../src/data/source.js';
import { colourError, noise, put, temporaryFolder } from './corpus.js';
import { putSound, putUnsound, type Unsound } from './zoo.js';

const SIZE = 8;
const root = process.getuid?.() === 0;

async function sound(path: string, seed: number): Promise<string> {
  return put(path, await noise(9, 8, seed).png().toBuffer());
}

/** The training part of a folder with a part of its own to hold out, so that it is what the test put there. */
function open(folder: string, options: Partial<FolderOptions> = {}): ImageSource {
  return openFolder(folder, { size: SIZE, channels: 3, ...options }).train;
}

/** `train/b/...` with all that is broken between sound pictures, `train/a/...` without; `val`. */
async function zoo(folder: string): Promise<Map<string, Unsound>> {
  const unsound = await putUnsound(join(folder, 'train', 'b'), root);
  for (let i = 0; i < 6; i++) await sound(join(folder, 'train', 'b', `${'adfkpx'[i]}${i}.png`), 10 + i);
  for (let i = 0; i < 9; i++) await sound(join(folder, 'train', 'a', `${i}.png`), 20 + i);
  await sound(join(folder, 'val', 'a', 'x.png'), 1);
  return new Map(unsound.map((one) => [one.name, one]));
}

/** Pictures in order of a loader with this seed: picture numbers of global images. */
function order(source: ImageSource, seed: number, images: number): number[] {
  return Array.from(
    { length: images },
    (_, g) => permutation(key(seed, 'order'), Math.floor(g / source.length), source.length)[g % source.length]!,
  );
}

/** The rule for a broken picture: the broken ones met from picture i on, and the sound one of its class behind them. */
function search(source: ImageSource, i: number, broken: (path: string) => boolean): { met: number[]; standIn: number } {
  const met: number[] = [];
  let at = i;
  while (broken(source.path(at))) {
    met.push(at);
    do at = (at + 1) % source.length;
    while (source.label(at) !== source.label(i));
  }
  return { met, standIn: at };
}

/** Two classes of 20 pictures, of which seven in `BROKEN` are broken: next to each other, first and last of a class, and alone. */
async function flawed(folder: string): Promise<void> {
  for (const [i, name] of ['a', 'b'].entries())
    for (let k = 10; k < 30; k++) await sound(join(folder, 'train', name, `${k}.png`), 100 * i + k);
  for (const path of BROKEN) put(join(folder, 'train', path), path);
  await sound(join(folder, 'val', 'a', 'x.png'), 1);
}
const BROKEN = ['a/10.png', 'a/11.png', 'a/19.png', 'a/29.png', 'b/12.png', 'b/28.png', 'b/29.png'];
const isBroken = (path: string): boolean => BROKEN.some((one) => path.endsWith(one));

interface Plan {
  readonly batch: number;
  readonly start: number;
  readonly workers: number;
  readonly prefetch: number;
}

const SEED = 8;

/** What a fresh loader gives: pixels, class and number of each picture, to the end or to an error. */
async function see(source: ImageSource, batches: number, plan: Plan): Promise<{ seen: string[]; error: unknown }> {
  const loader = new Loader(source, { seed: SEED, flip: true, ...plan });
  const seen: string[] = [];
  let error: unknown;
  try {
    for (let i = 0; i < batches; i++) {
      const { images, labels, indices } = await loader.next();
      const each = images.length / plan.batch;
      for (let b = 0; b < plan.batch; b++)
        seen.push(`${indices[b]} ${labels[b]} ${Buffer.from(images.subarray(b * each, (b + 1) * each)).toString('base64')}`);
    }
  } catch (caught) {
    error = caught;
  }
  await loader.close();
  return { seen, error };
}

test('pictures of every dress are decoded to their colour', async (t) => {
  const folder = temporaryFolder(t);
  const all = new Map((await putSound(join(folder, 'train', 'a'))).map((one) => [one.name, one]));
  await sound(join(folder, 'val', 'a', 'x.png'), 1);
  for (const broken of ['error', 'skip'] as const) {
    const source = open(folder, { broken, onBroken: ({ path }) => assert.fail(path) });
    assert.equal(source.length, all.size);
    for (let i = 0; i < source.length; i++) {
      const { name, colour, error } = all.get(basename(source.path(i)))!;
      assert.ok(colourError(await source.load(i), colour) < error, name);
    }
  }
});

test("'error': each broken picture is refused with its path and the reason; a folder with a picture's name is one of them", async (t) => {
  const folder = temporaryFolder(t);
  const unsound = await zoo(folder);
  const source = open(folder);
  assert.deepEqual(source.classes, ['a', 'b']);
  assert.equal(source.length, 15 + unsound.size, 'what lies in folder.jpg is not looked at');
  let refused = 0;
  for (let i = 0; i < source.length; i++) {
    const wanted = unsound.get(basename(source.path(i)));
    if (wanted === undefined) await source.load(i);
    else {
      refused++;
      await assert.rejects(source.load(i), (error) => {
        assert.ok(error instanceof PictureError, String(error));
        assert.equal(error.path, source.path(i));
        assert.match(error.reason, wanted.reason, wanted.name);
        assert.equal(error.message, `cannot use picture ${error.path}: ${error.reason}`);
        return true;
      });
    }
  }
  assert.equal(refused, unsound.size);
});

test("'error': batches before the first broken picture by order come, then it is named, whatever the processes and the start", async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 60; i++) await sound(join(folder, 'train', 'a', `${100 + i}.png`), i);
  for (const name of ['107', '123', '148']) put(join(folder, 'train', 'a', `${name}.png`), name);
  await sound(join(folder, 'val', 'a', 'x.png'), 1);
  const seed = 4;
  const numbers = order(open(folder), seed, 120);
  const bad = (i: number): boolean => ['107.png', '123.png', '148.png'].includes(basename(open(folder).path(i)));
  for (const start of [0, 7, 30, 55]) {
    const first = numbers.findIndex((index, g) => g >= start && bad(index));
    for (const [workers, prefetch] of [
      [0, 0],
      [1, 3],
      [2, 4],
    ] as const) {
      const source = open(folder, { keep: workers === 1 });
      const loader = new Loader(source, { batch: 4, seed, start, workers, prefetch });
      for (let g = start; g + 4 <= first; g += 4) assert.deepEqual([...(await loader.next()).indices], numbers.slice(g, g + 4));
      await assert.rejects(loader.next(), (error) => error instanceof PictureError && error.path === source.path(numbers[first]!));
      await loader.close();
    }
  }
});

test("'skip': the next sound picture of the class, wherever the list begins", async (t) => {
  const folder = temporaryFolder(t);
  const unsound = await zoo(folder);
  const reported = new Map<string, Broken>();
  const source = open(folder, {
    broken: 'skip',
    maxBroken: unsound.size,
    onBroken: (one) => {
      assert.ok(!reported.has(one.path), 'once for each');
      reported.set(one.path, one);
    },
  });
  for (let i = 0; i < source.length; i++) {
    const stand = search(source, i, (path) => unsound.has(basename(path))).standIn;
    const wanted = await decode({ kind: 'photo', path: source.path(stand), size: SIZE, channels: 3 });
    assert.deepEqual(await source.load(i), wanted, source.path(i));
  }
  assert.deepEqual([...reported.keys()].map((path) => basename(path)).sort(), [...unsound.keys()].sort());
  for (const { path, reason, replacedBy } of reported.values()) {
    assert.match(reason, unsound.get(basename(path))!.reason);
    assert.ok(!unsound.has(basename(replacedBy)));
    assert.equal(basename(join(replacedBy, '..')), 'b');
  }
});

test("'skip': from any image on, a fresh loader gives what a whole run gives, whatever the processes and whatever was loaded before", async (t) => {
  const folder = temporaryFolder(t);
  await flawed(folder);
  const options = { broken: 'skip', maxBroken: BROKEN.length } as const;
  const whole = await see(open(folder, options), 130, { batch: 1, start: 0, workers: 0, prefetch: 0 });
  assert.equal(whole.error, undefined);
  const source = open(folder, options);
  for (const [g, i] of order(source, SEED, 130).entries()) assert.match(whole.seen[g]!, new RegExp(`^${i} ${source.label(i)} `));
  await fc.assert(
    fc.asyncProperty(
      fc.record({ start: fc.nat(90), batch: fc.integer({ min: 1, max: 10 }), workers: fc.constantFrom(0, 1, 2), prefetch: fc.nat(4) }),
      fc.boolean(),
      fc.array(fc.nat(source.length - 1), { maxLength: 30 }),
      async (plan, keep, before) => {
        const fresh = open(folder, { ...options, keep });
        await Promise.all(before.map((i) => fresh.load(i)));
        const part = await see(fresh, 4, plan);
        assert.equal(part.error, undefined);
        assert.deepEqual(part.seen, whole.seen.slice(plan.start, plan.start + 4 * plan.batch));
      },
    ),
    { numRuns: 30, seed: 1 },
  );
});

test("'skip': a broken picture counts once by its path, over all epochs", async (t) => {
  const folder = temporaryFolder(t);
  await flawed(folder);
  for (const keep of [false, true]) {
    const reported: string[] = [];
    const source = open(folder, { broken: 'skip', maxBroken: BROKEN.length, keep, onBroken: ({ path }) => reported.push(path) });
    const { error } = await see(source, 20, { batch: 10, start: 0, workers: 2, prefetch: 2 });
    assert.equal(error, undefined, 'five epochs');
    assert.deepEqual(reported.sort(), BROKEN.map((path) => join(folder, 'train', path)).sort());
  }
  symlinkSync('12.png', join(folder, 'train', 'b', '13 again.png'));
  const { error } = await see(open(folder, { broken: 'skip', maxBroken: BROKEN.length }), 20, {
    batch: 10,
    start: 0,
    workers: 2,
    prefetch: 2,
  });
  assert.match(String(error), /8 of 41 pictures are broken/, 'the same file by another path is another picture');
});

test('the cap is met at the same image, by the same picture, whatever the processes; a resumed run counts anew', async (t) => {
  const folder = temporaryFolder(t);
  await flawed(folder);
  const maxBroken = BROKEN.length - 2;
  const plans: Omit<Plan, 'start'>[] = [
    { batch: 3, workers: 0, prefetch: 0 },
    { batch: 3, workers: 1, prefetch: 8 },
    { batch: 3, workers: 2, prefetch: 3 },
    { batch: 7, workers: 2, prefetch: 1 },
  ];
  const ends: number[] = [];
  for (const start of [0, 11, 35, 52]) {
    // By the rule: one image after another, from the start.
    const source = open(folder);
    const counted: number[] = [];
    let end = start;
    let last = -1;
    for (const numbers = order(source, SEED, 200); last < 0; end++)
      for (const one of search(source, numbers[end]!, isBroken).met) {
        if (counted.includes(one) || last >= 0) continue;
        if (counted.length === maxBroken) last = one;
        else counted.push(one);
      }
    ends.push(end);
    for (const { batch, workers, prefetch } of plans) {
      const reported: string[] = [];
      const options = { broken: 'skip', maxBroken, keep: workers === 1, onBroken: ({ path }: Broken) => reported.push(path) } as const;
      const { seen, error } = await see(open(folder, options), 200, { batch, start, workers, prefetch });
      assert.ok(error instanceof FailureError);
      assert.ok(
        error.message.includes(
          `${maxBroken + 1} of 40 pictures are broken, and at most ${maxBroken} are skipped. The last one, ${source.path(last)}: `,
        ),
        error.message,
      );
      assert.equal(seen.length, Math.floor((end - 1 - start) / batch) * batch, 'all batches before that of the image');
      assert.deepEqual(
        reported,
        counted.map((i) => source.path(i)),
        'reported in order',
      );
    }
  }
  assert.ok(ends[0]! < 40 && ends.every((end, i) => end <= [40, 80, 80, 120][i]!), `before the next epoch ends: ${ends}`);
  assert.ok(ends[2]! > ends[0]!, 'resumed behind the place, it comes further');
});

test('of several broken pictures asked for together the first in order is named, whichever was found first', async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 5; i++) await sound(join(folder, 'train', 'a', `${i}.png`), i);
  await sound(join(folder, 'val', 'a', 'x.png'), 1);
  const source = open(folder);
  const late = async ({ path }: { path: string }): Promise<Uint8Array> => {
    for (let i = 0; i < 50 - 10 * Number(basename(path, '.png')); i++) await Promise.resolve();
    throw new PictureError(path, 'broken');
  };
  await assert.rejects(stack(source, [1, 4, 0], late), (error) => error instanceof PictureError && error.path === source.path(1));
});
