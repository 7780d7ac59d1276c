/** How long a study will still take, from what it has taken. */

import type { StudyProgress } from './runner.js';

/** Where a study is. A run trains while its share is below 1, and is judged at 1. */
type Now = Pick<StudyProgress<unknown>, 'done' | 'of' | 'spent' | 'left'> & { readonly share: number };

/**
 * Training takes as long as its cost at the rate so far; judging does not depend on the cost, so each run that is still to be judged is given what the
 * last one took (the first one's is long: judges are made ready in it). Before one was judged, judging is not in the answer.
 */
export class TimeLeft {
  private last: (Now & { readonly time: number }) | undefined;
  /** Milliseconds of training, and its cost. */
  private trained = { time: 0, cost: 0 };
  /** Milliseconds of judging: of the run before, and of the run in hand. */
  private judged = { each: 0, now: 0 };

  /** @param time now, in milliseconds. @returns seconds; NaN or infinite before there is a rate */
  at(now: Now, time: number): number {
    const { last, trained, judged } = this;
    if (last && last.done !== now.done) this.judged = { each: judged.now, now: 0 };
    else if (last && last.share === 1) judged.now += time - last.time;
    else if (last) this.trained = { time: trained.time + time - last.time, cost: trained.cost + now.spent - last.spent };
    this.last = { ...now, time };
    return this.seconds(now);
  }

  private seconds({ done, of, left }: Now): number {
    const { trained, judged } = this;
    const judging = Math.max(0, judged.each - judged.now) + judged.each * (of - done - 1);
    const training = left === 0 ? 0 : (trained.time * left) / trained.cost;
    return (training + judging) / 1000;
  }
}
