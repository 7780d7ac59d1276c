import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { integer, key, normal } from '../../src/core/random.js';
import type { Picture } from '../../src/data/picture.js';
import { MemorySource } from '../../src/data/source.js';
import { type JudgeInput, judgePictures } from '../../src/eval/evaluate.js';
import { drawNeighbours, medianNearest, nearestRows } from '../../src/eval/neighbours.js';
import { ofSource } from '../../src/eval/sets.js';
import { memory, scope, setThreads, type Tensor, tensor } from '../../src/torch/index.js';
import { liveTensors } from '../torch/live.js';

setThreads(1);

const rows = (values: readonly (readonly number[])[]): Tensor =>
  tensor(Float32Array.from(values.flat()), [values.length, values[0]!.length]);

test('the nearest rows, beyond one piece, are those of every pair looked at', () => {
  const random = key(7, 'test');
  const row = (i: number) => [normal(random, i, 0), normal(random, i, 1), normal(random, i, 2)].map(Math.fround);
  const known = Array.from({ length: 4500 }, (_, i) => row(i));
  const asked = [known[4400]!, ...Array.from({ length: 6 }, (_, i) => row(9000 + i))];
  const found = scope(() => nearestRows(rows(known), rows(asked), 5));
  for (const [i, point] of asked.entries()) {
    const all = known
      .map((other, place) => [Math.hypot(...other.map((value, d) => value - point[d]!)), place] as const)
      .sort(([a], [b]) => a - b);
    assert.deepEqual(
      found.places[i],
      all.slice(0, 5).map(([, place]) => place),
    );
    for (const [j, distance] of found.distances[i]!.entries()) assert.ok(Math.abs(distance - all[j]![0]) < 1e-6);
  }
  assert.equal(found.distances[0]![0], 0, 'itself');
  assert.equal(scope(() => nearestRows(rows(known.slice(0, 3)), rows(asked), 5)).places[0]!.length, 3);
  assert.equal(medianNearest({ places: [], distances: [[3], [1, 9], [2]] }), 2);
  scope(() => {
    assert.throws(() => nearestRows(rows(known), rows([[1, 2]]), 5), UsageError);
    assert.throws(() => nearestRows(rows(known), rows([[1, Number.NaN, 2]]), 5), FailureError);
  });
});

/** Pictures of one brightness each. */
const flat = (levels: readonly number[], name = 'flat'): MemorySource =>
  new MemorySource(
    { name, size: 8, channels: 1, classes: ['a', 'b'] },
    Uint8Array.from({ length: levels.length * 64 }, (_, i) => levels[Math.floor(i / 64)]!),
    levels.map((_, i) => i % 2),
    (i) => `${name} ${i}`,
  );

test('a row is a sample, a gap, and its neighbours from near to far', async () => {
  const picture = await drawNeighbours(
    Uint8Array.from({ length: 128 }, (_, i) => (i < 64 ? 7 : 9)),
    flat([0, 50, 100, 150]),
    [
      [3, 1],
      [0, 2],
    ],
  );
  const [cell, gap] = [64, 2];
  assert.deepEqual([picture.width, picture.height, picture.channels], [4 * cell + 3 * gap, 2 * cell + gap, 1]);
  const at = (row: number, column: number): number => picture.pixels[(row * (cell + gap) + 5) * picture.width + column * (cell + gap) + 5]!;
  assert.deepEqual(
    [0, 1].map((row) => [0, 1, 2, 3].map((column) => at(row, column))),
    [
      [7, 255, 150, 50],
      [9, 255, 0, 100],
    ],
  );
});

test('of many samples two rows stand beside each other, apart', async () => {
  const picture = await drawNeighbours(
    new Uint8Array(10 * 64).fill(9),
    flat([0]),
    Array.from({ length: 10 }, () => [0]),
  );
  assert.deepEqual([picture.width, picture.height], [8 * 64 + 7 * 2, 5 * 64 + 4 * 2]);
  const row = Array.from({ length: 8 }, (_, column) => picture.pixels[5 * picture.width + column * 66 + 5]);
  assert.deepEqual(row, [9, 255, 0, 255, 9, 255, 0, 255]);
});

test('samples that were copied are told from those that were not, and shown beside what they copy', async () => {
  const noise = (count: number, seed: number): MemorySource => {
    const random = key(seed, 'test');
    const pixels = Uint8Array.from({ length: count * 64 }, (_, at) => integer(random, Math.floor(at / 64), at % 64, 256));
    return new MemorySource(
      { name: `noise ${seed}`, size: 8, channels: 1, classes: ['a', 'b'] },
      pixels,
      Array.from({ length: count }, (_, i) => i % 2),
      (i) => `${seed}/${i}`,
    );
  };
  const [train, heldOut] = [noise(30, 1), noise(12, 2)];
  const shown: Picture[] = [];
  const input: JudgeInput = {
    ...{ features: ['classifier'], data: { train, heldOut }, against: 'held-out', real: 12, files: [], count: 10, device: 'cpu', seed: 1 },
    classifier: { steps: 2, batch: 8 },
    neighbours: { shown: 3, searched: 30, write: async (picture) => void shown.push(picture) },
  };
  const before = await liveTensors();
  const copied = [4, 9, 14, 19, 24, 29, 1, 2, 3, 5];
  const { neighbours } = await judgePictures(input, ofSource(train, copied));
  assert.equal(memory().live, before);
  assert.deepEqual(
    neighbours?.samples.map(({ paths, distances }) => [paths[0], paths.length, distances[0]! < 1e-4]),
    [
      ['1/4', 5, true],
      ['1/9', 5, true],
      ['1/14', 5, true],
    ],
  );
  assert.ok(neighbours!.median.samples < 1e-4 && neighbours!.median.heldOut > 1e-2, `${JSON.stringify(neighbours!.median)}`);
  assert.deepEqual(neighbours?.searched, { source: 'noise 1', count: 30, of: 30 });
  assert.deepEqual([shown.length, shown[0]?.height], [1, 3 * 64 + 2 * 2]);

  const fresh = await judgePictures(
    { ...input, neighbours: { ...input.neighbours!, searched: 15 } },
    ofSource(noise(10, 3), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
  );
  assert.ok(fresh.neighbours!.median.samples > 1e-2);
  assert.deepEqual(fresh.neighbours?.searched, { source: 'noise 1', count: 15, of: 30 });
  assert.ok(
    fresh.neighbours?.samples.every(({ paths }) => paths.every((path) => Number(path.slice(2)) % 2 === 0)),
    'only every second was searched',
  );
});
