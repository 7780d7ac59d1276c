/** What a study leaves beside its results: study.json, table.md, and a figure for each set of pictures. */
import { join } from 'node:path';
import { toPng, toSvg } from '../eval/plot.js';
import { disk } from '../io/disk.js';
import { CASES } from './cases.js';
import { drawFigure } from './figure.js';
import type { RunResult } from './store.js';
import { agreement, type CaseSummary, type Spread, summarize, verdictOf } from './summary.js';
import { ending, ruleInWords, THRESHOLDS, VERDICTS } from './verdict.js';

export interface Report {
  readonly summaries: readonly CaseSummary[];
  /** Lines of a table in Markdown with what belongs to it. */
  readonly table: readonly string[];
  /** Files written, in the study's folder. */
  readonly files: readonly string[];
}

/**
 * Writes the report of what is finished so far, each file whole or as it was.
 * @param planned runs of the whole plan, to say what is missing
 */
export async function writeReport(out: string, results: readonly RunResult[], planned: number): Promise<Report> {
  const summaries = summarize(results);
  const names = [...new Set(results.map(({ data }) => data))];
  const files: string[] = [];
  const write = (name: string, content: string | Uint8Array): void => {
    disk.writeFileAtomic(join(out, name), content);
    files.push(name);
  };
  for (const name of names) {
    const own = results.filter(({ data }) => data === name);
    const drawing = drawFigure(
      own,
      summaries.filter(({ data }) => data === name),
      [about(own)],
    );
    write(`figure-${name}.svg`, toSvg(drawing));
    write(`figure-${name}.png`, await toPng(drawing));
  }
  const table = names.flatMap((name, i) => {
    const own = results.filter(({ data }) => data === name);
    const of = summaries.filter(({ data }) => data === name);
    return [...(i > 0 ? [''] : []), about(own), '', ...markdown(of), ...notes(own, of), '', ...eachRun(own)];
  });
  const missing =
    planned > results.length ? ['', `Not finished: ${planned - results.length} of ${planned} runs are still to be computed.`] : [];
  const lines = [...table, '', ...ruleInWords(), ...missing];
  write('table.md', `${lines.join('\n')}\n`);
  const runs = results.map((result) => ({ ...result, verdict: verdictOf(result) }));
  const cases = CASES.map(({ name, label, about: what }) => ({ name, label, about: what }));
  const document = { study: 'collapse', planned, rule: ruleInWords(), thresholds: THRESHOLDS, verdicts: VERDICTS, cases, summaries, runs };
  write('study.json', `${JSON.stringify(document, null, 1)}\n`);
  return { summaries, table: lines, files };
}

/** What the runs of one set of pictures have in common, in a line. */
function about(results: readonly RunResult[]): string {
  const [{ data, config, machine, blank }] = results as readonly [RunResult];
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
    duration(row.seconds.mean),
  ]);
  const head = ['case', 'verdict', 'effective rank', 'of the prediction', 'deviation', 'its growth', 'L1', 'time'];
  return columns(head, rows);
}

/** Nothing is hidden behind a mean: what each seed came to. */
function eachRun(results: readonly RunResult[]): string[] {
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

/** A table in Markdown, its columns flush. */
function columns(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`;
  return [line(head), `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`, ...rows.map(line)];
}

function notes(results: readonly RunResult[], summaries: readonly CaseSummary[]): string[] {
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

function written({ mean, deviation }: Spread): string {
  if (!Number.isFinite(mean)) return '-';
  const size = Math.abs(mean);
  const digits = size >= 99.5 ? 0 : size >= 9.95 ? 1 : size >= 0.995 ? 2 : size >= 0.00995 ? 3 : 4;
  return deviation === undefined ? mean.toFixed(digits) : `${mean.toFixed(digits)} ± ${deviation.toFixed(digits)}`;
}

const duration = (seconds: number): string => `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, '0')}`;
