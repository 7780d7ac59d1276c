/** Decodes every picture of a data set: what training would find out in its first epoch is known before it. */
import { availableParallelism } from 'node:os';
import { FailureError } from '../core/errors.js';
import type { Decoder } from './job.js';
import { PictureError } from './job.js';
import { DecodePool } from './pool.js';
import type { DataSet, ImageSource } from './source.js';

export interface Checked {
  /** Pictures decoded, those that opening the set had decoded included. */
  readonly pictures: number;
  /** In the order of the set: training part, then the held-out one. */
  readonly broken: readonly { readonly path: string; readonly part: 'train' | 'heldOut'; readonly reason: string }[];
  /**
   * What training on the set as it was opened would stop with, sooner or later: of 'error' the first broken picture, of 'skip' that there are
   * too many, or that a class has no sound one. Undefined if it would not.
   */
  readonly refusal?: FailureError;
}

export interface CheckOptions {
  /** Decoding threads, 0 to 256: all cores by default. */
  readonly workers?: number;
  readonly onProgress?: (done: number, of: number, broken: number) => void;
}

/** Pictures asked for at a time, for each thread: so that none waits, and millions do not wait in memory. */
const AHEAD = 4;

/** @throws DiskError where memory or open files ran out, FailureError if a decoding thread died: nothing is known of the pictures then */
export async function checkPictures({ train, heldOut }: DataSet, options: CheckOptions = {}): Promise<Checked> {
  const { workers = Math.min(256, availableParallelism()), onProgress } = options;
  const total = train.length + heldOut.length;
  const found = new Map<string, PictureError>();
  const pool = new DecodePool(workers);
  // A source that skips would not tell; and it asks for a broken picture once more for each that it could have replaced.
  const decode: Decoder = async (job) => {
    const known = found.get(job.path);
    if (known) throw known;
    try {
      return await pool.run(job);
    } catch (error) {
      if (error instanceof PictureError) found.set(job.path, error);
      throw error;
    }
  };
  let done = 0;
  const refusals: (FailureError | undefined)[] = [];
  const check = async (source: ImageSource, i: number, place: number): Promise<void> => {
    try {
      if (source.peek(i) === undefined) await source.load(i, decode);
    } catch (error) {
      const ofPictures = error instanceof PictureError || (error instanceof FailureError && error.cause instanceof PictureError);
      if (!ofPictures) throw error;
      refusals[place] = error;
    }
    onProgress?.(++done, total, found.size);
  };
  try {
    let next = 0;
    const lane = async (): Promise<void> => {
      for (let at = next++; at < total; at = next++)
        await (at < train.length ? check(train, at, at) : check(heldOut, at - train.length, at));
    };
    await Promise.all(Array.from({ length: AHEAD * Math.max(1, workers) }, lane));
  } finally {
    await pool.close();
  }
  const refusal = refusals.find((error) => error !== undefined);
  const broken = [...brokenOf('train', train, found), ...brokenOf('heldOut', heldOut, found)];
  return { pictures: total, broken, ...(refusal ? { refusal } : {}) };
}

function brokenOf(part: 'train' | 'heldOut', source: ImageSource, found: ReadonlyMap<string, PictureError>): Checked['broken'] {
  if (found.size === 0) return [];
  const errors = Array.from({ length: source.length }, (_, i) => found.get(source.path(i)));
  return errors.flatMap((error) => (error ? [{ path: error.path, part, reason: error.reason }] : []));
}
