/** How far a training program goes ahead of its device. */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { Batch } from '../data/loader.js';
import { workAhead } from '../torch/index.js';

/** Steps that the device has before it while the next one is prepared: enough that it never waits, and few, so that stopping does not. */
const AHEAD = 2;

/** After a step: lets others have their turn, and waits while the device has enough before it. */
export async function pace(): Promise<void> {
  await turn(); // lets signal handlers run, and the thread that saves report
  // Asleep and not in a call that waits: the processes that decode are given their work by this one.
  while (workAhead() > AHEAD) await sleep(1);
}

/** Milliseconds of a wait for a batch in which the device may have waited too: while it has steps to do, a wait is nobody's but this thread's. */
export const deviceWaited = ({ waitedMs }: Pick<Batch, 'waitedMs'>): number => (workAhead() === 0 ? waitedMs : 0);
