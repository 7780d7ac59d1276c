/** What can be judged: `.npz` files and folders of pictures, and files as references. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { integer, key } from '../../src/core/random.js';
import { encodePng } from '../../src/data/picture.js';
import { MemorySource } from '../../src/data/source.js';
import { type JudgeInput, judgePictures } from '../../src/eval/evaluate.js';
import { openFileReference } from '../../src/eval/reference-file.js';
import { readReference, writeReference } from '../../src/eval/references.js';
import { openSampleFolder } from '../../src/eval/sample-folder.js';
import { inChannels, inColours, ofNpz, ofSource, type PictureSet } from '../../src/eval/sets.js';
import { type NpzArray, writeNpz } from '../../src/io/npz.js';
import { memory, setThreads } from '../../src/torch/index.js';
import { liveTensors } from '../torch/live.js';

setThreads(1);

const folder = mkdtempSync(join(tmpdir(), 'dsd-sets-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const at = (...names: string[]): string => join(folder, ...names);
const refuses = (message: RegExp, kind: typeof UsageError | typeof FailureError) => (error: Error) => {
  assert.ok(error instanceof kind, `${error.stack}`);
  assert.match(error.message, message);
  return true;
};

/** Noise of its own for each picture; bright where its class is 1. */
const pixels = (count: number, each: number, seed = 1): Uint8Array =>
  Uint8Array.from(
    { length: count * each },
    (_, i) => integer(key(seed, 'test'), Math.floor(i / each), i % each, 120) + 100 * (Math.floor(i / each) % 2),
  );

function npz(name: string, arrays: Record<string, NpzArray>): string {
  writeNpz(at(name), new Map(Object.entries(arrays)));
  return at(name);
}
const rows = (count: number, size = 8, channels = 3, seed = 1): NpzArray => ({
  ...{ dtype: 'uint8', shape: [count, size, size, channels], data: pixels(count, size * size * channels, seed) },
});
const classes = (count: number): NpzArray => ({
  dtype: 'int64',
  shape: [count],
  data: BigInt64Array.from({ length: count }, (_, i) => BigInt(i % 2)),
});

async function all(set: PictureSet, size: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let first = 0; first < set.count; first += size) parts.push(await set.read(first, Math.min(size, set.count - first)));
  return Buffer.concat(parts);
}

test('an .npz is read in pieces, all of it or some pictures spread over it, with its classes', async () => {
  const path = npz('ten.npz', { arr_0: rows(10), arr_1: classes(10) });
  const whole = ofNpz(path);
  assert.deepEqual([whole.count, whole.height, whole.width, whole.channels], [10, 8, 8, 3]);
  assert.deepEqual(whole.labels, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
  assert.deepEqual([...(await all(whole, 4))], [...pixels(10, 192)]);
  whole.close();
  const some = ofNpz(path, 3);
  assert.deepEqual(some.labels, [0, 1, 0], 'pictures 0, 3 and 6');
  const found = await all(some, 2);
  for (const [i, place] of [0, 3, 6].entries())
    assert.deepEqual([...found.subarray(i * 192, (i + 1) * 192)], [...pixels(10, 192).subarray(place * 192, (place + 1) * 192)]);
  some.close();
  assert.throws(() => ofNpz(path, 11), refuses(/11 pictures were asked for, and .*ten\.npz has 10/, UsageError));
});

test('an .npz that is no set of pictures is refused by what is wrong with it', () => {
  const wrong = (message: RegExp, kind: typeof UsageError | typeof FailureError, arrays: Record<string, NpzArray>) =>
    assert.throws(() => ofNpz(npz('wrong.npz', arrays)), refuses(message, kind));
  wrong(/no pictures: it lacks 'arr_0', and has 'mu'/, UsageError, { mu: { dtype: 'float64', shape: [1], data: new Float64Array(1) } });
  wrong(/'arr_0' has the shape \(4, 8, 8\)/, FailureError, { arr_0: { dtype: 'uint8', shape: [4, 8, 8], data: new Uint8Array(256) } });
  wrong(/array "arr_0" holds no rows of uint8: float32 \[4,8,8,3\]\. Pictures are stored as whole numbers from 0 to 255/, FailureError, {
    arr_0: { dtype: 'float32', shape: [4, 8, 8, 3], data: new Float32Array(768) },
  });
  wrong(/'arr_1' is int64 of the shape \(3\), and the classes of 4 pictures are int64 \(4\)/, FailureError, {
    arr_0: rows(4),
    arr_1: classes(3),
  });
  const negative: NpzArray = { dtype: 'int64', shape: [4], data: BigInt64Array.of(0n, 1n, -1n, 0n) };
  wrong(/'arr_1' has -1 at 2, and classes are numbers from 0/, FailureError, { arr_0: rows(4), arr_1: negative });
});

test('grey pictures stored as colours are grey again, and colours are not', async () => {
  const grey = ofNpz(npz('grey.npz', { arr_0: rows(3, 8, 1) }));
  const coloured = inChannels(grey, 3);
  assert.deepEqual([coloured.channels, (await coloured.read(0, 3)).length], [3, 3 * 192]);
  const back = inChannels({ ...coloured }, 1);
  assert.deepEqual([...(await back.read(0, 3))], [...pixels(3, 64)]);
  await assert.rejects(
    inChannels(ofNpz(at('ten.npz')), 1).read(0, 2),
    refuses(/ten\.npz: picture 0 has colours, and those to compare with are grey/, UsageError),
  );
});

async function picture(path: string, size: number, channels: 1 | 3 = 3, height = size): Promise<void> {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, await encodePng(pixels(1, size * height * channels), size, height, channels));
}

test('a folder of samples: as they are, in the order of their names, with the classes that names or folders give', async () => {
  for (const name of ['000000-1-dog.png', '000001-0-cat.png', '000002-1-dog.png']) await picture(at('named', name), 9);
  const named = await openSampleFolder(at('named'));
  assert.deepEqual([named.count, named.height, named.channels, named.labels], [3, 9, 3, [1, 0, 1]]);
  assert.deepEqual([...(await named.read(2, 1))], [...pixels(1, 243)], 'to the pixel');
  assert.equal((await openSampleFolder(at('named'), { count: 2 })).count, 2);
  await assert.rejects(openSampleFolder(at('named'), { count: 4 }), refuses(/4 pictures were asked for, and .*named has 3/, UsageError));
  await picture(at('named', '000003-none.png'), 9, 1);
  const mixed = await openSampleFolder(at('named'));
  assert.deepEqual([mixed.labels, mixed.channels], [undefined, 3], 'one has no class, so none has');

  for (const name of ['cat/a.png', 'cat/b.png', 'dog/a.png']) await picture(at('grouped', name), 9, 1);
  const grouped = await openSampleFolder(at('grouped'), { classes: ['bird', 'dog', 'cat'] });
  assert.deepEqual([grouped.labels, grouped.channels], [[2, 2, 1], 1]);
  assert.equal((await openSampleFolder(at('grouped'), { classes: ['bird', 'dog'] })).labels, undefined);
  assert.equal((await openSampleFolder(at('grouped'))).labels, undefined);
});

test('a folder that is no set is refused by what is wrong with it', async () => {
  mkdirSync(at('empty'));
  writeFileSync(at('empty', 'notes.txt'), 'hello');
  await assert.rejects(openSampleFolder(at('empty')), refuses(/empty is no run .* and has no pictures/, UsageError));
  await picture(at('data', 'train', 'dog', 'a.png'), 9);
  await assert.rejects(
    openSampleFolder(at('data')),
    refuses(
      /data has its pictures deeper: samples lie in one folder, or in its sub-folders, one a class\. Name .* as .*data\/train$/,
      UsageError,
    ),
  );
  for (const [name, size] of [
    ['a.png', 8],
    ['b.png', 8],
    ['c.png', 12],
  ] as const)
    await picture(at('sizes', name), size);
  await assert.rejects(openSampleFolder(at('sizes')), refuses(/several sizes: .*a\.png has 8 x 8 px, .*c\.png 12 x 12/, UsageError));
  await picture(at('oblong', 'a.png'), 8, 3, 6);
  await assert.rejects(openSampleFolder(at('oblong')), refuses(/8 x 6 px: samples must be square/, UsageError));
  await picture(at('both', 'a.png'), 8);
  await picture(at('both', 'more', 'b.png'), 8);
  await assert.rejects(openSampleFolder(at('both')), refuses(/pictures of its own and in sub-folders/, UsageError));
  await picture(at('broken', 'a.png'), 8);
  writeFileSync(at('broken', 'b.png'), 'hello');
  await assert.rejects(openSampleFolder(at('broken')), refuses(/cannot use picture .*b\.png/, FailureError));
});

const source = (count: number, seed: number): MemorySource =>
  new MemorySource(
    { name: `source ${seed}`, size: 8, channels: 3, classes: ['dark', 'bright'] },
    pixels(count, 192, seed),
    Array.from({ length: count }, (_, i) => i % 2),
    (i) => `picture ${i}`,
  );
const input = (changes: Partial<JudgeInput> = {}): JudgeInput => ({
  ...{ features: ['nsfwjs-mixed7'], data: { train: source(12, 1), heldOut: source(8, 2) }, against: 'held-out', real: 8, files: [] },
  ...{ count: 6, device: 'cpu', seed: 3, classifier: { steps: 2, batch: 8 } },
  ...changes,
});

test('pictures are judged by several networks; a reference written and read again gives the same figures', async () => {
  const before = await liveTensors();
  const set = ofNpz(npz('six.npz', { arr_0: rows(6, 8, 3, 5), arr_1: classes(6) }));
  const file = at('reference.npz');
  const report = await judgePictures(
    input({ features: ['classifier', 'nsfwjs-mixed7'], writeReference: new Map([['nsfwjs-mixed7', file]]) }),
    set,
  );
  assert.equal(memory().live, before, 'all is freed');
  assert.deepEqual(
    report.samples.distances.map(({ name, count }) => [name, count]),
    [
      ['FD-classifier', 6],
      ['FD-nsfwjs-mixed7', 6],
    ],
  );
  assert.ok((report.samples.accuracy as number) >= 0);
  const [, wanted] = report.samples.distances;
  const [, floor] = report.floor!;
  assert.ok((wanted?.frechet as number) > 0 && (floor?.count as number) === 6);
  assert.match(report.warnings.join('\n'), /^FD-nsfwjs-mixed7: 6 pictures for 768 features, which leaves a covariance singular.*about/m);

  const again = await judgePictures(input({ data: undefined, files: [file] }), set);
  const [found] = again.samples.distances;
  assert.ok(Math.abs((found?.frechet as number) - (wanted?.frechet as number)) < 1e-9);
  assert.deepEqual([found?.kid, found?.precision, found?.recall], [wanted?.kid, wanted?.precision, wanted?.recall]);
  assert.deepEqual([again.floor, again.realAccuracy], [undefined, undefined]);
  assert.deepEqual(again.protocol.judges[0]?.reference, { source: file, count: 8 });

  const pictures = npz('pictures.npz', { arr_0: { dtype: 'uint8', shape: [8, 8, 8, 3], data: pixels(8, 192, 2) } });
  const third = await judgePictures(input({ files: [pictures] }), set);
  assert.ok(Math.abs((third.samples.distances[0]?.frechet as number) - (wanted?.frechet as number)) < 1e-9);
  assert.deepEqual(
    third.protocol.judges[0]?.floor,
    { source: 'source 1', count: 6 },
    'of training pictures, since the reference has the held-out ones',
  );
  assert.ok((third.floor?.[0]?.frechet as number) > 1e-3);
  const everything = npz('everything.npz', {
    arr_0: { dtype: 'uint8', shape: [20, 8, 8, 3], data: Buffer.concat([pixels(8, 192, 2), pixels(12, 192, 1)]) },
  });
  const fourth = await judgePictures(input({ files: [everything] }), set);
  assert.deepEqual([fourth.floor, fourth.protocol.judges[0]?.floor], [undefined, undefined]);
  assert.match(fourth.warnings.join('\n'), /^the reference has pictures of source 2 and of source 1, so there are none/m);
  set.close();
  assert.equal(memory().live, before);
});

test('pictures beside statistics are in colours, one set behind the other', async () => {
  const grey = new MemorySource({ name: 'grey', size: 8, channels: 1, classes: ['a'] }, pixels(200, 64, 7), Array(200).fill(0), () => '');
  const kept = await inColours([ofSource(grey, [3, 4]), ofSource(grey, [199])]);
  assert.deepEqual(kept?.shape, [3, 8, 8, 3]);
  for (const [i, of] of [3, 4, 199].entries())
    for (const at of [0, 63])
      assert.deepEqual(
        [...kept!.data.subarray((i * 64 + at) * 3, (i * 64 + at) * 3 + 3)],
        Array(3).fill((grey.peek(of) as Uint8Array)[at]),
      );
  const many = { ...ofSource(grey, [0]), count: 2 ** 23 };
  assert.equal(await inColours([many]), undefined, 'more than a gibibyte');
});

test('statistics alone give a Frechet distance alone, and with pictures beside them all', async () => {
  const file = at('reference.npz');
  const content = readReference(file, { extractor: 'nsfwjs-mixed7', dimension: 768 });
  const lean = at('lean.npz');
  writeReference(lean, { extractor: 'nsfwjs-mixed7', pooled: { ...content.pooled, count: Number.POSITIVE_INFINITY } });
  const set = ofSource(source(6, 5), [0, 1, 2, 3, 4, 5]);
  const { samples, protocol } = await judgePictures(input({ data: undefined, files: [lean] }), set);
  const [found] = samples.distances;
  assert.deepEqual(Object.keys(found ?? {}).sort(), ['count', 'extractor', 'frechet', 'name']);
  assert.equal(protocol.judges[0]?.reference.count, null, 'the file does not say');
  const beside = await judgePictures(input({ files: [lean] }), set);
  assert.match(beside.warnings.join('\n'), /^the reference does not say of which pictures it is: if those of source 2 are among them/m);

  const full = at('full.npz');
  writeReference(full, { extractor: 'nsfwjs-mixed7', pooled: content.pooled, samples: { shape: [8, 8, 8, 3], data: pixels(8, 192, 2) } });
  const [more] = (await judgePictures(input({ data: undefined, files: [full] }), set)).samples.distances;
  assert.ok(Math.abs((more?.frechet as number) - (found?.frechet as number)) < 1e-9);
  assert.equal(more?.kid?.size, 6);
  assert.ok(more?.precision !== undefined && more.recall !== undefined);
});

test('references of another network, without arrays, or too small are refused', async () => {
  const nsfw = { name: 'nsfwjs-mixed7', dimension: 768 };
  const statistics = (D: number): Record<string, NpzArray> => ({
    mu: { dtype: 'float64', shape: [D], data: new Float64Array(D) },
    sigma: { dtype: 'float64', shape: [D, D], data: Float64Array.from({ length: D * D }, (_, i) => (i % (D + 1) === 0 ? 1 : 0)) },
  });
  const theirs = npz('theirs.npz', statistics(4));
  assert.throws(
    () => openFileReference([theirs], nsfw),
    refuses(/no reference for 'nsfwjs-mixed7': .*theirs\.npz has statistics of 'inception-2015'/, UsageError),
  );
  assert.throws(
    () => openFileReference([theirs], { name: 'inception-2015', dimension: 2048 }),
    refuses(/statistics of 4 features .* has 2048/, UsageError),
  );
  const nothing = npz('nothing.npz', { other: { dtype: 'float64', shape: [1], data: new Float64Array(1) } });
  assert.throws(
    () => openFileReference([nothing], nsfw),
    refuses(/nothing\.npz has only 'other'\. Statistics are 'mu' and 'sigma'/, UsageError),
  );
  const few = npz('few.npz', { arr_0: rows(3) });
  const set = ofSource(source(6, 5), [0, 1, 2, 3, 4, 5]);
  await assert.rejects(
    judgePictures(input({ data: undefined, files: [few] }), set),
    refuses(/more than 3 pictures in each set, got 3/, UsageError),
  );
  await assert.rejects(judgePictures(input({ data: undefined }), set), refuses(/name some with --data or --reference/, UsageError));
  await assert.rejects(
    judgePictures(input({ files: [few], against: 'train' }), set),
    refuses(/the reference is a file, or a part of the data, not both/, UsageError),
  );
  const large = ofNpz(npz('large.npz', { arr_0: rows(6, 12) }));
  await assert.rejects(
    judgePictures(input(), large),
    refuses(/large\.npz has pictures of 12 x 12 px, and those of source 2 were opened at 8 px/, UsageError),
  );
});
