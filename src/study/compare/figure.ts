/** Figures of the comparing studies: every seed a dot. */
import { type Drawing, layOut, type Panel, type Series } from '../../eval/plot.js';
import type { CompareResult } from './outcome.js';
import type { CaseSummary, Measure } from './summary.js';

/** Okabe and Ito's, which the colour-blind can tell apart. */
const COLOURS = ['#0072b2', '#56b4e9', '#d55e00', '#e69f00', '#009e73', '#cc79a7'];
/** Values this many times apart are read on a logarithmic axis only. */
const WIDE = 10;
/** Half of a mean's line, and the distance of two seeds, in places of the axis. */
const [HALF, APART] = [0.28, 0.12];

const scaleOf = ({ unit }: Measure, values: readonly number[]): Panel['scale'] => {
  if (unit !== undefined) return 'interval';
  const above = values.filter((value) => value > 0);
  return above.length === values.length && Math.max(...above) > WIDE * Math.min(...above) ? 'log' : 'linear';
};

/** What real pictures score, where the runs agree on it. */
function floorOf(results: readonly CompareResult[], { floor }: Measure): number | undefined {
  return results.flatMap((result) => floor(result) ?? [])[0];
}

/** Cases beside each other, a panel for each measure; a dot a seed, a line at their mean. */
export function drawCases(
  title: string,
  results: readonly CompareResult[],
  summaries: readonly CaseSummary[],
  measures: readonly Measure[],
): Drawing {
  const shown = summaries.filter(({ measures: found }) => measures.some(({ key }) => found[key]));
  const panels = measures.map((measure): Panel => {
    const found = shown.flatMap((summary) => summary.measures[measure.key]?.values ?? []);
    const mark = floorOf(results, measure);
    const scale = scaleOf(measure, [...found, ...(mark === undefined ? [] : [mark])]);
    const series = shown.flatMap((summary, i): Series[] => {
      const of = summary.measures[measure.key];
      if (!of) return [];
      const colour = COLOURS[i % COLOURS.length] as string;
      const place = (seed: number): number => i + (seed - (of.values.length - 1) / 2) * APART;
      return [
        { label: summary.case, colour, dots: true, lines: of.values.map((value, seed) => [[place(seed), value] as const]) },
        {
          label: `${summary.case} mean`,
          colour,
          lines: [
            [
              [i - HALF, of.mean],
              [i + HALF, of.mean],
            ],
          ],
        },
      ];
    });
    return { title: measure.title, scale, series, ...(mark === undefined ? {} : { mark: { y: mark, label: 'real pictures' } }) };
  });
  return layOut({
    ...{ title, subtitles: ['A dot a seed, a line at their mean', about(results)], xLabel: '', panels, legend: [] },
    x: shown.map(({ case: name }) => name),
  });
}

/** Measures against the number of parameters; a thin line a seed, a thick one their mean. */
export function drawSizes(
  title: string,
  results: readonly CompareResult[],
  summaries: readonly CaseSummary[],
  measures: readonly Measure[],
): Drawing {
  const panels = measures.map((measure, i): Panel => {
    const seeds = [...new Set(results.map(({ seed }) => seed))];
    const lines = seeds.map((seed) =>
      summaries.flatMap(({ parameters, measures: found }) => {
        const of = found[measure.key];
        const value = of?.values[of.seeds.indexOf(seed)];
        return value === undefined ? [] : [[parameters / 1e6, value] as const];
      }),
    );
    const mark = floorOf(results, measure);
    const scale = scaleOf(measure, [...lines.flat().map(([, y]) => y), ...(mark === undefined ? [] : [mark])]);
    const series = [{ label: measure.key, colour: COLOURS[i % COLOURS.length] as string, dots: true, lines }];
    return { title: measure.title, scale, series, ...(mark === undefined ? {} : { mark: { y: mark, label: 'real pictures' } }) };
  });
  const subtitles = ['A dot a size and seed; thick: the mean of seeds', about(results)];
  return layOut({ title, subtitles, xLabel: 'parameters, millions', x: 'log', panels, legend: [] });
}

/** What the runs of one set of pictures have in common, in a line. */
function about(results: readonly CompareResult[]): string {
  const [{ data, drawing, machine }] = results as readonly [CompareResult];
  const count = results.map((result) => result.drawing?.protocol.samples).find((samples) => samples !== undefined);
  return [
    data,
    `${(count ?? 0).toLocaleString('en-GB')} samples a set`,
    ...(drawing ? [`${drawing.protocol.weights === 'average' ? 'averaged' : 'raw'} weights`] : []),
    machine.compute,
  ].join('; ');
}
