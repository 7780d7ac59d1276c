/** What the command `study` asks of each study: its help, its flags, its plan; and what all do while they compute. */
import { InterruptedError } from '../core/errors.js';

import type { Report, Standing } from '../study/files.js';
import { type RunnerOptions, runStudy, type StudyProgress } from '../study/runner.js';
import type { Named, PresetText, RunResult, Study, Workplace } from '../study/study.js';
import { TimeLeft } from '../study/time-left.js';
import type { Flags, Values } from './args.js';
import type { Progress } from './progress.js';
import { counted, duration } from './text.js';

/** Flags that not every study takes. */
export const OWN_FLAGS = {
  norm: { kind: 'switch', about: 'collapse: a LayerNorm on the latent in every case, not only in the last; into a folder of its own' },
  scale: {
    kind: 'number',
    value: 'S',
    min: 0,
    max: 1000,
    about:
      "collapse, paradigms: deviation that latents begin with; 1, the noise's, by default; 0: as the network's first values make it. In paradigms of latents without a norm",
  },
  split: {
    kind: 'number',
    value: 'S',
    min: 0.05,
    max: 0.95,
    about: "paradigms: the share of two-stage's training FLOPs that its autoencoder gets; 0.5 by default",
  },
  features: {
    kind: 'text',
    value: 'NAME,...',
    about:
      'paradigms, scaling: networks that judge samples, as of dsd eval; classifier,nsfwjs-mixed7 by default. The figures are by the last',
  },
  count: { kind: 'whole', value: 'N', min: 4, max: 1_000_000, about: "paradigms, scaling: samples in a set; the preset's by default" },
  real: { kind: 'whole', value: 'N', min: 4, max: 10_000_000, about: 'paradigms, scaling: the most held-out pictures in the reference' },
  'classifier-steps': { kind: 'whole', value: 'N', min: 1, max: 1_000_000, about: 'paradigms, scaling: training of the classifier' },
} as const satisfies Flags;
export type OwnFlag = keyof typeof OWN_FLAGS;

export interface StudyFlags extends Values<typeof OWN_FLAGS> {
  readonly cases: string | undefined;
  readonly data: string | undefined;
  readonly set: readonly string[];
}

export interface PlanFlags extends StudyFlags {
  readonly preset: string;
  readonly seeds: readonly number[];
}

export interface StudyEntry {
  /** What it does, as it goes on behind its name and a colon. */
  readonly about: string;
  readonly presets: Readonly<Record<string, PresetText>>;
  /** Names, and what each is. */
  readonly cases: readonly (readonly [name: string, about: string])[];
  readonly takes: readonly OwnFlag[];
  /** @throws UsageError */
  readonly plan: (flags: PlanFlags) => Planned;
}

/** A study that could begin. */
export interface Planned {
  readonly cases: number;
  readonly runs: number;
  /** What its pictures are called, for advice on broken ones. */
  readonly source: string;
  /** @param kept told how many runs are finished */
  readonly compute: (work: Workplace, progress: Progress, kept: (finished: number) => void) => Promise<Report>;
}

/** How a study's runs are spoken of. */
export interface View<S, O, D> {
  /** Parts of the live line, behind the run's name. */
  readonly live: (detail: D) => readonly string[];
  /** Of a finished run, in a line. */
  readonly said: (result: RunResult<S, O>) => string;
  readonly report: (out: string, results: readonly RunResult<S, O>[], standing: Standing) => Promise<Report>;
}

export function planned<S extends object, O extends object, D>(
  { study, cases, source }: { readonly study: Study<S, O, D>; readonly cases: readonly Named[]; readonly source: string },
  view: View<S, O, D>,
): Planned {
  const { runs } = study;
  return {
    ...{ cases: cases.length, runs: runs.length, source },
    compute: async (work, progress, kept) => {
      let latest: readonly RunResult<S, O>[] = [];
      const report = (interim: boolean): Promise<Report> => view.report(work.out, latest, { planned: runs.length, interim });
      const options: RunnerOptions<S, O, D> = {
        ...work,
        onFound: (finished) => {
          latest = finished;
          kept(finished.length);
          if (finished.length > 0) progress.note(`found    ${counted(finished.length, 'run')} finished before`);
        },
        onData: (data) => progress.update(`opening ${data}`),
        onProgress: liveLine(progress, view.live),
        onResult: async (result, finished) => {
          latest = finished;
          kept(finished.length);
          progress.note(view.said(result));
          await report(true);
        },
      };
      try {
        latest = await runStudy(study, options);
      } catch (error) {
        // Whoever stops early sees what there is.
        if (error instanceof InterruptedError && latest.length > 0) await report(false);
        throw error;
      }
      return report(false);
    },
  };
}

/** The live line, with the time left. */
function liveLine<D>(progress: Progress, live: (detail: D) => readonly string[]): (at: StudyProgress<D>) => void {
  const timeLeft = new TimeLeft();
  return ({ run, share, detail, done, of, spent, left }) => {
    const [what = '', ...more] = live(detail);
    const name = `run ${done + 1}/${of} ${run.case}, seed ${run.seed}: ${what}`;
    if (share === undefined) return progress.update(name, ...more);
    const seconds = timeLeft.at({ share, done, of, spent, left }, performance.now());
    progress.update(name, `ETA ${duration(seconds)}`, ...more);
  };
}
