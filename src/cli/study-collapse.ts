/** `dsd study collapse` on the command line. */
import { CASES } from '../study/collapse/cases.js';
import { COLLAPSE_PRESETS } from '../study/collapse/presets.js';
import { reportCollapse } from '../study/collapse/report.js';
import { type CollapseResult, collapse } from '../study/collapse/study.js';
import { summarize, verdictOf } from '../study/collapse/summary.js';
import { findCases, findNamed } from '../study/named.js';
import { parseSetting } from '../train/config.js';
import { planned, type StudyEntry } from './study-entry.js';
import { count, duration, figure } from './text.js';

export const collapseStudy: StudyEntry = {
  about:
    'trains the same small network from naive joint training to the cured one, one change at a time, with several seeds, and records effective rank, scale and reconstruction of the latent, with a verdict on each run',
  presets: COLLAPSE_PRESETS,
  cases: CASES.map(({ name, about }) => [name, about]),
  takes: ['norm', 'scale'],
  plan: ({ preset: name, cases: wanted, data, seeds, scale, norm, set }) => {
    const found = findNamed('preset', COLLAPSE_PRESETS, name);
    const cases = wanted === undefined ? CASES : findCases(CASES, wanted.split(','));
    const preset = {
      ...found,
      // With pictures of the user's own there is one set of them.
      ...(data === undefined ? {} : { data: found.data.slice(0, 1) }),
      ...(scale === undefined ? {} : { scale }),
    };
    const settings = [...(data === undefined ? [] : [{ data: { source: data } }]), ...set.map(parseSetting)];
    const study = collapse({ preset, cases, seeds, norm, settings });
    return planned(
      { study, cases, source: data ?? 'openmoji' },
      {
        live: (detail) =>
          detail
            ? [
                `${count(detail.images)}/${count(detail.of)}`,
                `rank ${detail.last.effectiveRank.toFixed(1)}`,
                `deviation ${figure(detail.last.latentDeviation)}`,
                `L1 ${figure(detail.last.l1)}`,
              ]
            : [],
        said,
        report: reportCollapse,
      },
    );
  },
};

function said(result: CollapseResult): string {
  const [row] = summarize([result]);
  const { curve, config } = result;
  const numbers = row
    ? `rank ${row.effectiveRank.mean.toFixed(1)} of ${config.model.latent}, deviation ${figure(row.latentDeviation.mean)}, L1 ${figure(row.l1.mean)}`
    : '';
  return `${result.data} ${result.case}, seed ${result.seed}: ${verdictOf(result)}; ${numbers}; ${duration(curve.seconds)}`;
}
