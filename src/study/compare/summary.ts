/** Results in few numbers: what is measured of a run, and its mean and spread over seeds. */
import { type Spread, spreadOf } from '../table.js';
import { sampleFlops } from './budget.js';
import type { CompareResult, DrawingReport } from './outcome.js';
import type { CompareCase } from './plan.js';

/** Something that is measured of every run, where it has it. */
export interface Measure {
  /** In study.json. */
  readonly key: string;
  /** At the head of a column. */
  readonly title: string;
  /** A share, to be shown in percent. */
  readonly share?: true;
  /** What differences of it are in, where it has a unit and no true zero; else they are told in percent. */
  readonly unit?: string;
  /** Of what real pictures score, or what one gets without looking; undefined where there is no such thing. */
  readonly floor: (result: CompareResult) => number | undefined;
  readonly value: (result: CompareResult) => number | undefined;
}

type Sample = DrawingReport['samples'][number];

const at = (result: CompareResult, guidance: number): Sample | undefined =>
  result.drawing?.samples.find(({ sampler }) => sampler.guidance === guidance);

const guided = (guidance: number): string => (guidance === 1 ? '' : ` at guidance ${guidance}`);

/** What one network says, of all that judged. */
const by = <D extends { readonly extractor: string }>(extractor: string, all: readonly D[] | undefined): D | undefined =>
  all?.find((each) => each.extractor === extractor);

/** The Frechet distance by a network at a guidance scale. */
export function frechetAt(extractor: string, distance: string, guidance: number): Measure {
  return {
    key: `${distance}@${guidance}`,
    title: `${distance}${guided(guidance)}`,
    value: (result) => by(extractor, at(result, guidance)?.distances)?.frechet,
    floor: ({ drawing }) => by(extractor, drawing?.floor)?.frechet,
  };
}

/** Precision or recall by a network at a guidance scale. */
function coverage(key: 'precision' | 'recall', extractor: string, distance: string, guidance: number): Measure {
  return {
    key: `${key}-${distance}@${guidance}`,
    title: `${key}${guided(guidance)}`,
    share: true,
    value: (result) => by(extractor, at(result, guidance)?.distances)?.[key],
    floor: ({ drawing }) => by(extractor, drawing?.floor)?.[key],
  };
}

export const PSNR: Measure = {
  key: 'psnr',
  title: 'PSNR, dB',
  unit: 'dB',
  value: ({ drawing }) => drawing?.reconstruction.psnr,
  floor: () => undefined,
};

/** Networks that judged, the one that figures are by first, and guidance scales, none first. */
export function judgedBy(results: readonly CompareResult[]): {
  readonly networks: readonly { readonly extractor: string; readonly distance: string }[];
  readonly guidances: readonly number[];
} {
  const judges = results.flatMap(({ drawing }) => drawing?.protocol.judges ?? []);
  const networks = new Map([...judges].reverse().map(({ extractor, distance }) => [extractor, distance]));
  const guidances = new Set(results.flatMap(({ drawing }) => drawing?.samples.map(({ sampler }) => sampler.guidance) ?? []));
  return {
    networks: [...networks].map(([extractor, distance]) => ({ extractor, distance })),
    guidances: [...guidances].sort((a, b) => Math.abs(a - 1) - Math.abs(b - 1)),
  };
}

/** All measures that some of these runs have. */
export function measuresOf(results: readonly CompareResult[]): Measure[] {
  const { networks, guidances } = judgedBy(results);
  const probe = (key: 'nearest' | 'linear', title: string): Measure => {
    const of = ({ drawing, encoding }: CompareResult) => (drawing ?? encoding)?.probes;
    return { key, title, share: true, value: (result) => of(result)?.[key], floor: (result) => of(result)?.blind };
  };
  const all: Measure[] = [
    PSNR,
    {
      key: 'rank',
      title: 'effective rank',
      value: ({ drawing, encoding }) => (drawing?.reconstruction.latent ?? encoding?.latent)?.effectiveRank,
      floor: () => undefined,
    },
    probe('nearest', 'k-NN'),
    probe('linear', 'linear probe'),
    ...networks.flatMap(({ extractor, distance }) => guidances.map((guidance) => frechetAt(extractor, distance, guidance))),
    ...networks.map(
      ({ extractor, distance }): Measure => ({
        key: `r${distance}`,
        title: `r${distance}`,
        value: ({ drawing }) => by(extractor, drawing?.reconstruction.frechet)?.frechet,
        floor: () => undefined,
      }),
    ),
    ...networks
      .slice(0, 1)
      .flatMap(({ extractor, distance }) =>
        guidances.flatMap((guidance) => (['precision', 'recall'] as const).map((key) => coverage(key, extractor, distance, guidance))),
      ),
    ...guidances.map(
      (guidance): Measure => ({
        key: `accuracy@${guidance}`,
        title: `in the asked class${guided(guidance)}`,
        share: true,
        value: (result) => at(result, guidance)?.accuracy,
        floor: ({ drawing }) => drawing?.realAccuracy,
      }),
    ),
  ];
  return all.filter(({ value }) => results.some((result) => value(result) !== undefined));
}

/** A measure over the seeds that have it. */
export interface Measured extends Spread {
  readonly seeds: readonly number[];
  /** In their order. */
  readonly values: readonly number[];
}

export interface CaseSummary {
  readonly data: string;
  readonly case: string;
  readonly label: string;
  readonly seeds: readonly number[];
  readonly stages: readonly { readonly name: string; readonly parameters: number; readonly images: number; readonly flops: number }[];
  readonly parameters: number;
  /** Of training. */
  readonly flops: number;
  /** Of a sample without guidance; of what draws. */
  readonly sampleFlops?: number;
  /** By the measures' keys. */
  readonly measures: Readonly<Record<string, Measured>>;
  /** In training steps, and of the evaluation. */
  readonly trained: Spread;
  readonly judged: Spread;
  /** Seeds whose values stopped being finite. */
  readonly diverged: readonly number[];
}

/** One a case that has results, in the order of the cases. @param results of one set of pictures */
export function summarize(
  results: readonly CompareResult[],
  cases: readonly Pick<CompareCase, 'name' | 'label'>[],
  measures = measuresOf(results),
): CaseSummary[] {
  return cases.flatMap(({ name, label }) => {
    const runs = results.filter((result) => result.case === name);
    const [first] = runs;
    if (!first) return [];
    const sampler = runs.flatMap(({ drawing }) => drawing?.samples[0]?.sampler ?? [])[0];
    const stages = first.trained.map(({ name: stage, parameters, images, flops }) => ({ name: stage, parameters, images, flops }));
    return {
      ...{ data: first.data, case: name, label, seeds: runs.map(({ seed }) => seed), stages },
      parameters: stages.reduce((sum, { parameters }) => sum + parameters, 0),
      flops: stages.reduce((sum, { flops }) => sum + flops, 0),
      ...(sampler ? { sampleFlops: sampleFlops(first.stages, sampler) } : {}),
      measures: Object.fromEntries(measures.flatMap((measure) => over(measure, runs))),
      trained: spreadOf(runs.map((run) => run.trained.reduce((sum, { seconds }) => sum + seconds, 0))),
      judged: spreadOf(runs.map(({ judgedIn }) => judgedIn)),
      diverged: runs.flatMap(({ seed, diverged }) => (diverged === undefined ? [] : [seed])),
    };
  });
}

function over({ key, value }: Measure, runs: readonly CompareResult[]): [string, Measured][] {
  const found = runs.flatMap((run) => {
    const number = value(run);
    return number === undefined ? [] : [{ seed: run.seed, number }];
  });
  if (found.length === 0) return [];
  const values = found.map(({ number }) => number);
  return [[key, { seeds: found.map(({ seed }) => seed), values, ...spreadOf(values) }]];
}
