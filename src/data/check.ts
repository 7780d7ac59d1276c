/** Decodes every picture of a data set: what training would find out in its first epoch is known before it. */
import { FailureError } from '../core/errors.js';
import type { DecodeJob, Decoder } from './job.js';
import { PictureError } from './job.js';
import { DEFAULT_WORKERS, DecodePool } from './pool.js';
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
  /** Decoding processes, 0 to 256: as many as cores by default, up to sixteen. */
  readonly workers?: number;
  readonly onProgress?: (done: number, of: number, broken: number) => void;
}

/** Pictures asked for at a time, for each process: so that none waits, and millions do not wait in memory. */
const AHEAD = 4;

/** @throws DiskError where memory or open files ran out, FailureError if a decoding process died: nothing is known of the pictures then */
export async function checkPictures({ train, heldOut }: DataSet, options: CheckOptions = {}): Promise<Checked> {
  const { workers = DEFAULT_WORKERS, onProgress } = options;
  const total = train.length + heldOut.length;
  const found = new Map<string, { readonly job: DecodeJob; readonly error: PictureError }>();
  const pool = new DecodePool(workers);
  // A source that skips would not tell; and it asks for a broken picture once more for each that it could have replaced.
  const decode: Decoder = async (job) => {
    const known = found.get(job.path);
    if (known) throw known.error;
    try {
      return await pool.run(job);
    } catch (error) {
      if (error instanceof PictureError) found.set(job.path, { job, error });
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
  const reasons = new Map<string, string>();
  for (const [path, { job, error }] of found) reasons.set(path, await reasonOf(job, error));
  const broken = [...brokenOf('train', train, reasons), ...brokenOf('heldOut', heldOut, reasons)];
  return { pictures: total, broken, ...(refusal ? { refusal } : {}) };
}

/** Asked for alone: libvips keeps its messages in one place for all threads of a process, and theirs may be another picture's, or gone. */
async function reasonOf(job: DecodeJob, { reason }: PictureError): Promise<string> {
  const { decode } = await import('./decode.js');
  return decode(job).then(
    () => reason,
    (error: unknown) => (error instanceof PictureError ? error.reason : reason),
  );
}

function brokenOf(part: 'train' | 'heldOut', source: ImageSource, reasons: ReadonlyMap<string, string>): Checked['broken'] {
  if (reasons.size === 0) return [];
  return Array.from({ length: source.length }, (_, i) => source.path(i)).flatMap((path) => {
    const reason = reasons.get(path);
    return reason === undefined ? [] : [{ path, part, reason }];
  });
}
