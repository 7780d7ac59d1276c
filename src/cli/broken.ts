/** Broken pictures on the command line: what to do about one is for the command to say, as only it knows what can be typed. */
import { FailureError } from '../core/errors.js';
import { PictureError } from '../data/job.js';
import { DATA_NAMES } from '../data/open.js';

/** What a command should fail with: the error, and for a broken picture of this data what to do about it. @param skip how to leave it out */
export function advised(error: unknown, data: string, skip?: string): unknown {
  if (!(error instanceof PictureError)) return error;
  const ours = DATA_NAMES.some((name) => name === data);
  const advice = ours ? 'Its package is damaged: install it again' : `Mend the file or remove it${skip ? `, or ${skip}` : ''}`;
  return new FailureError(`${error.message}. ${advice}`, { cause: error });
}
