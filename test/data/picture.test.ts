import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import sharp from 'sharp';
import { FailureError } from '../../src/core/errors.js';
import { fitText, lettering, textWidth } from '../../src/data/lettering.js';
import type { Picture } from '../../src/data/picture.js';
import { contactSheet, encodePng, grid, pairGrid, writePng } from '../../src/data/picture.js';
import type { DataSet } from '../../src/data/source.js';
import { MemorySource, stack } from '../../src/data/source.js';
import { summarize } from '../../src/data/summary.js';
import { put, temporaryFolder } from './corpus.js';

function at(picture: Picture, x: number, y: number): number[] {
  const start = (y * picture.width + x) * picture.channels;
  return [...picture.pixels.subarray(start, start + picture.channels)];
}

/** Pictures of 4 x 4 of one grey each: 10, 20, 30 ... */
function greys(count: number, channels: 1 | 3 = 1, step = 10): Uint8Array {
  return Uint8Array.from({ length: count * 16 * channels }, (_, i) => step * (1 + Math.floor(i / (16 * channels))));
}

function dataSet(classes: readonly string[], count: number, channels: 1 | 3 = 1): DataSet {
  const part = (name: string, n: number): MemorySource =>
    new MemorySource(
      { name, size: 4, channels, classes },
      greys(n, channels, 1),
      Array.from({ length: n }, (_, i) => i % classes.length),
      (i) => `${name} ${i}`,
    );
  return { train: part('train', count), heldOut: part('held out', classes.length), credit: 'by us' };
}

test('PNG keeps every byte, grey and colour', async () => {
  for (const channels of [1, 3] as const) {
    const pixels = Uint8Array.from({ length: 5 * 7 * channels }, (_, i) => (i * 37) % 256);
    const png = await encodePng(pixels, 5, 7, channels);
    assert.equal((await sharp(png).metadata()).channels, channels, 'grey is stored as grey');
    const { data, info } = await sharp(png)
      .toColourspace(channels === 1 ? 'b-w' : 'srgb')
      .raw()
      .toBuffer({ resolveWithObject: true });
    assert.deepEqual([info.width, info.height, info.channels], [5, 7, channels]);
    assert.deepEqual(new Uint8Array(data), pixels);
  }
  await assert.rejects(encodePng(new Uint8Array(5), 2, 2, 1), /needs 4 bytes, got 5/);
});

test('a PNG file replaces the old one, leaves nothing beside it, and says where it could not be written', async (t) => {
  const folder = temporaryFolder(t);
  const path = put(join(folder, 'a.png'), 'old');
  await writePng(path, grid(greys(2), 2, 4, 1, 2));
  assert.equal((await sharp(path).metadata()).width, 10);
  assert.deepEqual(readdirSync(folder), ['a.png']);
  const nowhere = join(folder, 'no', 'b.png');
  await assert.rejects(
    writePng(nowhere, grid(greys(2), 2, 4, 1, 2)),
    (error) => error instanceof FailureError && error.message.includes(nowhere),
  );
  assert.ok(!existsSync(nowhere));
});

test('a grid has each picture in its place, gaps between, and empty places', () => {
  for (const channels of [1, 3] as const) {
    const sheet = grid(greys(5, channels), 5, 4, channels, 3, { gap: 2, scale: 2, background: 7 });
    assert.deepEqual([sheet.width, sheet.height, sheet.channels], [3 * 8 + 2 * 2, 2 * 8 + 2, channels]);
    const grey = (value: number): number[] => new Array<number>(channels).fill(value);
    for (const [x, y, value] of [
      [0, 0, 10],
      [7, 7, 10],
      [8, 0, 7],
      [10, 3, 20],
      [27, 7, 30],
      [0, 8, 7],
      [0, 10, 40],
      [17, 17, 50],
      [25, 15, 7],
    ] as const)
      assert.deepEqual(at(sheet, x, y), grey(value), `${x},${y}`);
  }
  assert.throws(() => grid(greys(5), 4, 4, 1, 2), /4 pictures of 4 x 4 x 1 need 64 bytes, got 80/);
});

test('scaling repeats pixels, the top left one stays there', () => {
  const sheet = grid(Uint8Array.of(1, 2, 3, 4), 1, 2, 1, 1, { scale: 2 });
  assert.deepEqual([...sheet.pixels], [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
});

test('pairs: the reconstruction directly below its original', () => {
  const sheet = pairGrid(greys(3), greys(3, 1, 50), 3, 4, 1, 2, { gap: 3 });
  assert.deepEqual([sheet.width, sheet.height], [11, 19]);
  assert.deepEqual(
    [at(sheet, 0, 3), at(sheet, 0, 4), at(sheet, 7, 0), at(sheet, 7, 7), at(sheet, 0, 11), at(sheet, 0, 15)],
    [[10], [50], [20], [100], [30], [150]],
  );
  assert.deepEqual([at(sheet, 4, 0), at(sheet, 0, 8), at(sheet, 0, 10)], [[255], [255], [255]]);
  assert.throws(() => pairGrid(greys(3), greys(2), 3, 4, 1, 2), /3 pictures need 48 bytes, got 48 and 32/);
});

test('a contact sheet has a row for each class with its examples, and text that is there', async () => {
  for (const channels of [1, 3] as const) {
    const data = dataSet(['cats', 'a <very> & "long" name that no column could ever hold', '猫'], 30, channels);
    const sheet = await contactSheet(data, { title: 'Mine', examples: 4, heldOutExamples: 1 });
    assert.equal(sheet.pixels.length, sheet.width * sheet.height * 3);
    // Examples of class 1: pictures 1 ... 28, evenly spread, of brightness one more than their number.
    const values = new Set<number>();
    for (let i = 0; i < sheet.pixels.length; i += 3)
      if (sheet.pixels[i] === sheet.pixels[i + 1] && sheet.pixels[i] === sheet.pixels[i + 2]) values.add(sheet.pixels[i]!);
    for (const value of [2, 11, 20, 29]) assert.ok(values.has(value), `no example of brightness ${value}`);
    const ink = Array.from({ length: sheet.width * sheet.height }, (_, i) => i).filter(
      (i) => i % sheet.width < 200 && sheet.pixels[i * 3]! < 128,
    );
    assert.ok(ink.length > 300, `${ink.length} dark pixels where names should be`);
  }
});

test('a contact sheet of many classes stays small and says what it leaves out', async () => {
  const many = dataSet(
    Array.from({ length: 300 }, (_, i) => `class ${i}`),
    300,
  );
  const sheet = await contactSheet(many, { rows: 5, examples: 3 });
  const all = await contactSheet(dataSet(['a', 'b', 'c', 'd', 'e'], 300), { rows: 5, examples: 3 });
  assert.ok(sheet.height > all.height && sheet.height < all.height + 40, 'one line more');
});

test('letters are strokes, so text needs no font; other scripts fall back to one, and nothing can break out', () => {
  const text = (value: string): string => lettering(100, 20, [{ text: value, x: 0, y: 15, height: 10, colour: '#000' }]).toString();
  const printable = Array.from({ length: 26 }, (_, i) => String.fromCharCode(65 + i) + String.fromCharCode(97 + i)).join('');
  assert.ok(!text(`${printable} 0123456789 -_.,:;/()[]+=<>&'"!?#%*·…–`).includes('<text'));
  const odd = text('<script>&\u0000猫"');
  assert.ok(odd.includes('&lt;script&gt;&amp;\ufffd猫"') && !odd.includes('<script'), odd);
});

test('every letter that we draw is drawn, and differs from the others', async () => {
  const characters = [...'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:;/()[]+=<>&\'"!?#%*·…–'];
  const seen = new Map<string, string>();
  for (const character of characters) {
    const svg = lettering(24, 30, [{ text: character, x: 4, y: 20, height: 14, colour: '#000' }]);
    const pixels = (await sharp(svg).flatten({ background: '#fff' }).toColourspace('b-w').raw().toBuffer()).toString('base64');
    assert.ok(
      Buffer.from(pixels, 'base64').some((value) => value < 128),
      `"${character}" leaves no mark`,
    );
    assert.equal(seen.get(pixels), undefined, `"${character}" looks like "${seen.get(pixels)}"`);
    seen.set(pixels, character);
  }
});

test('texts are measured and shortened to fit', () => {
  assert.equal(textWidth('', 10), 0);
  assert.ok(textWidth('iii', 10) < textWidth('mmm', 10));
  assert.equal(fitText('short', 10, 200), 'short');
  const cut = fitText('a name that is much too long', 10, 80);
  assert.ok(cut.endsWith('…') && cut.length > 5 && textWidth(cut, 10) <= 80, cut);
});

test('a summary counts by class, and a stack is pictures in the asked order', async () => {
  const data = dataSet(['a', 'b'], 5);
  assert.deepEqual(summarize(data), {
    size: 4,
    channels: 1,
    train: 5,
    heldOut: 2,
    bytes: 7 * 16,
    classes: [
      { name: 'a', train: 3, heldOut: 1 },
      { name: 'b', train: 2, heldOut: 1 },
    ],
    credit: 'by us',
  });
  const pixels = await stack(data.train, [4, 0]);
  assert.deepEqual([pixels[0], pixels[16], pixels.length], [5, 1, 32]);
  assert.throws(
    () => new MemorySource({ name: 'odd', size: 4, channels: 1, classes: ['a'] }, new Uint8Array(15), [0], String),
    /1 labels for 15 bytes at 16/,
  );
});
