/** The study's figure: effective rank, reconstruction and scale of the latent against pictures seen, a colour for each case. */

import { type Drawing, layOut, type Panel, type Series } from '../../eval/plot.js';
import { CASES } from './cases.js';
import type { CollapseResult } from './study.js';
import { agreement, type CaseSummary } from './summary.js';
import type { Point } from './train-case.js';

/** By case: the control grey, what should collapse in warm colours, what should not in cold ones; Okabe and Ito's, which the colour-blind can tell apart. */
const COLOURS: Readonly<Record<string, string>> = {
  autoencoder: '#888888',
  naive: '#d55e00',
  'velocity-sg': '#e69f00',
  clean: '#cc79a7',
  'clean-sg': '#7a4a1e',
  ema: '#56b4e9',
  mask: '#0072b2',
  norm: '#009e73',
};

/** @param results of one set of pictures, at least one @param summaries of the same */
export function drawFigure(results: readonly CollapseResult[], summaries: readonly CaseSummary[], subtitles: readonly string[]): Drawing {
  const shown = CASES.filter(({ name }) => results.some((result) => result.case === name));
  const series = (value: (point: Point) => number): Series[] =>
    shown.map(({ name }) => ({
      label: name,
      colour: COLOURS[name] ?? '#000000',
      dashed: name === 'autoencoder',
      lines: results
        .filter((result) => result.case === name)
        .map(({ curve }) => curve.points.map((point) => [point.images / 1000, value(point)] as const)),
    }));
  const { blank, config } = results[0]!;
  const C = config.model.latent;
  const panel = (title: string, scale: Panel['scale'], value: (point: Point) => number, mark?: Panel['mark']): Panel => ({
    ...{ title, scale, series: series(value) },
    ...(mark ? { mark } : {}),
  });
  const seeds = new Set(results.map(({ seed }) => seed)).size;
  return layOut({
    title: 'Does the latent collapse? One change at a time',
    subtitles: [
      ...subtitles,
      ...(seeds > 1 ? [`Thin lines: ${seeds} seeds; thick: their mean (geometric where the axis is logarithmic)`] : []),
    ],
    xLabel: 'pictures seen, thousands',
    panels: [
      panel('Effective rank of the latent (high is healthy)', 'linear', (p) => p.effectiveRank, { y: C, label: `at most ${C}` }),
      panel('Reconstruction error, L1 (falling is healthy)', 'log', (p) => p.l1, { y: blank, label: 'a blank' }),
      panel('Standard deviation of the latent', 'log', (p) => p.latentDeviation, { y: 1, label: 'the noise' }),
    ],
    legend: shown.map(({ name, label }) => {
      const found = summaries.find((summary) => summary.case === name);
      return {
        ...{ colour: COLOURS[name] ?? '#000000', dashed: name === 'autoencoder' },
        text: found ? `${label}: ${agreement(found.verdicts)}` : label,
      };
    }),
  });
}
