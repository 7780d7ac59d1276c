import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import sharp from 'sharp';
import { decode } from '../../src/data/decode.js';
import { PictureError, pictureFormat } from '../../src/data/job.js';
import type { Colour } from './corpus.js';
import { colourError, halves, hugePng, noise, plain, put, temporaryFolder } from './corpus.js';

const ORANGE: Colour = [230, 120, 20];
const GREEN: Colour = [10, 200, 60];

function photo(path: string, size = 16, channels: 1 | 3 = 3): Promise<Uint8Array> {
  return decode({ kind: 'photo', path, size, channels });
}

async function refusal(path: string): Promise<PictureError> {
  try {
    await photo(path);
  } catch (error) {
    assert.ok(error instanceof PictureError, String(error));
    assert.equal(error.path, path);
    assert.ok(error.message.includes(path), 'the message names the path');
    assert.equal(error.exitCode, 1);
    return error;
  }
  assert.fail(`${path} was decoded`);
}

test('JPEG, PNG, WebP and GIF give the colours that they hold, by content and not by name', async (t) => {
  const folder = temporaryFolder(t);
  const image = plain(40, 30, ORANGE);
  for (const [name, bytes] of [
    ['a.jpg', await image.clone().jpeg({ quality: 95 }).toBuffer()],
    ['b.png', await image.clone().png().toBuffer()],
    ['c.webp', await image.clone().webp({ lossless: true }).toBuffer()],
    ['d.gif', await image.clone().gif().toBuffer()],
    ['a PNG called.jpeg', await image.clone().png().toBuffer()],
    ['no ending', await image.clone().webp().toBuffer()],
  ] as const) {
    const pixels = await photo(put(join(folder, name), bytes));
    assert.equal(pixels.length, 16 * 16 * 3);
    assert.ok(colourError(pixels, ORANGE) < 4, `${name}: ${pixels.subarray(0, 3)}`);
  }
});

test('grey: one channel of luminance; a grey picture fills three channels', async (t) => {
  const folder = temporaryFolder(t);
  const colour = put(join(folder, 'colour.png'), await plain(20, 20, [255, 255, 255]).png().toBuffer());
  assert.deepEqual(await photo(colour, 16, 1), new Uint8Array(256).fill(255));
  const grey = put(join(folder, 'grey.png'), await plain(20, 20, [90, 90, 90]).toColourspace('b-w').png().toBuffer());
  assert.equal((await sharp(grey).metadata()).channels, 1);
  assert.deepEqual(await photo(grey), new Uint8Array(768).fill(90));
  assert.deepEqual(await photo(grey, 16, 1), new Uint8Array(256).fill(90));
});

test('CMYK, 16-bit, transparent, palette and grey with alpha become plain sRGB of 8 bits on white', async (t) => {
  const folder = temporaryFolder(t);
  const cmyk = put(join(folder, 'cmyk.jpg'), await plain(32, 32, ORANGE).toColourspace('cmyk').jpeg({ quality: 98 }).toBuffer());
  assert.equal((await sharp(cmyk).metadata()).space, 'cmyk');
  assert.ok(colourError(await photo(cmyk), ORANGE) < 40, 'CMYK keeps its colour, as far as its gamut goes');

  const deep = put(join(folder, 'deep.png'), await plain(32, 32, ORANGE).toColourspace('rgb16').png().toBuffer());
  assert.equal((await sharp(deep).metadata()).depth, 'ushort');
  assert.ok(colourError(await photo(deep), ORANGE) < 1.01);

  const half = sharp({ create: { width: 32, height: 32, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0.5 } } });
  const clear = put(join(folder, 'clear.png'), await half.clone().png().toBuffer());
  assert.ok(colourError(await photo(clear), [127.5, 127.5, 127.5]) < 1.01, 'half black on white is grey');
  const deepClear = put(join(folder, 'deep clear.png'), await half.clone().toColourspace('rgb16').png().toBuffer());
  assert.equal((await sharp(deepClear).metadata()).depth, 'ushort');
  assert.ok(colourError(await photo(deepClear), [127.5, 127.5, 127.5]) < 1.51);
  const greyClear = put(join(folder, 'grey clear.png'), await half.clone().toColourspace('b-w').png().toBuffer());
  assert.equal((await sharp(greyClear).metadata()).channels, 2);
  assert.ok(colourError(await photo(greyClear, 16, 1), [127.5]) < 1.01);

  const palette = put(join(folder, 'palette.png'), await plain(32, 32, GREEN).png({ palette: true }).toBuffer());
  assert.ok(colourError(await photo(palette), GREEN) < 2);
});

test('an animated picture gives its first frame', async (t) => {
  const folder = temporaryFolder(t);
  const frames = await Promise.all([ORANGE, GREEN].map((colour) => plain(24, 24, colour).png().toBuffer()));
  for (const format of ['webp', 'gif'] as const) {
    const animated = sharp(frames, { join: { animated: true } });
    const bytes = await (format === 'webp' ? animated.webp({ lossless: true }) : animated.gif()).toBuffer();
    const path = put(join(folder, `moves.${format}`), bytes);
    assert.equal((await sharp(path).metadata()).pages, 2);
    assert.ok(colourError(await photo(path), ORANGE) < 2, format);
  }
});

test('EXIF orientation is applied', async (t) => {
  const folder = temporaryFolder(t);
  const turned = await halves(32, 32, [255, 0, 0], [0, 0, 255]).withMetadata({ orientation: 6 }).png().toBuffer();
  const pixels = await photo(put(join(folder, 'turned.png'), turned), 32);
  assert.deepEqual([...pixels.subarray(0, 3)], [255, 0, 0]); // left became top
  assert.deepEqual([...pixels.subarray(31 * 3, 32 * 3)], [255, 0, 0]);
  assert.deepEqual([...pixels.subarray(31 * 32 * 3, 31 * 32 * 3 + 3)], [0, 0, 255]);
});

test('the crop takes the middle of a wide picture', async (t) => {
  const folder = temporaryFolder(t);
  const wide = await halves(96, 32, [255, 0, 0], [0, 0, 255]).png().toBuffer();
  const pixels = await photo(put(join(folder, 'wide.png'), wide), 32);
  assert.deepEqual([...pixels.subarray(15 * 3, 17 * 3)], [255, 0, 0, 0, 0, 255]);
});

test('what is no picture is refused with its path and what was found', async (t) => {
  const folder = temporaryFolder(t);
  assert.match((await refusal(put(join(folder, 'zero.png'), ''))).reason, /empty \(0 bytes\)/);
  assert.match((await refusal(put(join(folder, 'text.jpg'), 'dear diary'))).reason, /not a JPEG, PNG, WebP or GIF.*"dear diary"/);
  assert.match((await refusal(put(join(folder, 'drawing.png'), '<svg xmlns="http://www.w3.org/2000/svg"/>'))).reason, /not a JPEG.*<svg/);
  assert.match((await refusal(put(join(folder, 'noise.jpg'), Buffer.from([1, 2, 3, 250])))).reason, /begins with bytes 010203fa/);
  assert.match((await refusal(put(join(folder, 'stub.jpg'), Buffer.from([0xff, 0xd8, 0xff])))).reason, /decoded|cut off/);
  assert.match((await refusal(join(folder, 'gone.jpg'))).reason, /no such file/);
  assert.match((await refusal(folder)).reason, /folder/);
});

test('a truncated picture is refused wherever it is cut', async (t) => {
  const folder = temporaryFolder(t);
  for (const format of ['jpeg', 'png', 'webp', 'gif'] as const) {
    const whole = await noise(80, 60).toFormat(format).toBuffer();
    await photo(put(join(folder, `whole.${format}`), whole));
    for (const share of [0.02, 0.3, 0.7, 0.95]) {
      const { reason } = await refusal(put(join(folder, `cut ${share}.${format}`), whole.subarray(0, Math.floor(whole.length * share))));
      assert.match(reason, /cut off|decoded/, `${format} cut at ${share}`);
    }
  }
});

test('a picture of 20,000 x 20,000 is refused by its header, without the memory that it would take', async (t) => {
  const folder = temporaryFolder(t);
  const bytes = hugePng(20_000, 20_000);
  assert.ok(bytes.length < 1e6, `${bytes.length} bytes`);
  const path = put(join(folder, 'huge.png'), bytes);
  const before = process.memoryUsage().rss;
  assert.match((await refusal(path)).reason, /20000 x 20000 is 400 megapixels, and the limit is 100/);
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown < 100e6, `resident memory grew by ${grown} bytes; decoded it is 1.2e9`);
  const fine = await photo(put(join(folder, 'large.png'), hugePng(10_000, 9_999)), 8, 1);
  assert.deepEqual(fine, new Uint8Array(8 * 8));
});

test('formats are told by their first bytes', () => {
  assert.equal(pictureFormat(Buffer.from('\xff\xd8\xff\xe0', 'latin1')), 'jpeg');
  assert.equal(pictureFormat(Buffer.from('RIFF\0\0\0\0WEBPVP8 ', 'latin1')), 'webp');
  assert.equal(pictureFormat(Buffer.from('RIFF\0\0\0\0WAVEfmt ', 'latin1')), undefined);
  assert.equal(pictureFormat(Buffer.from('GIF89a', 'latin1')), 'gif');
  assert.equal(pictureFormat(new Uint8Array(0)), undefined);
});

test('a drawing that is not square is refused, one of another measure is brought to size', async (t) => {
  const folder = temporaryFolder(t);
  const svg = (width: number, height: number): string =>
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}"><rect width="${width}" height="${height}" fill="#0f0"/></svg>`;
  const job = (path: string) => ({ kind: 'drawing', path, size: 16, channels: 3 }) as const;
  const square = await decode(job(put(join(folder, 'square.svg'), svg(100, 100))));
  assert.deepEqual([...square.subarray(0, 3)], [0, 255, 0]);
  assert.equal(square.length, 16 * 16 * 3);
  await assert.rejects(decode(job(put(join(folder, 'wide.svg'), svg(72, 36)))), /wide\.svg.*not square/);
});
