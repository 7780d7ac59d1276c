/** What the comparing studies plan: runs of one or more stages, each an ordinary run of `dsd train`, judged by one protocol. */
import { UsageError } from '../../core/errors.js';
import type { FeaturesName } from '../../eval/jury-input.js';
import { merge, type RunConfig, type RunSettings, resolveConfig } from '../../train/config.js';
import { dataName, type Named, type PlannedRun, type PresetText } from '../study.js';
import { stageFlops } from './budget.js';

/** One network's training. */
export interface Stage {
  /** 'dsd', or of two 'autoencoder' and 'denoiser'. */
  readonly name: string;
  readonly config: RunConfig;
}

/** How all runs of a study are judged. */
export interface Judging {
  /** The figures are by the last. */
  readonly features: readonly FeaturesName[];
  /** In a set. */
  readonly samples: number;
  /** The most held-out pictures in the reference. */
  readonly real: number;
  /** The most pictures of each part that an encoder is probed on. */
  readonly probed: number;
  /** Of the classifier's training, where it judges. */
  readonly classifierSteps: number;
  /** Of the noise of samples and of the classifier: the same in all runs. */
  readonly seed: number;
  /** Samples of a set that are kept, to be shown. */
  readonly shown: number;
}

/** All that a run's result depends on. */
export interface CompareSettings {
  readonly stages: readonly Stage[];
  readonly judging: Judging;
  /** Deviation that an untrained latent without a norm is brought to; 0: left as it was. */
  readonly scale: number;
}

export interface ComparePreset extends PresetText {
  readonly settings: RunSettings;
  readonly judging: Judging;
}

/** Makes configurations of a preset, the user's settings, a seed, and what is laid over them. */
export type Resolve = (...over: readonly RunSettings[]) => RunConfig;

export interface CompareCase extends Named {
  /** Not run unless it is named. */
  readonly extra?: true;
  readonly stages: (resolve: Resolve) => readonly Stage[];
}

export interface ComparePlan {
  readonly preset: Pick<ComparePreset, 'settings' | 'judging'>;
  readonly cases: readonly CompareCase[];
  readonly seeds: readonly number[];
  /** Laid over the preset's, under the cases' own. */
  readonly settings: readonly RunSettings[];
  readonly judging: Partial<Judging>;
  readonly scale: number;
}

/** All runs, seeds outermost: whoever stops early has whole comparisons. @throws UsageError for settings that do not fit */
export function planRuns({ preset, cases, seeds, settings, judging, scale }: ComparePlan): PlannedRun<CompareSettings>[] {
  return seeds.flatMap((seed) =>
    cases.map((each) => {
      const resolve: Resolve = (...over) => resolveConfig(preset.settings, ...settings, ...over, { train: { seed } });
      const stages = stagesOf(each, resolve, cases.length > 1);
      const pictures = (stages[0] as Stage).config.data;
      return {
        ...{ data: dataName(pictures), case: each.name, seed, pictures },
        settings: { stages, judging: { ...preset.judging, ...judging }, scale },
        cost: stages.reduce((sum, _, i) => sum + stageFlops(stages, i), 0),
      };
    }),
  );
}

/** @throws UsageError that names the case, for settings that fit the preset but not it */
function stagesOf(each: CompareCase, resolve: Resolve, others: boolean): readonly Stage[] {
  resolve();
  try {
    return each.stages(resolve);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const aside = others ? '; or leave the case out with --cases' : '';
    throw new UsageError(`case '${each.name}': ${error.message}${aside}`, { cause: error });
  }
}

/** What presets share: grids and weights at the end only, no checkpoint kept beside the newest. */
export const asStudied = (settings: RunSettings, over: RunSettings): RunSettings =>
  merge(
    merge(settings, {
      data: { broken: 'error' },
      checkpoint: { minutes: 5, keep: 1 },
      log: { save: 1_000_000_000 },
      sample: { rows: 4 },
    }),
    over,
  );
