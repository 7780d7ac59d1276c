/**
 * Endless batches for training. Order and flips are functions of (seed, global image index) and of nothing else (core/random.ts): not
 * of the batch size, the number of processes, or how often the program was stopped and resumed.
 */
import { key, permutation, uniform } from '../core/random.js';
import type { Place } from './job.js';
import { put } from './job.js';
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
  /** Decoding processes, as many as cores by default, up to sixteen; 0 decodes in this one. None is started for pictures that are in memory. */
  readonly workers?: number;
  /** Batches made ahead of `next`; 2 by default. */
  readonly prefetch?: number;
  /** Global index of the first picture: the number already seen, to resume. 0 by default. */
  readonly start?: number;
  /** Batches come in the memory that they were decoded into, uncopied, and have to be released. False by default. */
  readonly lend?: boolean;
}

export interface Batch {
  /** B * size * size * channels bytes: B pictures, row by row, channels together. The caller's own, or, if lent, until `release`. */
  readonly images: Uint8Array;
  /** B classes. */
  readonly labels: Int32Array<ArrayBuffer>;
  /** Global index of the first picture; it counts on over epochs. */
  readonly firstImage: number;
  /** B picture numbers in the source. */
  readonly indices: Uint32Array<ArrayBuffer>;
  /** How long `next` kept its caller waiting, in milliseconds: near 0 if data is not what limits the speed. */
  readonly waitedMs: number;
  /** Of a batch that is lent: gives its images back, to be written over by a later batch. A batch that is never released costs its memory. */
  readonly release?: () => void;
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
  readonly #lend: boolean;
  readonly #pool: DecodePool;
  /** Memory of batches that are done with, to be written over. */
  readonly #free: Uint8Array[] = [];
  readonly #queue: Promise<Made>[] = [];
  readonly #orders = new Map<number, Uint32Array>();
  #ahead: number;
  #failure: unknown;
  #closed = false;

  /**
   * Starts making batches at once.
   * @throws RangeError for a number that makes no sense
   */
  constructor(source: ImageSource, options: LoaderOptions) {
    const { batch, seed, flip = false, workers = DEFAULT_WORKERS, prefetch = 2, start = 0, lend = false } = options;
    if (!Number.isInteger(batch) || batch < 1) throw new RangeError(`Loader: batch must be an integer of at least 1, got ${batch}`);
    if (!Number.isInteger(prefetch) || prefetch < 0)
      throw new RangeError(`Loader: prefetch must be an integer of at least 0, got ${prefetch}`);
    if (!Number.isSafeInteger(start) || start < 0) throw new RangeError(`Loader: start must be a safe integer of at least 0, got ${start}`);
    this.#source = source;
    this.#batch = batch;
    this.#seed = seed;
    this.#flip = flip;
    this.#prefetch = prefetch;
    this.#lend = lend;
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
      return { ...batch, ...this.#handOut(batch.images), waitedMs: performance.now() - began };
    } catch (error) {
      this.#failure ??= error;
      throw this.#closed ? closedError() : this.#failure;
    }
  }

  /** Gives up what was made ahead and ends the processes. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#queue.length = 0;
    this.#free.length = 0;
    await this.#pool.close();
  }

  /** The images for a caller: themselves, or a copy. */
  #handOut(images: Uint8Array): Pick<Batch, 'images' | 'release'> {
    let given = false;
    const release = (): void => {
      if (!given && !this.#closed) this.#free.push(images);
      given = true;
    };
    if (this.#lend) return { images, release };
    const own = images.slice();
    release();
    return { images: own };
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
    const images = this.#free.pop() ?? new Uint8Array(this.#batch * each);
    const labels = new Int32Array(this.#batch);
    const indices = new Uint32Array(this.#batch);
    const flipKey = key(this.#seed, 'flip');
    const waiting: Promise<void>[] = [];
    for (let b = 0; b < this.#batch; b++) {
      const image = firstImage + b;
      const index = this.#order(Math.floor(image / source.length))[image % source.length]!;
      indices[b] = index;
      labels[b] = source.label(index);
      const into = images.subarray(b * each, (b + 1) * each);
      const place: Place = { into, mirrored: this.#flip && uniform(flipKey, image, 0) < 0.5 };
      const take = (pixels: Uint8Array): void => {
        if (pixels === into) return; // a process has put it there
        if (pixels.length !== each)
          throw new Error(`${source.path(index)}: the source gave ${pixels.length} bytes where ${each} were expected`);
        put(pixels, place, source);
      };
      const ready = source.peek(index);
      if (ready !== undefined) take(ready);
      else waiting.push(source.load(index, (job, kept) => this.#pool.run(job, kept ? undefined : place)).then(take));
    }
    // All are waited for, so that of several broken pictures the first in order is reported, whatever the processes did first.
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

function closedError(): Error {
  return new Error('Loader: it is closed');
}
