import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import sharp from 'sharp';
import { decode } from '../../src/data/decode.js';
import { PictureError, pictureFormat } from '../../src/data/job.js';
import type { Colour } from './corpus.js';
import { claimingPng, colourError, halves, hugePng, noise, plain, put, temporaryFolder } from './corpus.js';

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

test('EXIF orientation is applied, all eight of it', async (t) => {
  const folder = temporaryFolder(t);
  const corners: Colour[] = [
    [200, 0, 0],
    [0, 200, 0],
    [0, 0, 200],
    [200, 200, 200],
  ];
  const stored = new Uint8Array(32 * 32 * 3);
  for (let i = 0; i < 32 * 32; i++) stored.set(corners[2 * Number(i >= 512) + Number(i % 32 >= 16)]!, i * 3);
  // Which stored corner is seen at the upper left, upper right, lower left and lower right.
  const seen = ['0123', '1032', '3210', '2301', '0213', '2031', '3120', '1302'];
  for (const format of ['png', 'jpeg'] as const)
    for (const [i, places] of seen.entries()) {
      const image = sharp(stored, { raw: { width: 32, height: 32, channels: 3 } }).withMetadata({ orientation: i + 1 });
      const bytes = await image.toFormat(format, { quality: 100 }).toBuffer();
      const pixels = await photo(put(join(folder, `${i + 1}.${format}`), bytes), 32);
      for (const [k, at] of [8 * 32 + 8, 8 * 32 + 24, 24 * 32 + 8, 24 * 32 + 24].entries()) {
        const error = colourError(pixels.subarray(at * 3, at * 3 + 3), corners[Number(places[k])]!);
        assert.ok(error < 3, `${format}, orientation ${i + 1}, corner ${k}: off by ${error}`);
      }
    }
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

test('a picture that is cut anywhere is refused, or gives what the whole one gives', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'cut');
  const outcome = (bytes: Buffer): Promise<Uint8Array | PictureError> =>
    photo(put(path, bytes)).catch((error: unknown) => {
      assert.ok(error instanceof PictureError, String(error));
      return error;
    });
  for (const [format, options] of [
    ['jpeg', {}],
    ['jpeg', { progressive: true }],
    ['png', {}],
    ['png', { progressive: true }],
    ['webp', {}],
    ['webp', { lossless: true }],
    ['gif', {}],
  ] as const) {
    const whole = await noise(24, 18).toFormat(format, options).toBuffer();
    const pixels = await photo(put(path, whole));
    for (let length = 0; length < whole.length; length += length < 40 || length > whole.length - 24 ? 1 : 7) {
      const found = await outcome(whole.subarray(0, length));
      if (found instanceof PictureError) assert.match(found.reason, /cut off|decoded|empty|it is not a/);
      // What has no pixels may be missing: the marks that end a JPEG, a PNG or a GIF.
      else if (length < whole.length - 14) assert.fail(`${format} decodes from ${length} of ${whole.length} bytes`);
      else assert.deepEqual(found, pixels, `${format} cut to ${length} of ${whole.length} bytes`);
    }
  }
});

test('a PNG with a changed byte is refused, or gives what the sound one gives: it has checksums', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'changed.png');
  const whole = await noise(24, 18).png().toBuffer();
  const pixels = await photo(put(path, whole));
  let refused = 0;
  for (let at = 8; at < whole.length; at += 5) {
    const bytes = Buffer.from(whole);
    bytes[at]! ^= 1 << (at % 8);
    put(path, bytes);
    try {
      assert.deepEqual(await photo(path), pixels, `byte ${at}`);
    } catch (error) {
      assert.ok(error instanceof PictureError, String(error));
      refused++;
    }
  }
  assert.ok(refused > whole.length / 6, `${refused}`);
});

test('a picture that may not be read is refused', async (t) => {
  const folder = temporaryFolder(t);
  const path = put(join(folder, 'locked.png'), await plain(9, 9, ORANGE).png().toBuffer());
  chmodSync(folder, 0o755);
  chmodSync(path, 0);
  const root = process.geteuid!() === 0;
  try {
    if (root) process.seteuid!(65534); // root may read everything
  } catch {
    return t.skip('this machine lets nobody be another user');
  }
  try {
    assert.match((await refusal(path)).reason, /^permission denied\. Check the owner/);
  } finally {
    if (root) process.seteuid!(0);
  }
});

test('memory that runs out is not held against the picture, which would be skipped', async (t) => {
  const folder = temporaryFolder(t);
  const path = put(join(folder, 'large.png'), hugePng(9_999, 9_999));
  const script = `
    const { decode } = await import(${JSON.stringify(new URL('../../src/data/decode.js', import.meta.url).href)});
    await decode({ kind: 'photo', path: ${JSON.stringify(path)}, size: 8, channels: 3 }).then(
      () => console.log('decoded'),
      (error) => console.log(error.constructor.name, error.code, error.message));`;
  const outcomes = [1_600_000, 1_400_000, 1_200_000, 1_100_000].map((limit) => {
    const command = `ulimit -v ${limit}; exec "$0" --input-type=module -e "$1"`;
    return spawnSync('bash', ['-c', command, process.execPath, script], { encoding: 'utf8' }).stdout.trim();
  });
  const short = outcomes.filter((outcome) => outcome !== '' && outcome !== 'decoded'); // '': Node itself could not start
  if (short.length === 0) return t.skip('no limit was met inside the decoder');
  for (const outcome of short)
    assert.equal(
      outcome,
      `DiskError ENOMEM cannot read ${path}: there is not enough memory to decode it. Use fewer workers, or a machine with more`,
    );
});

test('pictures that are too large are refused by their header, without the memory that they would take', async (t) => {
  const folder = temporaryFolder(t);
  const bytes = hugePng(20_000, 20_000);
  assert.ok(bytes.length < 1e6, `${bytes.length} bytes`);
  const path = put(join(folder, 'huge.png'), bytes);
  const claims = [60_000, 60_000, 100_000_000, 1, 1, 65_536, 2 ** 31 - 1, 2 ** 31 - 1];
  for (let i = 0; i < claims.length; i += 2) put(join(folder, `claim${i}.png`), claimingPng(claims[i]!, claims[i + 1]!));
  const large = await sharp({ create: { width: 16_000, height: 7_000, channels: 3, background: '#777' } })
    .webp({ effort: 0 })
    .toBuffer();
  put(join(folder, 'large.webp'), large);
  const before = process.memoryUsage().rss;
  assert.match((await refusal(path)).reason, /20000 x 20000 is 400 megapixels, and the limit is 100/);
  assert.match((await refusal(join(folder, 'claim0.png'))).reason, /60000 x 60000 is 3600 megapixels, and the limit is 100/);
  assert.match((await refusal(join(folder, 'claim2.png'))).reason, /100000000 x 1 has a side of more than 65535 pixels/);
  assert.match((await refusal(join(folder, 'claim4.png'))).reason, /1 x 65536 has a side of more than 65535 pixels/);
  assert.match((await refusal(join(folder, 'large.webp'))).reason, /^16000 x 7000 is 112 megapixels, and the limit is 100$/);
  assert.match((await refusal(join(folder, 'claim6.png'))).reason, /cannot be decoded \(Input buffer has corrupt header\)/);
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
