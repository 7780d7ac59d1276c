/** Where samples go: one grid, a folder of PNGs, or an .npz of arrays; told apart by the path's extension. */
import { extname, join } from 'node:path';
import { UsageError } from '../core/errors.js';
import { encodePng, grid, writePng } from '../data/picture.js';
import { disk } from '../io/disk.js';
import { type NpzArray, writeNpz } from '../io/npz.js';
import { checkFile } from './output.js';
import { count } from './text.js';

export interface Sink {
  /** Takes pictures first, first + 1, ...: uint8 (B, H, W, ch), and their classes. */
  add(first: number, pixels: Uint8Array, labels: readonly number[]): Promise<void>;
  end(): Promise<void>;
}

export interface SinkOptions {
  readonly total: number;
  readonly size: number;
  readonly channels: 1 | 3;
  readonly classes: readonly string[];
  /** Of a grid. */
  readonly columns: number;
  readonly overwrite: boolean;
}

/** A grid of more pixels is no picture to look at, and some viewers refuse it. */
const MOST_PIXELS = 100_000_000;
/** The most bytes of one array in memory. */
const MOST_BYTES = 2 ** 32;
/** A file in a folder of samples: number, class, name. */
const OWN_NAME = /^\d{6,}-(\d+|none)\b.*\.png$/;

/** @throws UsageError for another extension, for what is there already, and for what is too large; all before any work */
export function openSink(path: string, options: SinkOptions): Sink {
  const extension = path.endsWith('/') ? '' : extname(path).toLowerCase();
  if (extension === '.png') return gridSink(path, options);
  if (extension === '.npz') return npzSink(path, options);
  if (extension !== '')
    throw new UsageError(`--out is NAME.png, NAME.npz, or a folder, which has no extension or ends in '/'; found '${path}'`);
  return folderSink(path, options);
}

/** Small pictures are shown with larger pixels: 32 px alone is hard to see. */
export const gridScale = (size: number): number => Math.max(1, Math.round(64 / size));

function gridSink(path: string, { total, size, channels, columns, overwrite }: SinkOptions): Sink {
  checkFile(path, overwrite);
  const scale = gridScale(size);
  if (total * (size * scale) ** 2 > MOST_PIXELS)
    throw new UsageError(
      `a grid of ${count(total)} pictures is too large for one PNG: with --out NAME.npz or --out FOLDER each is kept apart`,
    );
  const all = new Uint8Array(total * size * size * channels);
  return {
    add: async (first, pixels) => all.set(pixels, first * size * size * channels),
    end: () => writePng(path, grid(all, total, size, channels, columns, { scale })),
  };
}

function npzSink(path: string, { total, size, channels, classes, overwrite }: SinkOptions): Sink {
  checkFile(path, overwrite);
  const each = size * size * 3;
  if (total * each > MOST_BYTES)
    throw new UsageError(
      `${count(total)} pictures of ${size} px are ${((total * each) / 2 ** 30).toFixed(1)} GiB, more than one array holds (${MOST_BYTES / 2 ** 30} GiB): write a folder instead`,
    );
  const all = new Uint8Array(total * each);
  const wanted = new BigInt64Array(total);
  return {
    add: async (first, pixels, labels) => {
      if (channels === 3) all.set(pixels, first * each);
      else for (const [i, value] of pixels.entries()) all.fill(value, first * each + 3 * i, first * each + 3 * i + 3);
      wanted.set(labels.map(BigInt), first);
    },
    end: async () => {
      const arrays = new Map<string, NpzArray>([['arr_0', { dtype: 'uint8', shape: [total, size, size, 3], data: all }]]);
      // Samples of no class have no labels to speak of.
      if (wanted.some((label) => Number(label) < classes.length)) arrays.set('arr_1', { dtype: 'int64', shape: [total], data: wanted });
      writeNpz(path, arrays);
    },
  };
}

function folderSink(path: string, { total, size, channels, classes, overwrite }: SinkOptions): Sink {
  const there = disk.exists(path);
  if (there && disk.stat(path).kind !== 'folder')
    throw new UsageError(`'${path}' is a file: choose another --out; a file's name ends in .png or .npz`);
  const names = there ? disk.list(path) : [];
  if (names.length > 0 && !overwrite)
    throw new UsageError(`the folder '${path}' is not empty: choose another --out, or add --overwrite to replace the samples in it`);
  disk.checkWritable(path);
  const digits = Math.max(6, String(total - 1).length);
  return {
    add: async (first, pixels, labels) => {
      if (first === 0) {
        disk.mkdir(path);
        // Left-overs of a larger set would be taken for samples of this one.
        for (const name of names.filter((old) => OWN_NAME.test(old))) disk.remove(join(path, name));
      }
      const each = size * size * channels;
      const files = await Promise.all(labels.map((_, i) => encodePng(pixels.subarray(i * each, (i + 1) * each), size, size, channels)));
      for (const [i, file] of files.entries())
        disk.writeFileAtomic(join(path, fileName(String(first + i).padStart(digits, '0'), labels[i] as number, classes)), file);
    },
    end: async () => {},
  };
}

/** 000012-3-dress.png; what a file name should not hold becomes '_'. */
function fileName(number: string, label: number, classes: readonly string[]): string {
  const name = classes[label];
  return name === undefined ? `${number}-none.png` : `${number}-${label}-${name.replaceAll(/[^\p{L}\p{N}._-]+/gu, '_').slice(0, 60)}.png`;
}
