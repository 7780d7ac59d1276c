/**
 * Endless batches for training. Order and flips are functions of (seed, global image index) and of nothing else (core/random.ts): not
 * of the batch size, the number of threads, or how often the program was stopped and resumed.
 */
import { key, permutation, uniform } from '../core/random.js';
import { DEFAULT_WORKERS, DecodePool } from './pool.js';
import type { ImageSource } from './source.js';
import { pictureBytes } from './source.js';

export interface LoaderOptions {
  /** Pictures a batch, at least 1; may be more than the source has. */
  readonly batch: number;
  /** A safe integer >= 0. */
  readonly seed: number;
  /** Mirror half of the pictures, left to right. Not for letters or flags. */
  readonly flip?: boolean;
  /** Decoding threads, all cores by default; 0 decodes in this one. None is started for pictures that are in memory. */
  readonly workers?: number;
  /** Batches made ahead of `next`; 2 by default. */
  readonly prefetch?: number;
  /** Global index of the first picture: the number already seen, to resume. 0 by default. */
  readonly start?: number;
}

export interface Batch {
  /** B * size * size * channels bytes: B pictures, row by row, channels together. The caller's own. */
  readonly images: Uint8Array<ArrayBuffer>;
  /** B classes. */
  readonly labels: Int32Array<ArrayBuffer>;
  /** Global index of the first picture; it counts on over epochs. */
  readonly firstImage: number;
  /** B picture numbers in the source. */
  readonly indices: Uint32Array<ArrayBuffer>;
  /** How long `next` kept its caller waiting, in milliseconds: near 0 if data is not what limits the speed. */
  readonly waitedMs: number;
}

type Made = Omit<Batch, 'waitedMs'>;

/**
 * Global image g = e * length + n is picture permutation(key(seed, 'order'), e, length)[n]; it is mirrored if `flip` and
 * uniform(key(seed, 'flip'), g, 0) < 1/2. Batches are g = start, start + 1, ... without a gap, also where an epoch ends.
 */
export class Loader {
  readonly #source: ImageSource;
  readonly #batch: number;
  readonly #seed: number;
  readonly #flip: boolean;
  readonly #prefetch: number;
  readonly #pool: DecodePool;
  readonly #queue: Promise<Made>[] = [];
  readonly #orders = new Map<number, Uint32Array>();
  #ahead: number;
  #failure: unknown;
  #closed = false;

  /**
   * Starts making batches at once.
   * @throws RangeError for a number that makes no sense
   */
  constructor(source: ImageSource, { batch, seed, flip = false, workers = DEFAULT_WORKERS, prefetch = 2, start = 0 }: LoaderOptions) {
    if (!Number.isInteger(batch) || batch < 1) throw new RangeError(`Loader: batch must be an integer of at least 1, got ${batch}`);
    if (!Number.isInteger(prefetch) || prefetch < 0)
      throw new RangeError(`Loader: prefetch must be an integer of at least 0, got ${prefetch}`);
    if (!Number.isSafeInteger(start) || start < 0) throw new RangeError(`Loader: start must be a safe integer of at least 0, got ${start}`);
    this.#source = source;
    this.#batch = batch;
    this.#seed = seed;
    this.#flip = flip;
    this.#prefetch = prefetch;
    this.#pool = new DecodePool(workers);
    this.#ahead = start;
    this.#fill(prefetch);
  }

  /**
   * The next batch. Several calls may wait at once; they are served in order.
   * @throws PictureError, or another error of the source. Every later call throws it too: batches follow each other without a gap or not at all
   * @throws Error once closed
   */
  async next(): Promise<Batch> {
    const began = performance.now();
    this.#check();
    this.#fill(this.#prefetch + 1);
    const made = this.#queue.shift()!;
    try {
      const batch = await made;
      this.#check();
      return { ...batch, waitedMs: performance.now() - began };
    } catch (error) {
      this.#failure ??= error;
      throw this.#closed ? closedError() : this.#failure;
    }
  }

  /** Gives up what was made ahead and ends the threads. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#queue.length = 0;
    await this.#pool.close();
  }

  #check(): void {
    if (this.#closed) throw closedError();
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fill(batches: number): void {
    while (this.#queue.length < batches) {
      const made = this.#make(this.#ahead);
      made.catch(() => {}); // reported by the `next` that comes to it, or, after close, by nobody
      this.#queue.push(made);
      this.#ahead += this.#batch;
    }
  }

  async #make(firstImage: number): Promise<Made> {
    const source = this.#source;
    const each = pictureBytes(source);
    const images = new Uint8Array(this.#batch * each);
    const labels = new Int32Array(this.#batch);
    const indices = new Uint32Array(this.#batch);
    const flipKey = key(this.#seed, 'flip');
    const waiting: Promise<void>[] = [];
    for (let b = 0; b < this.#batch; b++) {
      const image = firstImage + b;
      const index = this.#order(Math.floor(image / source.length))[image % source.length]!;
      indices[b] = index;
      labels[b] = source.label(index);
      const flipped = this.#flip && uniform(flipKey, image, 0) < 0.5;
      const put = (pixels: Uint8Array): void => {
        if (pixels.length !== each)
          throw new Error(`${source.path(index)}: the source gave ${pixels.length} bytes where ${each} were expected`);
        if (flipped) mirror(pixels, images, b * each, source.size, source.channels);
        else images.set(pixels, b * each);
      };
      const ready = source.peek(index);
      if (ready !== undefined) put(ready);
      else waiting.push(source.load(index, (job) => this.#pool.run(job)).then(put));
    }
    // All are waited for, so that of several broken pictures the first in order is reported, whatever the threads did first.
    for (const result of await Promise.allSettled(waiting)) if (result.status === 'rejected') throw result.reason;
    return { images, labels, firstImage, indices };
  }

  /** Batches straddle two epochs at most times, so the last few orders are kept. */
  #order(epoch: number): Uint32Array {
    let order = this.#orders.get(epoch);
    if (order === undefined) {
      order = permutation(key(this.#seed, 'order'), epoch, this.#source.length);
      this.#orders.set(epoch, order);
      if (this.#orders.size > 2) this.#orders.delete(this.#orders.keys().next().value!);
    }
    return order;
  }
}

/** Numbers of the pictures of a source of `length` that are global images first, first + 1, ..., as a Loader of this seed takes them. */
export function pictureNumbers(length: number, seed: number, first: number, count: number): number[] {
  const orders = new Map<number, Uint32Array>();
  return Array.from({ length: count }, (_, i) => {
    const [epoch, at] = [Math.floor((first + i) / length), (first + i) % length];
    const order = orders.get(epoch) ?? permutation(key(seed, 'order'), epoch, length);
    orders.set(epoch, order);
    return order[at]!;
  });
}

/** Copies a picture, each row from right to left. */
function mirror(from: Uint8Array, to: Uint8Array, at: number, size: number, channels: number): void {
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const source = (y * size + size - 1 - x) * channels;
      const target = at + (y * size + x) * channels;
      for (let c = 0; c < channels; c++) to[target + c] = from[source + c]!;
    }
  }
}

function closedError(): Error {
  return new Error('Loader: it is closed');
}
