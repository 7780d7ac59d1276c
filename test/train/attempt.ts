/** Runs of a second or two through the whole of `train`, for tests of how they end and go on. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunConfig } from '../../src/train/config.js';
import type { Resume } from '../../src/train/resume.js';
import { type TrainEvent, train } from '../../src/train/train.js';

export interface Attempt {
  readonly events: readonly TrainEvent[];
  readonly error: unknown;
}

/** Trains; `stopAt` aborts when the run stands at so many pictures. */
export async function attempt(
  out: string,
  config: RunConfig,
  { resume, stopAt, compute = 'float32' }: { resume?: Resume; stopAt?: number; compute?: 'float32' | 'bfloat16' | undefined },
): Promise<Attempt> {
  const stop = new AbortController();
  const events: TrainEvent[] = [];
  let error: unknown;
  try {
    await train(config, {
      ...{ out, device: 'cpu', compute, signal: stop.signal },
      ...(resume ? { resume } : {}),
      report: (event) => {
        events.push(event);
        if (event.kind === 'train' && event.images === stopAt) stop.abort();
      },
    });
  } catch (thrown) {
    error = thrown;
  }
  return { events, error };
}

/** The lines of a run's metrics without what depends on the clock and on memory. */
export function numbers(run: string): object[] {
  const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const { imagesPerSecond: _, flopsPerSecond, dataWait, memoryMiB, secondsLeft, ...rest } = JSON.parse(line) as Record<string, unknown>;
    return rest;
  });
}
