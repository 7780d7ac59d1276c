/** Loads the addon that resizes pictures, on first use. It is one of its own, since libtorch would take each decoding process 0.3 s and 160 MB. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { FailureError } from '../core/errors.js';
import { packageRoot } from '../io/package.js';

export type Filter = 'box' | 'bicubic' | 'lanczos';

/** The addon's exports (native/pictures/). */
export interface Resizer {
  /**
   * Writes a part of a resized picture to `out`, windowWidth * windowHeight * channels bytes.
   * @param pixels width * height * channels bytes
   * @param channels 1 or 3
   * @throws TypeError, RangeError for an argument that does not do, naming it and what was found; RangeError "out of memory"
   */
  resize(
    pixels: Uint8Array,
    width: number,
    height: number,
    channels: 1 | 3,
    outWidth: number,
    outHeight: number,
    filter: Filter,
    x: number,
    y: number,
    windowWidth: number,
    windowHeight: number,
    out: Uint8Array,
  ): void;
}

let loaded: Resizer | undefined;

/** The addon. @throws FailureError when it was never built or cannot be loaded; the message says what to run */
export function resizer(): Resizer {
  loaded ??= load(join(packageRoot(), 'build', 'dsd_pictures.node'));
  return loaded;
}

/** Loads the addon at a path; `resizer()` is what to use. Exported for the tests of its errors. */
export function load(path: string): Resizer {
  if (!existsSync(path))
    throw new FailureError(`the addon that resizes pictures has not been built (${path} does not exist): run 'npm run setup'`);
  try {
    return createRequire(import.meta.url)(path) as Resizer;
  } catch (cause) {
    const [reason] = (cause instanceof Error ? cause.message : String(cause)).split('\n', 1);
    throw new FailureError(`the addon that resizes pictures could not be loaded: ${reason}; run 'npm run setup' to build it again`, {
      cause,
    });
  }
}
