/** What the collapse study reports: a table, a figure for each set of pictures, all numbers. */
import type { Drawing } from '../../eval/plot.js';
import { type Report, type Standing, writeFiles } from '../files.js';
import { columns, minutes, written } from '../table.js';
import { CASES } from './cases.js';
import { drawFigure } from './figure.js';
import type { CollapseResult } from './study.js';
import { agreement, type CaseSummary, summarize, verdictOf } from './summary.js';
import { ending, ruleInWords, THRESHOLDS, VERDICTS } from './verdict.js';

/** Writes the report of what is finished so far. */
export async function reportCollapse(out: string, results: readonly CollapseResult[], standing: Standing): Promise<Report> {
  const summaries = summarize(results);
  const names = [...new Set(results.map(({ data }) => data))];
  const drawings = new Map<string, Drawing>();
  const tables = names.flatMap((name, i) => {
    const own = results.filter(({ data }) => data === name);
    const of = summaries.filter(({ data }) => data === name);
    drawings.set(`figure-${name}`, drawFigure(own, of, [about(own)]));
    return [...(i > 0 ? [''] : []), about(own), '', ...markdown(of), ...notes(own, of), '', ...eachRun(own)];
  });
  const runs = results.map((result) => ({ ...result, verdict: verdictOf(result) }));
  const cases = CASES.map(({ name, label, about: what }) => ({ name, label, about: what }));
  const rule = ruleInWords();
  const document = {
    study: 'collapse',
    planned: standing.planned,
    rule,
    thresholds: THRESHOLDS,
    verdicts: VERDICTS,
    cases,
    summaries,
    runs,
  };
  const { table, files } = await writeFiles(out, { drawings, table: [...tables, '', ...rule], document }, results.length, standing);
  return { summaries, rule, table, files };
}

/** What the runs of one set of pictures have in common, in a line. */
function about(results: readonly CollapseResult[]): string {
  const [{ data, config, machine, blank }] = results as readonly [CollapseResult];
  const { model, train } = config;
  return [
    `${data}: ${model.width} wide, ${model.depth} blocks, ${(config.data.image / model.patch) ** 2} tokens of ${model.latent} channels`,
    `${train.images.toLocaleString('en-GB')} pictures in batches of ${train.batch}, ${train.optimizer === 'adamw' ? 'AdamW' : 'Muon'} ${train.learningRate}, ${machine.compute}`,
    ...(results.length > 1 && results.every((result) => result.config.model.latentNorm) ? ['latent norm in every case'] : []),
    `raw weights; L1 of a blank ${blank.toFixed(3)}`,
  ].join('; ');
}

function markdown(summaries: readonly CaseSummary[]): string[] {
  const rows = summaries.map((row) => [
    row.label,
    agreement(row.verdicts),
    written(row.effectiveRank),
    written(row.predictionRank),
    written(row.latentDeviation),
    written(row.growth),
    written(row.l1),
    minutes(row.seconds.mean),
  ]);
  const head = ['case', 'verdict', 'effective rank', 'of the prediction', 'deviation', 'its growth', 'L1', 'time'];
  return columns(head, rows);
}

/** Nothing is hidden behind a mean: what each seed came to. */
function eachRun(results: readonly CollapseResult[]): string[] {
  const rows = CASES.flatMap(({ name, label }) =>
    results
      .filter((result) => result.case === name)
      .map((result) => {
        const { effectiveRank, predictionRank, latentDeviation, growth, l1 } = ending(result.curve.points);
        const numbers = [effectiveRank, predictionRank, latentDeviation, growth, l1].map((mean) => written({ mean }));
        return [label, `${result.seed}`, verdictOf(result), ...numbers];
      }),
  );
  return columns(['each run', 'seed', 'verdict', 'effective rank', 'of the prediction', 'deviation', 'its growth', 'L1'], rows);
}

function notes(results: readonly CollapseResult[], summaries: readonly CaseSummary[]): string[] {
  const disagree = summaries.filter(({ verdicts }) => new Set(verdicts).size > 1);
  const diverged = results.filter(({ curve }) => curve.diverged !== undefined);
  const skipped = results.filter(({ curve }) => curve.skipped > 0);
  const seeds = new Set(results.map(({ seed }) => seed)).size;
  return [
    '',
    `${seeds === 1 ? 'One seed' : `${seeds} seeds: mean and standard deviation`}. Medians over the last quarter of each run; growth: the deviation at the end over that at half of the run.`,
    ...disagree.map(
      ({ label, seeds: of, verdicts }) => `Seeds disagree on "${label}": ${of.map((seed, i) => `seed ${seed} ${verdicts[i]}`).join(', ')}.`,
    ),
    ...diverged.map(({ case: name, seed, curve }) => `${name}, seed ${seed}, diverged: ${curve.diverged}.`),
    ...skipped.map(
      ({ case: name, seed, curve }) => `${name}, seed ${seed}: ${curve.skipped} steps were not applied, their gradient was not finite.`,
    ),
  ];
}
