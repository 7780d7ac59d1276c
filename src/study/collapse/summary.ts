/** The study's results in few numbers: mean and spread over seeds, verdicts, and where seeds disagree. */
import { type Spread, spreadOf } from '../table.js';
import { CASES } from './cases.js';
import type { CollapseResult } from './study.js';
import { type Ending, ending, type Verdict, verdict } from './verdict.js';

export interface CaseSummary {
  readonly data: string;
  readonly case: string;
  readonly label: string;
  readonly seeds: readonly number[];
  /** In the order of the seeds. */
  readonly verdicts: readonly Verdict[];
  /** Of each run's ending, see verdict.ts. */
  readonly effectiveRank: Spread;
  readonly deviation: Spread;
  readonly latentDeviation: Spread;
  readonly predictionRank: Spread;
  readonly l1: Spread;
  readonly growth: Spread;
  readonly seconds: Spread;
}

/** The verdict on a run. */
export const verdictOf = ({ curve, config, blank }: CollapseResult): Verdict => verdict(curve, { channels: config.model.latent, blank });

/** One a set of pictures and case, in the order of the results' sets and the study's cases. */
export function summarize(results: readonly CollapseResult[]): CaseSummary[] {
  return [...new Set(results.map(({ data }) => data))].flatMap((data) =>
    CASES.flatMap(({ name, label }) => {
      const runs = results.filter((result) => result.data === data && result.case === name);
      return runs.length === 0 ? [] : [summarizeCase(data, name, label, runs)];
    }),
  );
}

function summarizeCase(data: string, name: string, label: string, runs: readonly CollapseResult[]): CaseSummary {
  const endings = runs.map(({ curve }) => ending(curve.points));
  const over = (value: (ending: Ending) => number): Spread => spreadOf(endings.map(value));
  return {
    ...{ data, case: name, label },
    seeds: runs.map(({ seed }) => seed),
    verdicts: runs.map(verdictOf),
    effectiveRank: over((e) => e.effectiveRank),
    deviation: over((e) => e.deviation),
    latentDeviation: over((e) => e.latentDeviation),
    predictionRank: over((e) => e.predictionRank),
    l1: over((e) => e.l1),
    growth: over((e) => e.growth),
    seconds: spreadOf(runs.map(({ curve }) => curve.seconds)),
  };
}

/** 'collapsed', 'collapsed (3 seeds)', or, where seeds disagree, 'SEEDS DISAGREE: collapsed 2, healthy 1'. @param verdicts one a seed */
export function agreement(verdicts: readonly Verdict[]): string {
  const counts = new Map<Verdict, number>();
  for (const each of verdicts) counts.set(each, (counts.get(each) ?? 0) + 1);
  const [first] = counts.keys();
  if (counts.size === 1) return verdicts.length === 1 ? `${first}` : `${first} (${verdicts.length} seeds)`;
  return `SEEDS DISAGREE: ${[...counts].map(([each, n]) => `${each} ${n}`).join(', ')}`;
}
