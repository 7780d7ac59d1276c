/**
 * From a file to the pixels of one training picture. Runs in the decoding processes, or in the main one when there are none; a job is plain
 * data, so it crosses to a process as it is.
 */

import type { Sharp } from 'sharp';
import sharp from 'sharp';
import { DiskError, disk } from '../io/disk.js';
import type { DecodeJob } from './job.js';
import { PictureError, pictureFormat } from './job.js';
import type { Pixels } from './resample.js';
import { centreSquare, resample } from './resample.js';

/** The most pixels of a picture: 300 MB decoded. A larger one is a mistake, or an attack ("decompression bomb"). */
export const MAX_PIXELS = 100_000_000;
/** The most pixels of a side, as many as JPEG and GIF can have: decoders hold several rows, whose cost MAX_PIXELS does not bound. */
const MAX_SIDE = 65_535;
/** The most bytes of a picture's file: no sane file of MAX_PIXELS has more. */
const MAX_BYTES = 2 ** 30;
/** How libvips, libjpeg and JavaScript say it. */
const NO_MEMORY = /out of memory|insufficient memory|cannot allocate|allocation failed/i;

// Pictures are decoded side by side by the processes, so one picture gets one thread; each is read once, so a cache only costs memory.
sharp.concurrency(1);
sharp.cache(false);

/**
 * Decodes one picture. A file that is cut off is refused, or decodes to what the whole one does. Other damage is found as far as the format
 * allows: PNG has checksums, while a changed byte in the data of a JPEG, WebP or GIF may only change colours.
 * @throws PictureError naming the path and what is wrong with the file
 * @throws DiskError where not the file is to blame: memory ran out, or open files did
 */
export async function decode(job: DecodeJob): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return job.kind === 'photo' ? await decodePhoto(job) : await decodeDrawing(job);
  } catch (error) {
    throw error instanceof RangeError && NO_MEMORY.test(error.message) ? noMemory(job.path, error) : error;
  }
}

/** Not a PictureError: that might be skipped, and a run would depend on the memory of the hour. */
function noMemory(path: string, cause: unknown): DiskError {
  const advice = 'there is not enough memory to decode it. Use fewer workers, or a machine with more';
  return new DiskError(`cannot read ${path}: ${advice}`, 'ENOMEM', path, cause);
}

/** EXIF orientation applied, transparency on white, embedded profiles and CMYK to sRGB, 16 bits to 8, an animation's first frame, ADM's crop. */
async function decodePhoto({ path, size, channels }: DecodeJob): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = readPicture(path);
  if (bytes.length === 0) throw new PictureError(path, 'the file is empty (0 bytes)');
  const format = pictureFormat(bytes);
  if (format === undefined)
    throw new PictureError(path, `it is not a JPEG, PNG, WebP or GIF picture; it begins with ${quote(bytes.subarray(0, 16))}`);

  // Sides that are too long have to be refused before; no other format can have them.
  if (format === 'png') await checkSides(path, bytes);
  // 'error' refuses truncated files and lets warnings pass: many good JPEGs carry stray bytes between their segments.
  const image = sharp(bytes, { limitInputPixels: MAX_PIXELS, failOn: 'error' }).autoOrient().flatten({ background: '#ffffff' });
  try {
    return centreSquare(await attempt(path, () => rasterise(image, channels)), size);
  } catch (error) {
    if (error instanceof PictureError && /pixel limit/.test(error.reason)) await checkSides(path, bytes);
    throw error;
  }
}

/** Reads the header alone, without a limit of the library's own, so that the refusal can say what was found. @throws PictureError */
async function checkSides(path: string, bytes: Uint8Array): Promise<void> {
  const { width, height } = await attempt(path, () => sharp(bytes, { limitInputPixels: false }).metadata());
  if (width * height > MAX_PIXELS) {
    const found = `${width} x ${height} is ${megapixels(width * height)} megapixels`;
    throw new PictureError(path, `${found}, and the limit is ${megapixels(MAX_PIXELS)}`);
  }
  if (Math.max(width, height) > MAX_SIDE) throw new PictureError(path, `${width} x ${height} has a side of more than ${MAX_SIDE} pixels`);
}

/** Drawn at twice the size and reduced by a Lanczos filter: at 32 px thin lines stay crisper than when drawn directly. */
async function decodeDrawing({ path, size, channels }: DecodeJob): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = readPicture(path);
  const side = 2 * size;
  // A drawing of 72 units a side has as many pixels as its density; another is brought to the size by its own measure.
  const { width } = await attempt(path, () => sharp(bytes, { density: 72 }).metadata());
  const image = sharp(bytes, { density: (72 * side) / width }).flatten({ background: '#ffffff' });
  const drawn = await attempt(path, () => rasterise(image, channels));
  if (drawn.width !== side || drawn.height !== side)
    throw new PictureError(
      path,
      `the drawing is not square: ${drawn.width} x ${drawn.height} pixels where ${side} x ${side} were expected`,
    );
  return resample(drawn, size, size, 'lanczos');
}

async function rasterise(image: Sharp, channels: 1 | 3): Promise<Pixels> {
  const { data, info } = await image
    .toColourspace(channels === 1 ? 'b-w' : 'srgb')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true });
  if (info.channels !== channels) throw new Error(`decoded to ${info.channels} channels where ${channels} were expected`);
  return { pixels: data, width: info.width, height: info.height, channels };
}

/** @throws PictureError for what concerns this file; DiskError where the machine itself is short of something */
function readPicture(path: string): Uint8Array<ArrayBuffer> {
  try {
    return disk.readFile(path, MAX_BYTES);
  } catch (error) {
    if (error instanceof DiskError && !['ENOMEM', 'EMFILE', 'ENFILE'].includes(error.code))
      throw new PictureError(path, error.message.replace(`cannot read ${path}: `, ''), error);
    throw error;
  }
}

/** Runs a step of the decoder, whose errors name no file. @throws PictureError; DiskError if memory ran out */
async function attempt<T>(path: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    const said = error instanceof Error ? error.message.replace(/\s+/g, ' ').replace(/[: ]+$/, '') : String(error);
    if (NO_MEMORY.test(said)) throw noMemory(path, error);
    const truncated = /premature end|read error|unable to parse|end of (file|stream|image)|truncated|unexpected end/i.test(said);
    throw new PictureError(path, `${truncated ? 'the file is cut off or damaged' : 'it cannot be decoded'} (${said})`, error);
  }
}

/** Bytes for a message: printable text as it is, anything else as hexadecimal. */
function quote(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('latin1').trimEnd();
  return /^[\x20-\x7e\t\r\n]*$/.test(text) ? JSON.stringify(text) : `bytes ${Buffer.from(bytes.subarray(0, 8)).toString('hex')}`;
}

function megapixels(pixels: number): string {
  return (pixels / 1e6).toFixed(pixels % 1e6 === 0 ? 0 : 1);
}
