/** How long a study will still take, from what it has taken. */

import type { StudyProgress } from './runner.js';

/** Where a study is. A run trains while its share is below 1, and is judged at 1. */
type Now = Pick<StudyProgress<unknown>, 'done' | 'of' | 'spent' | 'left'> & { readonly share: number };

/**
 * Training takes as long as its cost at the rate so far; judging does not depend on the cost, so each run that is still to be judged is given the mean
 * of those that were. Before the first was, judging is not in the answer.
 */
export class TimeLeft {
  private last: (Now & { readonly time: number }) | undefined;
  /** Milliseconds of training, and its cost. */
  private trained = { time: 0, cost: 0 };
  /** Milliseconds of judging: of runs before, how many they were, and of the run in hand. */
  private judged = { time: 0, runs: 0, now: 0 };

  /** @param time now, in milliseconds. @returns seconds; NaN or infinite before there is a rate */
  at(now: Now, time: number): number {
    const { last, trained, judged } = this;
    if (last && last.done !== now.done) this.judged = { time: judged.time + judged.now, runs: judged.runs + 1, now: 0 };
    else if (last && last.share === 1) judged.now += time - last.time;
    else if (last) this.trained = { time: trained.time + time - last.time, cost: trained.cost + now.spent - last.spent };
    this.last = { ...now, time };
    return this.seconds(now);
  }

  private seconds({ done, of, left }: Now): number {
    const { trained, judged } = this;
    const each = judged.runs === 0 ? 0 : judged.time / judged.runs;
    const judging = Math.max(0, each - judged.now) + each * (of - done - 1);
    const training = left === 0 ? 0 : (trained.time * left) / trained.cost;
    return (training + judging) / 1000;
  }
}
