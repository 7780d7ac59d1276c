/**
 * Errors that are meant for the user. Their message is complete: what was wrong, what was found, what to do. The command line prints
 * the message alone and exits with `exitCode`; an error of any other class is a bug of ours and is printed with its stack.
 */

export interface ErrorOptions {
  /** The lower error, shown under `--debug`. */
  readonly cause?: unknown;
}

/** The base of all errors for the user. Throw one of its three kinds. */
export abstract class DsdError extends Error {
  /** What the process exits with: 1 failed, 2 wrong usage, 75 interrupted, with nothing lost that could be saved. */
  abstract readonly exitCode: 1 | 2 | 75;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The command, a setting or an argument was wrong; trying again unchanged cannot help. */
export class UsageError extends DsdError {
  override readonly exitCode = 2;
}

/** The request was fine, and the machine, a file or the data failed it. */
export class FailureError extends DsdError {
  override readonly exitCode = 1;
}

/** Values stopped being finite in training: a failure for who wants the network, an outcome for who studies the objective. */
export class DivergedError extends FailureError {}

/** Stopped on request, with the weights saved if there were any yet. 75 is EX_TEMPFAIL, which schedulers take for "try again". */
export class InterruptedError extends DsdError {
  override readonly exitCode = 75;
}

/**
 * The candidate that `word` most likely meant, or undefined if none is near: for "did you mean ...?".
 *
 * Near is an edit distance (insert, delete, replace, swap of neighbours; case ignored) of at most a third of the longer word and never the
 * whole word. A candidate that starts with the word is near too. Of equals, the first wins.
 */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const wanted = word.toLowerCase();
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const other = candidate.toLowerCase();
    let distance = editDistance(wanted, other);
    const longer = Math.max(wanted.length, other.length);
    if (wanted.length >= 3 && other.startsWith(wanted)) distance = Math.min(distance, 1);
    if (distance <= Math.max(1, Math.floor(longer / 3)) && distance < longer && distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Optimal string alignment distance in UTF-16 units. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let cost = Math.min(replace, last[j]! + 1, row[j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2]! + 1);
      row.push(cost);
    }
    before = last;
    last = row;
  }
  return last[b.length]!;
}
