/**
 * What a run may cost: parameters, and floating-point operations of its training. Two networks in two stages are fitted to the budget of one network in
 * one stage, so that a comparison of the two is one of methods.
 */
import { UsageError } from '../../core/errors.js';
import { shapeOf } from '../../data/open.js';
import { evaluations, type SamplerOptions } from '../../dsd/sampler.js';
import { countParameters, forwardFlops, type ModelConfig } from '../../dsd/sizes.js';
import { modelConfig, type RunConfig } from '../../train/config.js';
import { flopsPerPicture } from '../../train/schedule.js';

/** How far two budgets may be apart and be called the same. */
export const TOLERANCE = 0.02;
/** What the pictures of a folder will say more exactly; a few thousand parameters hang on it, and no operation that is counted. */
const USUAL = { channels: 3, classes: 10 } as const;
/** Widths of the SwiGLU that are tried: multiples of these, the first by which the budget is met. */
const STEPS = [16, 8, 4, 2, 1];

const networkOf = (config: RunConfig): ModelConfig => modelConfig(config, shapeOf(config.data.source, USUAL));

/** Pictures that a run trains on: whole batches. */
export const trainedImages = ({ train: { images, batch } }: RunConfig): number => Math.ceil(images / batch) * batch;

const perPicture = (config: RunConfig, frozen?: RunConfig): number =>
  flopsPerPicture(config.objective, networkOf(config), frozen && networkOf(frozen));

/** Operations of a run's whole training. @param frozen whose network encodes, where a frozen one does: by default of the run's own size */
const trainingFlops = (config: RunConfig, frozen?: RunConfig): number => trainedImages(config) * perPicture(config, frozen);

/** Operations of the training of stage i: what is frozen in it is the stage before. */
export const stageFlops = (stages: readonly { readonly config: RunConfig }[], i: number): number =>
  trainingFlops((stages[i] as (typeof stages)[number]).config, stages[i - 1]?.config);

/** Operations of a sample without guidance: the last stage's network answers the solver, the first one's decodes. */
export function sampleFlops(stages: readonly { readonly config: RunConfig }[], sampler: Pick<SamplerOptions, 'solver' | 'steps'>): number {
  const [first, last] = [stages[0], stages.at(-1)] as [(typeof stages)[number], (typeof stages)[number]];
  return evaluations(sampler) * forwardFlops(networkOf(last.config)) + forwardFlops(networkOf(first.config));
}

export type Part = Pick<ModelConfig, 'depth' | 'hidden'>;

/**
 * Depth and SwiGLU width of two networks that together have the parameters of one: its blocks divided among them, and narrower by what there is twice
 * now (embeddings, time and modulation). Width and heads stay, since a latent's width of features is compared too.
 * @param share of the blocks that the first gets, at least one; the second gets the rest, at least one
 * @throws UsageError where there are no such two
 */
export function divide(config: RunConfig, share: number): readonly [first: Part, second: Part] {
  const whole = networkOf(config);
  const wanted = countParameters(whole).model;
  const first = Math.max(1, Math.round(whole.depth * share));
  const depths = [first, Math.max(1, whole.depth - first)] as const;
  const parameters = (depth: number, hidden: number): number => countParameters({ ...whole, depth, hidden }).model;
  const ratio = (hidden: number): number => (parameters(depths[0], hidden) + parameters(depths[1], hidden)) / wanted;
  for (const step of STEPS) {
    const most = Math.ceil((2 * whole.hidden) / step);
    const widths = Array.from({ length: most }, (_, i) => (i + 1) * step);
    const hidden = widths.reduce((a, b) => (Math.abs(ratio(b) - 1) < Math.abs(ratio(a) - 1) ? b : a));
    if (Math.abs(ratio(hidden) - 1) <= TOLERANCE)
      return [
        { depth: depths[0], hidden },
        { depth: depths[1], hidden },
      ];
  }
  throw new UsageError(
    `no two networks of ${depths.join(' and ')} blocks have together the ${wanted.toLocaleString('en-GB')} parameters of one of ${whole.depth}, within ${100 * TOLERANCE} %: what there is twice is too much of it. Take a deeper network (model.depth) or a wider model.hidden`,
  );
}

/**
 * Pictures of two stages whose training costs together what a run of one stage does.
 * @param split share of the operations that the first stage gets, between 0 and 1
 * @param first @param second their configurations, of any length
 * @throws UsageError where whole batches come no nearer than the tolerance
 */
export function lengths(one: RunConfig, first: RunConfig, second: RunConfig, split: number): [first: number, second: number] {
  const budget = trainingFlops(one);
  const batches = (config: RunConfig, share: number, frozen?: RunConfig): number =>
    config.train.batch * Math.max(1, Math.round(share / perPicture(config, frozen) / config.train.batch));
  const a = batches(first, split * budget);
  const b = batches(second, budget - a * perPicture(first), first);
  const ratio = (a * perPicture(first) + b * perPicture(second, first)) / budget;
  if (Math.abs(ratio - 1) > TOLERANCE)
    throw new UsageError(
      `two stages of whole batches come to ${(100 * ratio).toFixed(1)} % of the operations of one stage, which is not within ${100 * TOLERANCE} %: lower train.batch, or raise train.images`,
    );
  return [a, b];
}
