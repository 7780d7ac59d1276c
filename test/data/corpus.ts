/** Pictures and files that the tests of this room make for themselves. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { deflateSync } from 'node:zlib';
import type { Sharp } from 'sharp';
import sharp from 'sharp';
import type { ImageSource } from '../../src/data/source.js';

/** A folder that is gone after the test. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'dsd-data-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes a file and the folders above it; returns its path. */
export function put(path: string, content: string | Uint8Array): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

export type Colour = readonly [number, number, number];

/** A picture of one colour. */
export function plain(width: number, height: number, [r, g, b]: Colour): Sharp {
  return sharp({ create: { width, height, channels: 3, background: { r, g, b } } });
}

/** A PNG whose left half has one colour and whose right half another. */
export function halves(width: number, height: number, left: Colour, right: Colour): Sharp {
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) pixels.set(i % width < width / 2 ? left : right, i * 3);
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

/** Noise, so that a file of it has a size and can be cut. */
export function noise(width: number, height: number, seed = 1): Sharp {
  const pixels = new Uint8Array(width * height * 3);
  let state = seed;
  for (let i = 0; i < pixels.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    pixels[i] = state >>> 24;
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

/** A true PNG of one bit a pixel, all black: 20,000 x 20,000 in about 50 KB. */
export function hugePng(width: number, height: number): Buffer {
  return bitPng(width, height, deflateSync(Buffer.alloc((1 + Math.ceil(width / 8)) * height), { level: 1 }));
}

/** A PNG that says how large it is and has next to nothing behind: some 60 bytes. */
export function claimingPng(width: number, height: number): Buffer {
  return bitPng(width, height, deflateSync(Buffer.alloc(100)));
}

function bitPng(width: number, height: number, rows: Buffer): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const out = Buffer.alloc(body.length + 8);
    out.writeUInt32BE(data.length);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), body.length + 4);
    return out;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width);
  header.writeUInt32BE(height, 4);
  header[8] = 1; // one bit, grey
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    chunk('IDAT', rows),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** CRC-32 as PNG wants it. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** IDX bytes: unsigned bytes in the given shape. */
export function idx(shape: readonly number[], data: Uint8Array): Buffer {
  const head = Buffer.alloc(4 + 4 * shape.length);
  head.writeUInt32BE(0x0800 | shape.length);
  shape.forEach((n, i) => {
    head.writeUInt32BE(n, 4 + 4 * i);
  });
  return Buffer.concat([head, data]);
}

/** Pictures as their bytes, with labels: to compare sources. */
export async function contents(source: ImageSource): Promise<{ label: number; pixels: Buffer }[]> {
  return Promise.all(
    Array.from({ length: source.length }, async (_, i) => ({ label: source.label(i), pixels: Buffer.from(await source.load(i)) })),
  );
}

/** Distance of a picture's mean colour from the wanted one, at most over the channels. */
export function colourError(pixels: Uint8Array, wanted: readonly number[]): number {
  const channels = wanted.length;
  const sums = new Array<number>(channels).fill(0);
  pixels.forEach((value, i) => {
    sums[i % channels]! += value;
  });
  return Math.max(...sums.map((sum, c) => Math.abs((sum * channels) / pixels.length - wanted[c]!)));
}
