/** `dsd study paradigms` and `dsd study scaling` on the command line. */
import { UsageError } from '../core/errors.js';
import { drawCases, drawSizes } from '../study/compare/figure.js';
import type { CompareResult, Outcome } from '../study/compare/outcome.js';
import { PARADIGM_PRESETS, paradigmCases, SPLIT } from '../study/compare/paradigms.js';
import type { CompareCase, ComparePreset, CompareSettings, Judging } from '../study/compare/plan.js';
import { type Reporting, reportCompare } from '../study/compare/report.js';
import { fallsWithSize, SCALING_PRESETS, scalingCases } from '../study/compare/scaling.js';
import { type CompareDetail, compare } from '../study/compare/study.js';
import { measuresOf } from '../study/compare/summary.js';
import { findCases, findNamed } from '../study/named.js';
import { NOISE_SCALE } from '../study/scale.js';
import type { RunSettings } from '../train/config.js';
import { parseSetting } from '../train/config.js';
import { chooseFeatures } from './eval-input.js';
import { STAGES } from './eval-stages.js';
import { type PlanFlags, type Planned, planned, type StudyEntry, type View } from './study-entry.js';
import { count, decibels, duration, figure } from './text.js';

const FLAGS = ['features', 'count', 'real', 'classifier-steps'] as const;

export const paradigmsStudy: StudyEntry = {
  about:
    'DSD, label-free DSD, naive joint training, two-stage latent diffusion of the same parameters and training FLOPs, and self-distillation, on the same pictures and seeds, judged by the same jury',
  presets: PARADIGM_PRESETS,
  cases: paradigmCases(SPLIT).map(({ name, about }) => [name, about]),
  takes: ['scale', 'split', ...FLAGS],
  plan: (flags) => {
    const cases = paradigmCases(flags.split ?? SPLIT);
    return plan(flags, findNamed('preset', PARADIGM_PRESETS, flags.preset), cases, {
      study: 'paradigms',
      cases,
      pairs: [
        ['dsd', 'two-stage'],
        ['dsd', 'two-stage-deep'],
        ['dsd', 'naive'],
        ['dsd', 'label-free'],
      ],
      whole: 'dsd',
      draw: (...of) => drawCases('Paradigms side by side', ...of),
    });
  },
};

export const scalingStudy: StudyEntry = {
  about: 'three sizes of the same network for the same number of pictures: what size is worth',
  presets: SCALING_PRESETS,
  cases: scalingCases(SCALING_PRESETS.gpu).map(({ name, about }) => [name, `${about} in the preset gpu; in cpu smaller`]),
  takes: FLAGS,
  plan: (flags) => {
    const preset = findNamed('preset', SCALING_PRESETS, flags.preset);
    const cases = scalingCases(preset);
    return plan(flags, preset, cases, {
      study: 'scaling',
      cases,
      pairs: [
        ['medium', 'small'],
        ['large', 'medium'],
      ],
      draw: (...of) => drawSizes('What size is worth', ...of),
      conclude: fallsWithSize,
    });
  },
};

/** @throws UsageError */
function plan(flags: PlanFlags, preset: ComparePreset, all: readonly CompareCase[], reporting: Reporting): Planned {
  const { cases: wanted, data, seeds, set, scale = NOISE_SCALE } = flags;
  const cases = wanted === undefined ? all.filter(({ extra }) => !extra) : findCases(all, wanted.split(','));
  const laid = set.map((text) => parseSetting(text) as RunSettings);
  if (laid.some(({ objective }) => objective?.paradigm !== undefined))
    throw new UsageError('--set objective.paradigm: the paradigm is what cases are of; choose by --cases');
  const settings: RunSettings[] = [...(data === undefined ? [] : [{ data: { source: data } }]), ...laid];
  const study = compare(reporting.study, { preset, cases, seeds, settings, scale, judging: judgingOf(flags) });
  const source = study.runs[0]?.pictures.source ?? '';
  return planned({ study, cases, source }, viewOf(reporting));
}

/** @throws UsageError for networks that there are none of */
function judgingOf(flags: PlanFlags): Partial<Judging> {
  return {
    ...(flags.features === undefined
      ? {}
      : { features: chooseFeatures({ ...flags, inception: undefined }, { labelled: true, files: [] }) }),
    ...(flags.count === undefined ? {} : { samples: flags.count }),
    ...(flags.real === undefined ? {} : { real: flags.real }),
    ...(flags['classifier-steps'] === undefined ? {} : { classifierSteps: flags['classifier-steps'] }),
  };
}

const viewOf = (reporting: Reporting): View<CompareSettings, Outcome, CompareDetail> => ({
  live: (detail) =>
    detail.kind === 'training'
      ? [`${detail.stage} ${count(detail.images)}/${count(detail.of)}`, `loss ${figure(detail.loss)}`, `rank ${detail.rank.toFixed(1)}`]
      : [`${STAGES[detail.stage]} ${count(detail.done)}/${count(detail.of)}`],
  said,
  report: (...of) => reportCompare(reporting, ...of),
});

function said(result: CompareResult): string {
  const name = `${result.data} ${result.case}, seed ${result.seed}`;
  if (result.diverged !== undefined) return `${name}: diverged: ${result.diverged}`;
  const numbers = measuresOf([result]).flatMap(({ key, title, share, value }) => {
    const found = value(result);
    if (found === undefined) return [];
    if (key === 'psnr') return `PSNR ${decibels(found)}`;
    return `${title} ${share ? `${(100 * found).toFixed(1)} %` : figure(found)}`;
  });
  const seconds = result.trained.reduce((sum, stage) => sum + stage.seconds, 0);
  return `${name}: ${numbers.join(', ')}; ${duration(seconds)} of training, ${duration(result.judgedIn)} of judging`;
}
