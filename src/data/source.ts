/** What everything above knows of data: a numbered list of square pictures with labels, and a data set of two such lists. */
import type { Decoder } from './job.js';

/** Pictures of one size, with labels. Immutable as seen from outside: picture i is the same bytes whenever and wherever it is loaded. */
export interface ImageSource {
  /** For messages and logs: 'openmoji, training part'. */
  readonly name: string;
  /** Pixels a side; pictures are square. */
  readonly size: number;
  readonly channels: 1 | 3;
  /** Class names; a label is an index here. The two parts of a data set have the same. */
  readonly classes: readonly string[];
  /** Number of pictures, at least 1. */
  readonly length: number;
  /** Class of picture i. */
  label(i: number): number;
  /** Where picture i came from, for messages. */
  path(i: number): string;
  /** Picture i if it is in memory now; a view, not to be written to or transferred. */
  peek(i: number): Uint8Array | undefined;
  /**
   * Picture i as size * size * channels bytes, row by row, channels together; not to be written to or transferred.
   * @param decode who decodes, if need be: a pool's `run`; this process if absent
   * @throws PictureError naming the path and the reason
   */
  load(i: number, decode?: Decoder): Promise<Uint8Array>;
}

/** The split is a property of the data, not of a seed: runs can be compared, and no picture that one run trained on is held out in another. */
export interface DataSet {
  readonly train: ImageSource;
  readonly heldOut: ImageSource;
  /** Author and licence, where the pictures ask for being named. */
  readonly credit?: string;
}

/** Bytes of one picture. */
export function pictureBytes(source: Pick<ImageSource, 'size' | 'channels'>): number {
  return source.size * source.size * source.channels;
}

/** Pictures in the given order as one array: indices.length * size * size * channels bytes. @throws PictureError as `load`, for the first in order */
export async function stack(source: ImageSource, indices: readonly number[], decode?: Decoder): Promise<Uint8Array<ArrayBuffer>> {
  const each = pictureBytes(source);
  const out = new Uint8Array(indices.length * each);
  const put = async (index: number, i: number): Promise<void> =>
    out.set(source.peek(index) ?? (await source.load(index, decode)), i * each);
  // All are waited for, so that of several broken pictures the first in order is named, whatever the processes did first.
  for (const result of await Promise.allSettled(indices.map(put))) if (result.status === 'rejected') throw result.reason;
  return out;
}

/** A source whose pictures are all in memory. */
export class MemorySource implements ImageSource {
  readonly name: string;
  readonly size: number;
  readonly channels: 1 | 3;
  readonly classes: readonly string[];
  readonly length: number;
  readonly #pixels: Uint8Array;
  readonly #labels: ArrayLike<number>;
  readonly #path: (i: number) => string;
  readonly #each: number;

  /**
   * @param pixels labels.length pictures of size * size * channels bytes, one after another
   * @param labels each an index of `classes`
   * @throws RangeError if these do not fit together
   */
  constructor(
    about: Pick<ImageSource, 'name' | 'size' | 'channels' | 'classes'>,
    pixels: Uint8Array,
    labels: ArrayLike<number>,
    path: (i: number) => string,
  ) {
    this.name = about.name;
    this.size = about.size;
    this.channels = about.channels;
    this.classes = about.classes;
    this.length = labels.length;
    this.#pixels = pixels;
    this.#labels = labels;
    this.#path = path;
    this.#each = pictureBytes(about);
    if (pixels.length !== labels.length * this.#each)
      throw new RangeError(`${about.name}: ${labels.length} labels for ${pixels.length} bytes at ${this.#each} bytes a picture`);
  }

  label(i: number): number {
    return this.#labels[checkIndex(this, i)]!;
  }

  path(i: number): string {
    return this.#path(checkIndex(this, i));
  }

  peek(i: number): Uint8Array {
    return this.#pixels.subarray(checkIndex(this, i) * this.#each, (i + 1) * this.#each);
  }

  load(i: number): Promise<Uint8Array> {
    return Promise.resolve(this.peek(i));
  }
}

/** @throws RangeError unless i is the index of a picture of the source */
export function checkIndex(source: Pick<ImageSource, 'name' | 'length'>, i: number): number {
  if (!Number.isInteger(i) || i < 0 || i >= source.length)
    throw new RangeError(`${source.name}: picture ${i} was asked for, and there are ${source.length}`);
  return i;
}
