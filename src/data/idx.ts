/**
 * IDX files, the format of MNIST and its kin: two zero bytes, a type byte, the number of dimensions, each dimension as a big-endian uint32,
 * then the values. Four files make a data set: `train-` for training, `t10k-` held out.
 */
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { FailureError, UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import type { DataSet } from './source.js';
import { MemorySource } from './source.js';

const FASHION_CLASSES = ['T-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot'];
/** Where Debian's package dataset-fashion-mnist puts its files. */
const DEBIAN_FOLDER = '/usr/share/datasets/fashion-mnist';
/** The most bytes of a file, and of what it unpacks to: a hundred times MNIST. */
const LIMIT = 2 ** 32 - 1;

/** Unsigned bytes in one to three dimensions. */
export interface Idx {
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/**
 * Reads IDX bytes, strictly: unsigned bytes only, the given number of dimensions, not a byte too few or too many.
 * @throws FailureError naming the file and what was found
 */
export function parseIdx(bytes: Uint8Array, dimensions: number, path: string): Idx {
  const head = 4 + 4 * dimensions;
  const fail = (what: string): never => {
    throw new FailureError(`${path} is not the IDX file that it should be: ${what}. Get the file again, or check that it is the right one`);
  };
  if (bytes.length < head) fail(`it has ${bytes.length} bytes, and its header alone needs ${head}`);
  const magic = (bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!;
  if (magic !== (0x0800 | dimensions))
    fail(
      `it begins with ${hex(magic)} where ${hex(0x0800 | dimensions)} (unsigned bytes, ${dimensions === 1 ? '1 dimension' : `${dimensions} dimensions`}) was expected`,
    );
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shape = Array.from({ length: dimensions }, (_, i) => view.getUint32(4 + 4 * i));
  const count = shape.reduce((a, b) => a * b, 1); // three uint32 stay below 2^96: inexact perhaps, but never mistaken for a small number
  if (count !== bytes.length - head) {
    const found = bytes.length - head;
    fail(
      `its header says ${shape.join(' x ')} = ${count} values, and ${found} follow: ${found < count ? 'it is cut off' : 'there is something else behind them'}`,
    );
  }
  return { shape, data: bytes.subarray(head) };
}

function hex(word: number): string {
  return `0x${(word >>> 0).toString(16).padStart(8, '0')}`;
}

/** Reads an IDX file, unpacking it if it is gzip (by content, not by name). @throws FailureError */
export function readIdx(path: string, dimensions: number): Idx {
  let bytes: Uint8Array = disk.readFile(path, LIMIT);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    try {
      bytes = gunzipSync(bytes, { maxOutputLength: LIMIT });
    } catch (cause) {
      const said = cause instanceof Error ? cause.message : String(cause);
      throw new FailureError(
        `cannot unpack ${path} (${bytes.length} bytes of gzip): ${said}. The file is cut off or damaged; get it again`,
        { cause },
      );
    }
  }
  return parseIdx(bytes, dimensions, path);
}

export interface IdxOptions {
  /** Pixels a side: that of the pictures, or more; zeros are put round a smaller picture. */
  readonly size: number;
  readonly channels: 1 | 3;
}

/** True if the folder holds IDX files by their usual names. */
export function hasIdxFiles(folder: string): boolean {
  return locate(folder, 'train', 'images') !== undefined;
}

/**
 * Opens a folder of four IDX files (names as MNIST's, plain or .gz). Labels without names are called by their number.
 * @throws UsageError for a size or channels that the pictures do not have; FailureError for files that are absent, damaged or do not match
 */
export function openIdx(folder: string, { size, channels }: IdxOptions, name = folder, names?: readonly string[]): DataSet {
  if (channels !== 1)
    throw new UsageError(`data set ${name}: the pictures are grey, and ${channels} channels were asked for. Use 1 channel`);
  const parts = [
    { file: 'train', name: `${name}, training part` },
    { file: 't10k', name: `${name}, held-out part` },
  ].map((part) => {
    const imagesPath = find(folder, part.file, 'images');
    const labelsPath = find(folder, part.file, 'labels');
    const images = readIdx(imagesPath, 3);
    const labels = readIdx(labelsPath, 1);
    const count = images.shape[0]!;
    if (count === 0) throw new FailureError(`${imagesPath} holds no pictures`);
    if (labels.data.length !== count)
      throw new FailureError(
        `${imagesPath} has ${count} pictures and ${labelsPath} ${labels.data.length} labels. The two files do not belong together`,
      );
    const highest = labels.data.reduce((a, b) => Math.max(a, b), 0);
    if (names !== undefined && highest >= names.length)
      throw new FailureError(
        `${labelsPath} has a label ${highest}, and ${name} has ${names.length} classes. It is not that data set's file`,
      );
    return { ...part, imagesPath, labels: labels.data, highest, pixels: pad(images, size, imagesPath) };
  });
  const classes = names ?? Array.from({ length: Math.max(...parts.map((part) => part.highest)) + 1 }, (_, i) => String(i));
  const [train, heldOut] = parts.map(
    (part) =>
      new MemorySource({ name: part.name, size, channels, classes }, part.pixels, part.labels, (i) => `picture ${i} of ${part.imagesPath}`),
  );
  return { train: train!, heldOut: heldOut! };
}

/** Puts each picture in the middle of size x size zeros. */
function pad({ shape, data }: Idx, size: number, path: string): Uint8Array {
  const [count, height, width] = shape as [number, number, number];
  if (height > size || width > size || height * width === 0)
    throw new UsageError(
      `the pictures of ${path} have ${height} x ${width} pixels, and ${size} x ${size} were asked for. Use a size of at least ${Math.max(height, width)}`,
    );
  if (height === size && width === size) return data;
  const out = new Uint8Array(count * size * size);
  const top = (size - height) >> 1;
  const left = (size - width) >> 1;
  for (let i = 0; i < count; i++) {
    for (let y = 0; y < height; y++) {
      const from = (i * height + y) * width;
      out.set(data.subarray(from, from + width), (i * size + top + y) * size + left);
    }
  }
  return out;
}

/** The file of a part; the plain one if the packed one is there too. */
function locate(folder: string, part: string, what: 'images' | 'labels'): string | undefined {
  const rank = what === 'images' ? 3 : 1;
  const names = [`${part}-${what}-idx${rank}-ubyte`, `${part}-${what}.idx${rank}-ubyte`].flatMap((name) => [name, `${name}.gz`]);
  return names.map((name) => join(folder, name)).find((path) => disk.exists(path));
}

function find(folder: string, part: string, what: 'images' | 'labels'): string {
  const path = locate(folder, part, what);
  if (path === undefined) {
    const name = `${part}-${what}-idx${what === 'images' ? 3 : 1}-ubyte`;
    throw new FailureError(
      `${folder} has no file ${name} or ${name}.gz. A data set of IDX files needs four: images and labels, train and t10k`,
    );
  }
  return path;
}

/**
 * Opens Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017): 60,000 + 10,000 grey pictures of 28 x 28 in ten classes.
 * @param folders where to look; for tests
 * @throws FailureError saying how to get it
 */
export function openFashionMnist(options: IdxOptions, folders: readonly string[] = fashionFolders()): DataSet {
  const folder = folders.find((candidate) => hasIdxFiles(candidate));
  if (folder === undefined)
    throw new FailureError(
      `data set fashion-mnist: not found in ${folders.join(' or ')}. On Debian or Ubuntu: apt-get install dataset-fashion-mnist. ` +
        'Elsewhere: give the path of a folder with its four IDX files, or set DSD_DATA to the folder that has them in fashion-mnist/',
    );
  return { ...openIdx(folder, options, 'fashion-mnist', FASHION_CLASSES), credit: 'Pictures: Fashion-MNIST (Zalando), MIT licence' };
}

function fashionFolders(): string[] {
  const own = process.env.DSD_DATA;
  return own === undefined || own === '' ? [DEBIAN_FOLDER] : [join(own, 'fashion-mnist'), DEBIAN_FOLDER];
}
