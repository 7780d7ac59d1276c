/** What a decoding process is asked, and how it says no. Apart from the decoder, so that asking does not load it. */
import { FailureError } from '../core/errors.js';

/** What to decode, and into what: size * size * channels bytes. */
export interface DecodeJob {
  /** 'photo': JPEG, PNG, WebP or GIF, centre crop. 'drawing': a square SVG on white. */
  readonly kind: 'photo' | 'drawing';
  readonly path: string;
  /** Pixels a side. */
  readonly size: number;
  readonly channels: 1 | 3;
}

/** A part of a batch, for one picture. */
export interface Place {
  /** size * size * channels bytes. */
  readonly into: Uint8Array;
  /** Each row from right to left. */
  readonly mirrored: boolean;
}

/**
 * Does a job: a function of the job alone. Rejects with PictureError for a broken picture.
 * @param kept who asks will keep the pixels: they have to be as the file has them, in memory that nobody writes to
 */
export type Decoder = (job: DecodeJob, kept?: boolean) => Promise<Uint8Array>;

/** Puts a picture in its place. */
export function put(pixels: Uint8Array, { into, mirrored }: Place, about: Pick<DecodeJob, 'size' | 'channels'>): void {
  into.set(pixels);
  if (mirrored) mirror(into, about);
}

/** Turns each row of a picture round. */
export function mirror(pixels: Uint8Array, { size, channels }: Pick<DecodeJob, 'size' | 'channels'>): void {
  const stride = size * channels;
  for (let row = 0; row < pixels.length; row += stride)
    for (let left = row, right = row + stride - channels; left < right; left += channels, right -= channels)
      for (let c = 0; c < channels; c++) {
        const pixel = pixels[left + c]!;
        pixels[left + c] = pixels[right + c]!;
        pixels[right + c] = pixel;
      }
}

/**
 * One picture cannot be used; others may be. The message names the path and the reason; what to do about it depends on who asked for the
 * picture, and is for them to add.
 */
export class PictureError extends FailureError {
  constructor(
    readonly path: string,
    readonly reason: string,
    cause?: unknown,
  ) {
    super(`cannot use picture ${path}: ${reason}`, { cause });
  }
}

/** The format of a picture's file by its first 12 bytes; undefined if it is none that we read. */
export function pictureFormat(head: Uint8Array): 'jpeg' | 'png' | 'webp' | 'gif' | undefined {
  const text = Buffer.from(head.subarray(0, 12)).toString('latin1');
  if (text.startsWith('\xff\xd8\xff')) return 'jpeg';
  if (text.startsWith('\x89PNG\r\n\x1a\n')) return 'png';
  if (text.startsWith('RIFF') && text.slice(8) === 'WEBP') return 'webp';
  if (text.startsWith('GIF87a') || text.startsWith('GIF89a')) return 'gif';
  return undefined;
}
