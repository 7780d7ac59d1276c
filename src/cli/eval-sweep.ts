/** Sweeps of `dsd eval`: what is swept, and where its plots go. */
import { UsageError } from '../core/errors.js';
import type { EvaluationReport } from '../eval/evaluate.js';
import type { FeaturesName } from '../eval/jury.js';
import { toPng, toSvg } from '../eval/plot.js';
import type { Distances } from '../eval/reference.js';
import { type Axis, drawSweep, parseAxis } from '../eval/sweep.js';
import { disk } from '../io/disk.js';
import { byNetwork } from './eval-input.js';
import { protocolLine } from './eval-report.js';
import { checkFile, checkPng, freePath } from './output.js';

/** What --sweep and --guidance say. @param guidances those of a model, if nothing is said @throws UsageError */
export function axesOf(
  flags: {
    readonly sweep: readonly string[];
    readonly guidance: readonly number[] | undefined;
    readonly steps: number | undefined;
    readonly solver: string | undefined;
  },
  guidances: readonly number[],
): Axis[] {
  const axes = flags.sweep.map(parseAxis);
  for (const { name } of axes)
    if (name === 'guidance' || name === 'steps' || name === 'solver')
      if (flags[name] !== undefined) throw new UsageError(`${name} is given by --${name} and by --sweep: leave one out`);
  if (axes.some(({ name }) => name === 'guidance')) return axes;
  const swept = flags.guidance ?? (axes.length > 0 ? guidances.slice(-1) : guidances);
  return [{ name: 'guidance', values: [...new Set(swept)] }, ...axes];
}

/** Where the plots go, by network: PNG files that may be made, and so may the SVGs beside them. @throws UsageError, DiskError */
export function plotFiles(
  path: string | undefined,
  features: readonly FeaturesName[],
  overwrite: boolean,
): ReadonlyMap<FeaturesName, string> {
  const files = byNetwork(path ?? freePath('sweep', '.png'), features);
  for (const file of files.values()) {
    checkPng(file, overwrite);
    checkFile(svgOf(file), overwrite);
  }
  return files;
}

const svgOf = (png: string): string => png.replace(/\.png$/i, '.svg');

/** Draws a sweep by each network. @returns the files written; none where no number was swept */
export async function writePlots(
  files: ReadonlyMap<FeaturesName, string>,
  report: EvaluationReport,
  axes: readonly Axis[],
): Promise<string[]> {
  const written: string[] = [];
  for (const [i, { extractor }] of report.protocol.judges.entries()) {
    const path = files.get(extractor as FeaturesName);
    const points = report.samples.map(({ sampler, distances }) => ({ sampler, distances: distances[i] as Distances }));
    const drawing = path && drawSweep(points, axes, report.floor?.[i], [protocolLine(report)]);
    if (!drawing) continue;
    disk.writeFileAtomic(svgOf(path), toSvg(drawing));
    disk.writeFileAtomic(path, await toPng(drawing));
    written.push(path, svgOf(path));
  }
  return written;
}
