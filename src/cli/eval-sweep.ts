/** Sweeps of `dsd eval`: what is swept, and where its plots go. */
import { resolve } from 'node:path';
import { UsageError } from '../core/errors.js';
import type { EvaluationReport } from '../eval/evaluate.js';
import type { FeaturesName } from '../eval/jury-input.js';
import { toPng, toSvg } from '../eval/plot.js';
import type { Distances } from '../eval/reference.js';
import { type Axis, drawSweep, parseAxis, varied } from '../eval/sweep.js';
import { disk } from '../io/disk.js';
import { byNetwork } from './eval-input.js';
import { protocolLine } from './eval-report.js';
import { checkFile, checkPngName, freePath } from './output.js';

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

/**
 * Where the plots go, by network: PNG files that may be made, and so may the SVGs beside them.
 * @returns undefined where no plot is wanted @throws UsageError, also for a plot of no sweep; DiskError
 */
export function plotFiles(
  flags: {
    readonly plot: string | undefined;
    readonly neighbours: string | undefined;
    readonly sweep: readonly string[];
    readonly overwrite: boolean;
  },
  axes: readonly Axis[],
  features: readonly FeaturesName[],
): ReadonlyMap<FeaturesName, string> | undefined {
  const { plot, neighbours, sweep, overwrite } = flags;
  if (plot === undefined && sweep.length === 0) return undefined;
  if (plot !== undefined) checkPlot(plot, axes);
  const made = (path: string): string[] => [...byNetwork(path, features).values()].flatMap((png) => [png, svgOf(png)]);
  const theirs = neighbours === undefined ? undefined : resolve(neighbours);
  const isTheirs = (file: string): boolean => resolve(file) === theirs;
  const path = plot ?? freePath('sweep', '.png', (stem) => !made(stem).some((file) => disk.exists(file) || isTheirs(file)));
  for (const file of made(path)) {
    if (isTheirs(file))
      throw new UsageError(`'${file}' is named by --neighbours and is one of the files of --plot: choose another name for one of them`);
    checkFile(file, overwrite, '--plot');
  }
  return byNetwork(path, features);
}

function checkPlot(path: string, axes: readonly Axis[]): void {
  checkPngName(path, '--plot');
  if (varied(axes).length === 0)
    throw new UsageError(
      `--plot draws a sweep, and here nothing is swept: ${axes.map(({ name, values }) => `${name} is ${values.join()}`).join(', ')}. Add --sweep guidance=1,1.5,2, or leave --plot out`,
    );
}

const svgOf = (png: string): string => png.replace(/\.png$/i, '.svg');

/** Draws a sweep by each network. @returns the files written; none where nothing was swept */
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
