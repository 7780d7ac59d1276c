/** Sweeps: one set of samples for every combination of settings, and what can be seen in them. */
import { nearest, UsageError } from '../core/errors.js';
import { evaluations, type SamplerOptions } from '../dsd/sampler.js';
import { type Drawing, layOut, type Panel, type Series } from './plot.js';
import type { Distances } from './reference.js';

/** Settings that can be swept; start and end are those of the interval in which guidance is applied. */
export const SWEPT = ['guidance', 'steps', 'solver', 'start', 'end'] as const;
export type Swept = (typeof SWEPT)[number];

/** A setting and its values, in the order given. */
export interface Axis {
  readonly name: Swept;
  readonly values: readonly (number | SamplerOptions['solver'])[];
}

/** Reads 'guidance=1,1.5,2'. @throws UsageError for another setting or value, or one that comes twice */
export function parseAxis(text: string): Axis {
  const [, word = '', list = ''] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
  const name = SWEPT.find((known) => known === word);
  if (!name) {
    const guess = nearest(word || text, SWEPT);
    throw new UsageError(
      `a sweep is one of ${SWEPT.join(', ')} and its values: guidance=1,1.5,2; found '${text}'${guess && guess !== text ? `: did you mean '${guess}'?` : ''}`,
    );
  }
  const values = list.split(',').map((value) => readValue(name, value));
  if (new Set(values).size < values.length) throw new UsageError(`the sweep of ${name} has a value twice: ${list}`);
  return { name, values };
}

function readValue(name: Swept, text: string): number | SamplerOptions['solver'] {
  if (name === 'solver') {
    if (text === 'heun' || text === 'euler') return text;
    throw new UsageError(`a solver is heun or euler; found '${text}'`);
  }
  const value = /^\d*\.?\d+(e[-+]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  const fits = name === 'steps' ? Number.isSafeInteger(value) && value >= 1 : name === 'guidance' ? value >= 0 : value >= 0 && value <= 1;
  if (fits) return value;
  throw new UsageError(
    `a sweep of ${name} wants ${{ steps: 'whole numbers from 1', guidance: 'numbers from 0', start: 'times from 0 to 1', end: 'times from 0 to 1' }[name]}; found '${text}'`,
  );
}

/** Every combination, the last axis turning fastest, over the settings that are not swept. @throws UsageError for an axis that comes twice */
export function combinations(base: SamplerOptions, axes: readonly Axis[]): SamplerOptions[] {
  const names = axes.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice) throw new UsageError(`${twice} is swept twice`);
  return axes.reduce<SamplerOptions[]>((all, axis) => all.flatMap((one) => axis.values.map((value) => at(one, axis.name, value))), [base]);
}

function at(options: SamplerOptions, name: Swept, value: Axis['values'][number]): SamplerOptions {
  const [start, end] = options.interval;
  if (name === 'start') return { ...options, interval: [value as number, end] };
  if (name === 'end') return { ...options, interval: [start, value as number] };
  return { ...options, [name]: value };
}

/** A setting's value in some options. */
export function settingOf({ interval, ...options }: SamplerOptions, name: Swept): Axis['values'][number] {
  return name === 'start' ? interval[0] : name === 'end' ? interval[1] : options[name];
}

/** What was measured with some settings, by one network. */
export interface SweepPoint {
  readonly sampler: SamplerOptions;
  readonly distances: Distances;
}

/** The axes of several values: without one there is nothing to plot. */
export const varied = (axes: readonly Axis[]): Axis[] => axes.filter(({ values }) => values.length > 1);

/** Okabe and Ito's, which the colour-blind can tell apart; used again from the start where there are more lines. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7a4a1e', '#888888'];

/** Distances this many times apart are read on a logarithmic axis only. */
const WIDE = 10;

/**
 * Frechet distance, precision and recall against the swept number with the most values; a line for each combination of the others. Solvers are put side by
 * side by what they cost: Heun asks the network about twice a step, so instead of steps there is NFE. What real pictures score is a line of dots.
 * @param points of all combinations @returns undefined where nothing is swept
 */
export function drawSweep(
  points: readonly SweepPoint[],
  axes: readonly Axis[],
  floor: Distances | undefined,
  subtitles: readonly string[],
): Drawing | undefined {
  const swept = varied(axes);
  const [first] = points;
  if (swept.length === 0 || !first) return undefined;
  const [numbers, solvers] = [swept.filter(({ name }) => name !== 'solver'), swept.some(({ name }) => name === 'solver')];
  const [most] = numbers.toSorted((a, b) => b.values.length - a.values.length);
  const across = solvers && numbers.some(({ name }) => name === 'steps') ? undefined : most; // undefined: NFE
  const others = swept.filter((axis) => axis !== across && (across || axis.name !== 'steps'));
  const along = (sampler: SamplerOptions): number => (across ? Number(settingOf(sampler, across.name)) : evaluations(sampler));
  const labelOf = ({ sampler }: SweepPoint): string =>
    [
      ...others.map(({ name }) => `${name} ${settingOf(sampler, name)}`),
      ...(solvers && across ? [`NFE ${evaluations(sampler)}`] : []),
    ].join(', ') || 'samples';
  const labels = [...new Set(points.map(labelOf))];
  const colour = (label: string): string => COLOURS[labels.indexOf(label) % COLOURS.length] as string;
  const dashed = (label: string): boolean => labels.indexOf(label) >= COLOURS.length;
  const series = (value: (of: Distances) => number | undefined): Series[] =>
    labels.map((label) => ({
      ...{ label, colour: colour(label), dashed: dashed(label), dots: true },
      lines: [
        points
          .filter((point) => labelOf(point) === label)
          .map(({ sampler, distances }) => [along(sampler), value(distances) ?? Number.NaN] as const)
          .sort(([a], [b]) => a - b),
      ],
    }));
  const panel = (title: string, value: (of: Distances) => number | undefined, scale: Panel['scale']): Panel[] => {
    if (points.every(({ distances }) => value(distances) === undefined)) return [];
    const real = floor && value(floor);
    return [
      {
        title,
        scale,
        series: series(value),
        ...(real === undefined || (scale === 'log' && real <= 0)
          ? {}
          : { mark: { y: real, label: 'real pictures', side: 'left' as const } }),
      },
    ];
  };
  const all = [...points.map(({ distances }) => distances.frechet), ...(floor ? [floor.frechet] : [])];
  const wide = Math.max(...all) > WIDE * Math.min(...all);
  return layOut({
    title: `${first.distances.name} by ${across?.name ?? 'NFE'}`,
    subtitles,
    xLabel: labelOfAxis(across?.name),
    panels: [
      ...panel(first.distances.name, (of) => of.frechet, wide ? 'log' : 'linear'),
      ...panel('Precision', (of) => of.precision, 'linear'),
      ...panel('Recall', (of) => of.recall, 'linear'),
    ],
    legend: others.length === 0 ? [] : labels.map((label) => ({ colour: colour(label), dashed: dashed(label), text: label })),
  });
}

function labelOfAxis(name: Swept | undefined): string {
  if (name === undefined) return "NFE: the solver's evaluations";
  return name === 'start' || name === 'end' ? `${name} of the guidance interval` : name;
}
