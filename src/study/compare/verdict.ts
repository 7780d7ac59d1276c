/** Which of two cases is lower in a measure, by a rule that is stated here and printed with every study. */
import { written } from '../table.js';
import type { CaseSummary, Measure, Measured } from './summary.js';

export type Order = 'lower' | 'higher' | 'undecided';

export interface Comparison {
  readonly data: string;
  /** Its key, and how it is called. */
  readonly measure: string;
  readonly title: string;
  readonly case: string;
  readonly against: string;
  /** Of the case's mean and the other's: their ratio less 1, so that -0.2 is 20 % lower; of what has a unit, their difference. */
  readonly difference: number;
  readonly order: Order;
  /** By seed. */
  readonly values: Readonly<Record<string, number>>;
  readonly others: Readonly<Record<string, number>>;
  readonly words: string;
}

/** The rule in words. */
export const RULE: readonly string[] = [
  'One case is called lower (higher) than another where each of its seeds is below (above) every seed of the other; else their seeds overlap, and no order is claimed.',
  'Percentages are of means over seeds. With one seed each, the spread is unknown, and it is said so.',
];

/** @param a @param b at least one value each */
export function order(a: readonly number[], b: readonly number[]): Order {
  if (Math.max(...a) < Math.min(...b)) return 'lower';
  return Math.min(...a) > Math.max(...b) ? 'higher' : 'undecided';
}

/** Compares two cases of one set of pictures; undefined where one has no value of it. */
export function compareCases(one: CaseSummary | undefined, other: CaseSummary | undefined, measure: Measure): Comparison | undefined {
  const [a, b] = [one?.measures[measure.key], other?.measures[measure.key]];
  if (!one || !other || !a || !b) return undefined;
  const found = order(a.values, b.values);
  const difference = measure.unit === undefined ? a.mean / b.mean - 1 : a.mean - b.mean;
  return {
    ...{ data: one.data, measure: measure.key, title: measure.title, case: one.case, against: other.case, difference, order: found },
    values: bySeed(a),
    others: bySeed(b),
    words: `${measure.title}: ${one.label} ${listed(a)} against ${listed(b)} of ${other.label}: ${told(difference, measure)}, ${sure(found, a, b)}.`,
  };
}

const bySeed = ({ seeds, values }: Measured): Record<string, number> =>
  Object.fromEntries(seeds.map((seed, i) => [seed, values[i] as number]));

/** '12.3 (seed 1 12.1, seed 2 12.5)'. */
function listed(of: Measured): string {
  const each = of.seeds.map((seed, i) => `seed ${seed} ${written({ mean: of.values[i] as number })}`);
  return `${written({ mean: of.mean })} (${each.join(', ')})`;
}

function told(difference: number, { unit }: Measure): string {
  const size = Math.abs(difference);
  return `${unit === undefined ? `${(100 * size).toFixed(1)} %` : `${size.toFixed(2)} ${unit}`} ${difference < 0 ? 'lower' : 'higher'}`;
}

function sure(found: Order, a: Measured, b: Measured): string {
  if (Math.min(a.values.length, b.values.length) === 1) return 'by one seed, whose spread is unknown';
  return found === 'undecided' ? 'but seeds overlap, so no order is claimed' : 'whichever seeds are compared';
}

/** What a study compares: cases by name, each with another, in some measures. */
export function compareAll(
  summaries: readonly CaseSummary[],
  pairs: readonly (readonly [one: string, other: string])[],
  measures: readonly Measure[],
): Comparison[] {
  const find = (name: string): CaseSummary | undefined => summaries.find((summary) => summary.case === name);
  return pairs.flatMap(([one, other]) => measures.flatMap((measure) => compareCases(find(one), find(other), measure) ?? []));
}
