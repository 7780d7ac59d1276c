/** What a comparing study reports: what each case is and what came of it, every seed, the comparison it is made for, and the protocol. */
import type { Drawing } from '../../eval/plot.js';
import { type Report, type Standing, writeFiles } from '../files.js';
import type { Named } from '../study.js';
import { columns, minutes, type Spread, written } from '../table.js';
import type { CompareResult } from './outcome.js';
import { protocolLines } from './protocol.js';
import { drawSheet } from './sheet.js';
import { type CaseSummary, frechetAt, judgedBy, type Measure, measuresOf, PSNR, summarize } from './summary.js';
import { type Comparison, compareAll, RULE } from './verdict.js';

/** What is a study's own of its report. */
export interface Reporting {
  readonly study: string;
  readonly cases: readonly Named[];
  /** Cases that are compared, each with another. */
  readonly pairs: readonly (readonly [one: string, other: string])[];
  /** The case that budgets are in percent of. */
  readonly whole?: string;
  /** Draws the figure of one set of pictures. @param measures the distances that are compared, one a guidance scale */
  readonly draw: (results: readonly CompareResult[], summaries: readonly CaseSummary[], measures: readonly Measure[]) => Drawing;
  /** What a line says at the end of the comparisons, if anything. */
  readonly conclude?: (comparisons: readonly Comparison[]) => readonly string[];
}

const FLOOR =
  'Mean and standard deviation over seeds. rFD: of reconstructions, from the pictures that they are of. Precision and recall: by the features of the first distance. Floor: what training pictures score, which are not in the reference, at the same count where there are so many (the classifier was trained on them, so by its features some of it is overfitting); for the asked class what held-out pictures score; for k-NN and linear probe what one gets without looking.';

/** Writes the report of what is finished so far. */
export async function reportCompare(
  reporting: Reporting,
  out: string,
  results: readonly CompareResult[],
  standing: Standing,
): Promise<Report> {
  const drawings = new Map<string, Drawing>();
  const pictures = new Map<string, () => Promise<Uint8Array>>();
  const [table, summaries, comparisons]: [string[], CaseSummary[], Comparison[]] = [[], [], []];
  for (const data of new Set(results.map((result) => result.data))) {
    const own = results.filter((result) => result.data === data);
    const measures = measuresOf(own);
    const of = summarize(own, reporting.cases, measures);
    const shown = comparedIn(own);
    const found = compareAll(of, reporting.pairs, shown);
    if (shown.length > 0) {
      drawings.set(`figure-${data}`, reporting.draw(own, of, shown));
      pictures.set(`samples-${data}.png`, () => drawSheet(own, of, shown));
    }
    if (table.length > 0) table.push('');
    table.push(
      `## ${data}`,
      '',
      ...budgets(of, reporting.whole),
      '',
      ...outcomes(of, own, measures),
      '',
      FLOOR,
      '',
      ...eachRun(own, reporting.cases, measures),
    );
    table.push(
      '',
      ...found.map(({ words }) => `- ${words}`),
      ...(reporting.conclude?.(found) ?? []),
      ...notes(own),
      '',
      'Judged by:',
      ...protocolLines(own),
    );
    summaries.push(...of);
    comparisons.push(...found);
  }
  table.push('', ...RULE);
  const runs = results.map(({ drawn: _, ...result }) => result); // pictures are in the results' files
  const cases = reporting.cases.map(({ name, label, about }) => ({ name, label, about }));
  const document = { study: reporting.study, planned: standing.planned, rule: RULE, cases, comparisons, summaries, runs };
  const content = { drawings, pictures, table, document };
  return { summaries: [...summaries], rule: RULE, ...(await writeFiles(out, content, results.length, standing)) };
}

/** The Frechet distance that figures are by, one a guidance scale, then the PSNR. */
function comparedIn(results: readonly CompareResult[]): Measure[] {
  const { networks, guidances } = judgedBy(results);
  const [first] = networks;
  return first ? [...guidances.map((guidance) => frechetAt(first.extractor, first.distance, guidance)), PSNR] : [];
}

function budgets(summaries: readonly CaseSummary[], whole: string | undefined): string[] {
  const all = summaries.find(({ case: name }) => name === whole);
  const share = (value: number, of: number | undefined): string => (of === undefined ? '' : ` (${((100 * value) / of).toFixed(1)} %)`);
  const rows = summaries.map(({ label, stages, parameters, flops, sampleFlops, trained, judged, seeds }) => [
    label,
    stages.map((stage) => (stages.length > 1 ? `${stage.name} ${short(stage.parameters)}` : short(stage.parameters))).join(' + '),
    `${parameters.toLocaleString('en-GB')}${share(parameters, all?.parameters)}`,
    stages.map(({ images }) => images.toLocaleString('en-GB')).join(' + '),
    `${exponent(flops)}${share(flops, all?.flops)}`,
    sampleFlops === undefined ? '' : `${exponent(sampleFlops)}${share(sampleFlops, all?.sampleFlops)}`,
    `${seeds.length}`,
    minutes(trained.mean),
    minutes(judged.mean),
  ]);
  return columns(['case', 'networks', 'parameters', 'pictures', 'training FLOPs', 'FLOPs a sample', 'seeds', 'training', 'judging'], rows);
}

function outcomes(summaries: readonly CaseSummary[], results: readonly CompareResult[], measures: readonly Measure[]): string[] {
  const rows = summaries.map(({ label, measures: found }) => [label, ...measures.map((measure) => cell(found[measure.key], measure))]);
  const floor = measures.map((measure) => {
    const values = results.flatMap((result) => measure.floor(result) ?? []);
    return values.length === 0 ? '' : cell({ mean: values[0] as number }, measure);
  });
  return columns(['case', ...measures.map(({ title }) => title)], [...rows, ['floor', ...floor]]);
}

/** Nothing is hidden behind a mean: what each seed came to. */
function eachRun(results: readonly CompareResult[], cases: readonly Named[], measures: readonly Measure[]): string[] {
  const rows = cases.flatMap(({ name, label }) =>
    results
      .filter((result) => result.case === name)
      .map((result) => {
        const values = measures.map((measure) => {
          const value = measure.value(result);
          return cell(value === undefined ? undefined : { mean: value }, measure);
        });
        return [label, `${result.seed}`, ...values];
      }),
  );
  return columns(['each run', 'seed', ...measures.map(({ title }) => title)], rows);
}

function notes(results: readonly CompareResult[]): string[] {
  const name = ({ case: which, seed }: CompareResult): string => `${which}, seed ${seed}`;
  const judges = new Set(results.flatMap(({ drawing }) => (drawing?.protocol.classifier ? [drawing.protocol.classifier.digest] : [])));
  const several =
    judges.size > 1
      ? [
          '- Not all runs were judged by one classifier (its file was removed, or there was none yet): FD-classifier and the asked class compare among those of one only, see `classifier.digest` in study.json.',
        ]
      : [];
  const own = results.flatMap((result) => [
    ...(result.diverged === undefined ? [] : [`- ${name(result)}, diverged: ${result.diverged}.`]),
    ...result.trained.flatMap(({ name: stage, skipped }) =>
      skipped > 0 ? [`- ${name(result)}, ${stage}: ${skipped} steps were not applied, their gradient was not finite.`] : [],
    ),
  ]);
  return [...several, ...own];
}

function cell(value: Spread | undefined, { share }: Measure): string {
  if (value === undefined) return '';
  if (!share) return written(value);
  const { mean, deviation } = value;
  return `${(100 * mean).toFixed(1)}${deviation === undefined ? '' : ` ± ${(100 * deviation).toFixed(1)}`} %`;
}

const short = (count: number): string => (count >= 1e6 ? `${(count / 1e6).toFixed(2)}M` : `${(count / 1e3).toFixed(0)}k`);
const exponent = (flops: number): string => flops.toExponential(3).replace('e+', 'e');
