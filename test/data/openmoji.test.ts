import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { shapeOf } from '../../src/data/open.js';
import { heldOutSubgroups, openOpenmoji } from '../../src/data/openmoji.js';
import type { ImageSource } from '../../src/data/source.js';
import { summarize } from '../../src/data/summary.js';

// Opened once for all tests: it takes seconds.
const progress: string[] = [];
const data = await openOpenmoji({ size: 32, channels: 3, workers: 2, onProgress: (done, total) => progress.push(`${done}/${total}`) });

function all(source: ImageSource): Uint8Array[] {
  return Array.from({ length: source.length }, (_, i) => source.peek(i)!);
}

test('1,914 pictures in nine groups, a fifteenth held out, every group on both sides', () => {
  const { classes, train, heldOut, credit } = summarize(data);
  assert.equal(train + heldOut, 1914);
  assert.equal(heldOut, 127);
  assert.deepEqual(
    classes.map((row) => `${row.name} ${row.train + row.heldOut}`),
    [
      'smileys-emotion 171',
      'people-body 388',
      'animals-nature 160',
      'food-drink 131',
      'travel-places 219',
      'activities 85',
      'objects 266',
      'symbols 224',
      'flags 270',
    ],
  );
  for (const row of classes) assert.ok(row.heldOut >= 1 && row.heldOut <= 0.08 * (row.train + row.heldOut), `${row.name}: ${row.heldOut}`);
  assert.deepEqual({ channels: data.train.channels, classes: classes.length }, shapeOf('openmoji', { channels: 1, classes: 1 }));
  assert.match(credit ?? '', /OpenMoji.*CC BY-SA 4\.0/);
});

test('no drawing is on both sides, and progress counts them all', () => {
  const paths = [data.train, data.heldOut].flatMap((source) => Array.from({ length: source.length }, (_, i) => source.path(i)));
  assert.equal(new Set(paths).size, 1914);
  assert.ok(paths.some((path) => path.endsWith('1F600.svg (grinning face)')));
  assert.deepEqual([progress[0], progress.at(-1), progress.length], ['1/1914', '1914/1914', 1914]);
});

test('pictures are of full range, on white, and differ', () => {
  const pictures = [...all(data.train), ...all(data.heldOut)];
  let corners = 0;
  for (const pixels of pictures) {
    assert.equal(pixels.length, 32 * 32 * 3);
    assert.ok(Math.min(...pixels) < 190, 'something is drawn');
    if (pixels[0] === 255 && pixels[1] === 255 && pixels[2] === 255) corners++;
  }
  assert.ok(corners > 1850, `white corners: ${corners}`); // a few drawings fill the square
  const hashes = [data.train, data.heldOut].map(
    (source) => new Set(all(source).map((pixels) => createHash('sha256').update(pixels).digest('hex'))),
  );
  const distinct = new Set(hashes.flatMap((set) => [...set])).size;
  assert.ok(distinct > 1850, `${distinct} different pictures`); // "cook" equals "man cook", Monaco's flag Indonesia's
  assert.equal(distinct, hashes[0]!.size + hashes[1]!.size, 'a picture that is held out is not trained on under another name');
});

test('the grinning face is a yellow disc with a black line round it', () => {
  const index = Array.from({ length: data.train.length }, (_, i) => i).find((i) => data.train.path(i).includes('1F600.svg'));
  assert.notEqual(index, undefined);
  const pixels = data.train.peek(index!)!;
  const at = (x: number, y: number): number[] => [...pixels.subarray((y * 32 + x) * 3, (y * 32 + x + 1) * 3)];
  assert.deepEqual(at(16, 9), [252, 234, 43]);
  assert.deepEqual(at(1, 1), [255, 255, 255]);
  assert.ok(Math.max(...at(16, 5), ...at(16, 6)) > 0 && Math.min(...at(16, 5), ...at(16, 6)) < 60, `${at(16, 5)} ${at(16, 6)}`);
  assert.equal(data.train.classes[data.train.label(index!)], 'smileys-emotion');
});

test('the split keeps subgroups whole, depends on names alone, and leaves room for none that is too large', () => {
  const drawings = Array.from({ length: 100 }, (_, i) => ({ group: 'g', subgroup: i < 90 ? 'large' : `small ${i % 5}` }));
  const held = heldOutSubgroups(drawings);
  assert.ok(!held.has('g/large'));
  assert.equal(held.size, 4); // four of the five subgroups of two
  assert.deepEqual([...heldOutSubgroups([...drawings].reverse())].sort(), [...held].sort());
});

test('other sizes and grey work, and one process draws what two drew', async () => {
  const grey = await openOpenmoji({ size: 8, channels: 1, workers: 1 });
  assert.equal(grey.train.length, data.train.length);
  assert.equal(grey.train.peek(0)!.length, 64);
  // Downscaled alike: the mean brightness of a picture is nearly the same at both sizes.
  for (let i = 0; i < grey.train.length; i += 100) {
    const mean = (pixels: Uint8Array): number => pixels.reduce((a, b) => a + b, 0) / pixels.length;
    assert.ok(Math.abs(mean(grey.train.peek(i)!) - mean(data.train.peek(i)!)) < 25, data.train.path(i));
  }
});
