/** The figures of `dsd eval` as people read them. */
import { evaluations } from '../dsd/sampler.js';
import type { EncoderReport } from '../eval/encoder.js';
import type { EvaluationReport, JudgeReport, PicturesReport, Protocol, SampleScores } from '../eval/evaluate.js';
import type { InceptionScore } from '../eval/inception-score.js';
import type { JudgeProtocol } from '../eval/jury.js';
import type { Probes } from '../eval/probes.js';
import type { LatentHealth } from '../eval/rank.js';
import type { Distances } from '../eval/reference.js';
import { count, counted, decibels, figure, table } from './text.js';

interface Row {
  readonly name: string;
  readonly distances: readonly Distances[];
  readonly accuracy: number | undefined;
  /** Where it is not that of all rows. */
  readonly nfe?: number;
}

const share = (x: number | undefined): string => (x === undefined ? '' : `${(100 * x).toFixed(1)} %`);

/** @param classify what `classifyWeight` says of the model */
export function modelLines(report: EvaluationReport, classify: number | null): string[] {
  const { reconstruction, samples, protocol, warnings } = report;
  const { latent } = reconstruction;
  const costs = samples.map(({ sampler }) => evaluations(sampler));
  const differ = new Set(costs).size > 1;
  const rows = samples.map((scores, i) => ({
    ...{ name: settingName(scores, samples), distances: scores.distances, accuracy: scores.accuracy },
    ...(differ ? { nfe: costs[i] as number } : {}),
  }));
  return [
    `reconstruction  PSNR ${decibels(reconstruction.psnr)}, SSIM ${(reconstruction.ssim ?? Number.NaN).toFixed(3)} on ${counted(reconstruction.pictures, 'held-out picture')}; per-patch PCA of equal width ${decibels(reconstruction.pcaPsnr)}`,
    `                ${reconstruction.frechet.map(({ name, frechet }) => `r${name} ${figure(frechet)}`).join(', ')}`,
    latentLine(latent, reconstruction.mostRank),
    ...(report.probes ? [probeLine(report.probes, classify)] : []),
    ...tables(rows, report, protocol),
    ...neighbourLines(report),
    '',
    protocolLine(report),
    ...(differ ? ["NFE: the solver's evaluations, in each of which guidance, where it is applied, asks the network twice"] : []),
    ...protocol.judges.map((judge, i) => judgeLine(judge, samples[0]?.distances[i])),
    ...warnings.map((warning) => `warning: ${warning}`),
  ];
}

/** @param classify as of modelLines */
export function encoderLines({ latent, mostRank, probes, protocol }: EncoderReport, classify: number | null): string[] {
  return [
    latentLine(latent, mostRank),
    ...(probes ? [probeLine(probes, classify)] : []),
    '',
    `no decoder, so no samples: ${protocol.weights === 'average' ? 'averaged' : 'raw'} weights, ${protocol.precision} on ${protocol.device}; latents of ${counted(protocol.latent.count, 'picture')} of ${protocol.latent.source}`,
  ];
}

const latentLine = ({ effectiveRank, deviation, spectrum }: LatentHealth, most: number): string =>
  `latent          effective rank ${effectiveRank.toFixed(1)} of ${most}, deviation ${figure(deviation)}; along its axes ${figure(spectrum[0] ?? 0)} to ${figure(spectrum[most - 1] ?? 0)}`;

/** How samples were drawn, as far as rows do not differ in it. */
export function protocolLine({ protocol, samples }: EvaluationReport): string {
  return `${count(protocol.samples)} samples a row: ${protocol.weights === 'average' ? 'averaged' : 'raw'} weights, ${shared(samples)}, labels ${protocol.labels}, seed ${protocol.seed}, ${protocol.precision} on ${protocol.device}`;
}

/** @param available pictures that there are, of which some may have been chosen */
export function pictureLines(report: PicturesReport, available: number): string[] {
  const { name, samples, protocol, warnings } = report;
  return [
    ...tables([{ name, distances: samples.distances, accuracy: samples.accuracy }], report, protocol).slice(1),
    ...neighbourLines(report),
    '',
    `${samples.count < available ? `${count(samples.count)} of ${counted(available, 'picture')}, evenly spread (--count takes more)` : counted(available, 'picture')} of ${name}, seed ${protocol.seed}, on ${protocol.device}`,
    ...protocol.judges.map((judge, i) => judgeLine(judge, samples.distances[i])),
    ...warnings.map((warning) => `warning: ${warning}`),
  ];
}

function probeLine({ nearest, linear, blind, protocol }: Probes, classify: number | null): string {
  const { train, heldOut, nearest: by } = protocol;
  return `encoder         classes of ${count(heldOut.count)} held-out pictures: ${share(linear)} by a linear probe, ${share(nearest)} by ${by.k} nearest of ${count(train.count)} training pictures, ${share(blind)} unseen${trainedOn(classify)}`;
}

/** Accuracies of an encoder that was taught classes are not those of one that found them by itself. */
function trainedOn(classify: number | null): string {
  if (classify === null) return '; whether it was trained on classes, the run does not say';
  return classify > 0 ? `; it was trained on classes (objective.weights.classify=${classify})` : '';
}

function neighbourLines({ neighbours }: JudgeReport): string[] {
  if (!neighbours) return [];
  const { extractor, searched, median } = neighbours;
  return [
    '',
    `nearest of ${count(searched.count)} training pictures${searched.count < searched.of ? ` (of ${count(searched.of)})` : ''} by ${extractor}: median distance ${figure(median.samples)} from samples, ${figure(median.heldOut)} from held-out pictures; much nearer would be copies`,
  ];
}

/** A table for each network, with a blank line before it. */
function tables(rows: readonly Row[], { floor, realAccuracy }: JudgeReport, { judges }: Protocol): string[] {
  return judges.flatMap(({ extractor }, i) => {
    const real = floor?.[i];
    const all: Row[] = [
      ...rows,
      ...(real ? [{ name: `real pictures (${count(real.count)})`, distances: floor ?? [], accuracy: realAccuracy }] : []),
    ];
    const found = all.map((row) => row.distances[i] as Distances);
    const has = (value: (of: Distances) => unknown): boolean => found.some((each) => value(each) !== undefined);
    const columns: [heading: string, value: (of: Distances, row: Row) => string][] = [
      ...(rows.some(({ nfe }) => nfe !== undefined)
        ? [['NFE', (_: Distances, { nfe }: Row) => (nfe === undefined ? '' : count(nfe))] as [string, (of: Distances, row: Row) => string]]
        : []),
      [found[0]?.name ?? '', (of) => figure(of.frechet)],
      ...optional(
        has((of) => of.spatialFrechet),
        `s${found[0]?.name}`,
        (of) => figure(of.spatialFrechet ?? Number.NaN),
      ),
      ...optional(
        has((of) => of.kid),
        extractor === 'inception-2015' ? 'KID x 1000' : 'kernel x 1000',
        (of) => figure((of.kid?.mean ?? Number.NaN) * 1000),
      ),
      ...optional(
        has((of) => of.precision),
        'precision',
        (of) => share(of.precision),
      ),
      ...optional(
        has((of) => of.recall),
        'recall',
        (of) => share(of.recall),
      ),
      ...optional(
        has((of) => of.inceptionScore),
        'IS',
        (of) => figure(of.inceptionScore?.mean ?? Number.NaN),
      ),
      ...(extractor === 'classifier'
        ? [['in the asked class', (_: Distances, row: Row) => share(row.accuracy)] as [string, (of: Distances, row: Row) => string]]
        : []),
    ];
    const lines = all.map((row, at) => [row.name, ...columns.map(([, value]) => value(found[at] as Distances, row))]);
    return [
      '',
      ...table(
        [[`by ${extractor}`, ...columns.map(([heading]) => heading)], ...lines],
        columns.map((_, at) => at + 1),
      ),
    ];
  });
}

function optional(is: boolean, heading: string, value: (of: Distances) => string): [string, (of: Distances) => string][] {
  return is ? [[heading, value]] : [];
}

/** @param scored of samples, if there are any */
function judgeLine({ distance, dimension, source, reference, floor }: JudgeProtocol, scored: Distances | undefined): string {
  const pictures = reference.count === null ? 'an unknown number of pictures' : counted(reference.count, 'picture');
  return `${distance}: ${count(dimension)} features, ${source}; against ${pictures} of ${reference.source}${floor ? `; real pictures of ${floor.source}` : ''}${scored?.inceptionScore ? `; ${splitsOf(scored.inceptionScore)}` : ''}`;
}

/** Pictures in a split of ADM's evaluator. */
const ADM_SPLIT = 5000;

function splitsOf({ splits }: InceptionScore): string {
  return `IS is the mean of ${splits} splits, shuffled; ADM's evaluator splits by ${count(ADM_SPLIT)} in the order given, so its figures differ`;
}

type Setting = SampleScores['sampler'];

/** What tells a row from others. */
function settingName({ sampler }: SampleScores, all: readonly SampleScores[]): string {
  const differs = (value: (of: Setting) => string): boolean => new Set(all.map((each) => value(each.sampler))).size > 1;
  return [
    `guidance ${sampler.guidance}`,
    ...(differs((of) => String(of.steps)) ? [counted(sampler.steps, 'step')] : []),
    ...(differs((of) => of.solver) ? [sampler.solver] : []),
    ...(differs((of) => of.interval.join()) ? [`on [${sampler.interval.join(', ')}]`] : []),
  ].join(', ');
}

/** What is the same in all rows. */
function shared(all: readonly SampleScores[]): string {
  const [first] = all;
  const same = (value: (of: Setting) => string): boolean => new Set(all.map((each) => value(each.sampler))).size === 1;
  if (!first) return 'no settings';
  const { solver, steps, interval } = first.sampler;
  return [
    ...(same((of) => of.solver) ? [solver] : []),
    ...(same((of) => String(of.steps)) ? [counted(steps, 'step')] : []),
    ...(same((of) => of.interval.join()) ? [`guidance on [${interval.join(', ')}]`] : []),
  ].join(', ');
}
