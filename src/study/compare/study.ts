/** A study that compares: each run is trained in one or more stages and judged, all by the same jury. */
import { basename, join } from 'node:path';
import { DivergedError } from '../../core/errors.js';
import type { DataSet } from '../../data/source.js';
import { countParameters } from '../../dsd/sizes.js';
import { evaluateEncoder } from '../../eval/encoder.js';
import { type Stage as EvaluationStage, evaluateBy } from '../../eval/evaluate.js';
import { Jury } from '../../eval/jury.js';
import type { RunConfig } from '../../train/config.js';
import { samplerOptions } from '../../train/config.js';
import { decodes, loadModel, WEIGHTS_FILE } from '../../train/weights.js';
import { stopIf } from '../runner.js';
import type { Bench, PlannedRun, Study, Workplace } from '../study.js';
import { stageFlops, trainedImages } from './budget.js';
import { type Outcome, outcome } from './outcome.js';
import { type ComparePlan, type CompareSettings, planRuns } from './plan.js';
import { Shown } from './shown.js';
import { shapesOf, trainedIn, trainStage } from './train-stage.js';

/** What is told of a run at work. */
export type CompareDetail =
  | {
      readonly kind: 'training';
      readonly stage: string;
      readonly images: number;
      readonly of: number;
      readonly loss: number;
      readonly rank: number;
    }
  | { readonly kind: 'judging'; readonly stage: EvaluationStage | 'latents'; readonly done: number; readonly of: number };

/** The folder of training runs in a study's. */
export const RUNS = 'runs';
/** Pictures in a pass of an evaluation: on a GPU so many that it is not kept waiting for calls. */
const BATCH = { cpu: 128, gpu: 1000 };

/** @throws UsageError for settings that do not fit */
export function compare(name: string, plan: ComparePlan): Study<CompareSettings, Outcome, CompareDetail> {
  const runs = planRuns(plan);
  return {
    ...{ name, runs, outcome },
    open: async (data, first, work) => {
      const comparison = new Comparison(data, work);
      const drawing = runs.find((run) => run.data === first.data && run.settings.stages.every(({ config }) => decodes(config)));
      if (drawing) await comparison.check(drawing);
      return comparison;
    },
  };
}

type Run = PlannedRun<CompareSettings>;
type Told = (share: number, detail: CompareDetail) => void;

class Comparison implements Bench<CompareSettings, Outcome, CompareDetail> {
  private jury: Jury | undefined;
  /** Of the run in hand. */
  private told: Told = () => {};

  constructor(
    private readonly data: DataSet,
    private readonly work: Workplace,
  ) {}

  /** What would be found out only when a first run has been trained. @throws UsageError, FailureError */
  async check(run: Run): Promise<void> {
    await Jury.check(this.juryInput(run));
  }

  async compute(run: Run, onProgress: Told): Promise<Outcome> {
    this.told = onProgress;
    const networks = await this.train(run);
    const began = performance.now();
    const judged = 'diverged' in networks ? networks : await orDiverged(() => this.judge(run, networks.weights));
    const judgedIn = (performance.now() - began) / 1000;
    const trained = run.settings.stages.map(({ name, config }, i) => {
      const folder = this.folder(run, i);
      const parameters = countParameters(shapesOf(config, this.data)).model;
      return {
        ...{
          name,
          run: `${RUNS}/${basename(folder)}`,
          parameters,
          images: trainedImages(config),
          flops: stageFlops(run.settings.stages, i),
        },
        ...trainedIn(folder),
      };
    });
    // As it will be read again, so that what a report shows does not depend on whether the run was computed now.
    return outcome.parse(JSON.parse(JSON.stringify({ trained, ...judged, judgedIn })));
  }

  private folder({ data, case: name, seed, settings: { stages } }: Run, stage: number): string {
    const part = stages.length > 1 ? `.${stages[stage]?.name}` : '';
    return join(this.work.out, RUNS, `${data}.${name}${part}.${seed}`);
  }

  private async train(run: Run): Promise<{ readonly weights: string } | Diverged> {
    const { stages, scale } = run.settings;
    const { device, compute, signal } = this.work;
    let before = 0;
    let weights = '';
    for (const [i, { name, config: planned }] of stages.entries()) {
      const folder = this.folder(run, i);
      const config = this.settled(planned, weights);
      const of = trainedImages(config);
      const flops = stageFlops(stages, i);
      const onLine = ({
        images,
        losses,
        effectiveRank,
      }: {
        images: number;
        losses: Readonly<Record<string, number>>;
        effectiveRank: number;
      }) =>
        this.told((before + flops * (images / of)) / run.cost, {
          ...{ kind: 'training', stage: name, images, of, loss: losses.total ?? Number.NaN, rank: effectiveRank },
        });
      const ended = await orDiverged(async () => {
        await trainStage(folder, config, { data: this.data, device, compute, signal, scale, onLine });
        return {};
      });
      if ('diverged' in ended) return ended;
      before += flops;
      weights = join(folder, WEIGHTS_FILE);
    }
    return { weights };
  }

  /** A stage's configuration as it is trained here: on the weights of the stage before, in the type that the engine computes in. */
  private settled(config: RunConfig, before: string): RunConfig {
    const { objective, train } = config;
    return {
      ...config,
      objective: objective.frozen === undefined ? objective : { ...objective, frozen: before },
      train: { ...train, dtype: this.work.compute === 'bfloat16' ? 'bfloat16' : 'float32' },
    };
  }

  private async judge(run: Run, weights: string): Promise<Pick<Outcome, never>> {
    const { judging } = run.settings;
    const { data } = this;
    const { device, compute } = this.work;
    const { config, denoiser, autoencoder: coder, kind } = loadModel(weights, device);
    const classed = data.train.classes.length > 1;
    const common = {
      ...{ data, coder, weights: kind, device, dtype: compute, batch: device === 'cpu' ? BATCH.cpu : BATCH.gpu, progress: this.progress },
      ...(classed ? { probed: judging.probed } : {}),
    };
    try {
      if (!decodes(config)) return { encoding: await evaluateEncoder({ ...common, measured: judging.real }) };
      const sampler = samplerOptions(config);
      const settings = [...new Set([1, sampler.guidance])].map((guidance) => ({ ...sampler, guidance }));
      const shown = new Shown(settings, judging.shown);
      const drawing = await evaluateBy(await this.openJury(run), {
        ...this.juryInput(run),
        ...common,
        ...{ denoiser, settings, labels: config.objective.labels ? 'balanced' : 'none' },
        onSamples: (set, first, pixels) => shown.see(set, first, pixels),
      });
      return { drawing, drawn: shown.read() };
    } finally {
      denoiser.dispose();
      if (coder !== denoiser) coder.dispose();
    }
  }

  private readonly progress = (stage: EvaluationStage | 'latents', done: number, of: number): void => {
    stopIf(this.work.signal);
    this.told(1, { kind: 'judging', stage, done, of });
  };

  private juryInput({ data, settings: { judging } }: Run) {
    const { features, samples, real, seed, classifierSteps } = judging;
    const { device, out } = this.work;
    return {
      ...{ features, data: this.data, against: 'held-out' as const, real, files: [], count: samples, device, seed },
      ...{ classifier: { steps: classifierSteps }, classifierFile: join(out, `classifier-${data}.safetensors`), progress: this.progress },
    };
  }

  /** All runs on a set of pictures are judged by one, since they are to be compared; its classifier stays in the study's folder for those to come. */
  private async openJury(run: Run): Promise<Jury> {
    this.jury ??= await Jury.open(this.juryInput(run));
    return this.jury;
  }

  close(): void {
    this.jury?.dispose();
    this.jury = undefined;
  }
}

interface Diverged {
  readonly diverged: string;
}

/** Values that stop being finite are an outcome here, and no error. */
async function orDiverged<T>(work: () => Promise<T>): Promise<T | Diverged> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof DivergedError)) throw error;
    return { diverged: error.message };
  }
}
