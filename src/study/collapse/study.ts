/**
 * The collapse study: every case with every seed, each from its first values to the same number of pictures. Within a seed all cases begin with the
 * same weights and see the same pictures in the same order with the same draws.
 */
import { z } from 'zod';
import { modelConfig, type RunConfig, type RunSettings, resolveConfig } from '../../train/config.js';
import { stopIf } from '../runner.js';
import { dataName, type PlannedRun, type RunResult, type Study } from '../study.js';
import { blankError } from './blank.js';
import type { StudyCase } from './cases.js';
import type { CollapsePreset } from './presets.js';
import { type Curve, type Point, trainCase } from './train-case.js';

export interface CollapsePlan {
  readonly preset: Pick<CollapsePreset, 'data' | 'measured' | 'scale'>;
  readonly cases: readonly StudyCase[];
  readonly seeds: readonly number[];
  /** Laid over the preset's settings, under the cases' switches. */
  readonly settings: readonly RunSettings[];
  /** A LayerNorm on the latent in every case, not only in the last. */
  readonly norm: boolean;
}

export interface CollapseSettings {
  readonly config: RunConfig;
  readonly measured: number;
  /** Deviation that the untrained latent was brought to; 0: left as it was. */
  readonly scale: number;
}

export interface CollapseOutcome {
  /** L1 of the held-out pictures against the training pictures' median (blank.ts). */
  readonly blank: number;
  readonly curve: Curve;
}

export type CollapseResult = RunResult<CollapseSettings, CollapseOutcome>;

/** What is told of a run at work. */
export interface CollapseDetail {
  readonly images: number;
  readonly of: number;
  readonly last: Point;
}

const point = z.object({
  images: z.number(),
  effectiveRank: z.number(),
  deviation: z.number(),
  latentDeviation: z.number(),
  predictionRank: z.number(),
  l1: z.number(),
  denoise: z.number().exactOptional(),
});

const outcome = z.object({
  blank: z.number(),
  curve: z.object({
    points: z.array(point).min(1),
    diverged: z.string().exactOptional(),
    skipped: z.number(),
    seconds: z.number(),
  }),
});

/** All runs, seeds outermost: whoever stops early has whole comparisons. @throws UsageError for settings that do not fit */
function planRuns({ preset, cases, seeds, settings, norm }: CollapsePlan): PlannedRun<CollapseSettings>[] {
  const { measured, scale } = preset;
  return preset.data.flatMap((base) =>
    seeds.flatMap((seed) =>
      cases.map((each) => {
        const config = resolveConfig(base, ...settings, each.settings, { train: { seed } }, norm ? { model: { latentNorm: true } } : {});
        return {
          ...{ data: dataName(config.data), case: each.name, seed, settings: { config, measured, scale } },
          ...{ pictures: config.data, cost: config.train.images }, // a picture of any case costs about the same
        };
      }),
    ),
  );
}

/** @throws UsageError for settings that do not fit */
export function collapse(plan: CollapsePlan): Study<CollapseSettings, CollapseOutcome, CollapseDetail | undefined> {
  return {
    name: 'collapse',
    runs: planRuns(plan),
    outcome,
    open: async (data, first, { device, compute, signal }) => {
      const blank = await blankError(data.train, data.heldOut, first.settings.measured);
      return {
        compute: async ({ settings }, onProgress) => {
          const { config } = settings;
          const { channels, classes } = data.train;
          const model = modelConfig(config, { channels, classes: classes.length });
          const of = config.train.images;
          const told = (images: number, last: Point): void => onProgress(images / of, { images, of, last });
          stopIf(signal);
          return { blank, curve: await trainCase({ ...settings, model, data, device, compute, signal, onProgress: told }) };
        },
        close: () => {},
      };
    },
  };
}
