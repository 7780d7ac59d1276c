/**
 * One training step: losses, gradients, clipping, Muon and AdamW, averages. Nothing in it reads a value back from the device, and on a CUDA device it is
 * captured in a graph: the first steps run operator by operator, those that follow are replays with other values in `Inputs`, the same to the bit.
 */

import { FailureError } from '../core/errors.js';
import type { Batch } from '../data/loader.js';
import { draw } from '../dsd/draws.js';
import { fromPixels } from '../dsd/generate.js';
import { Model } from '../dsd/model.js';
import { type Losses, type LossName, losses } from '../dsd/objective.js';
import { lpips } from '../dsd/perceptual.js';
import { type ModelConfig, parameters } from '../dsd/sizes.js';
import { Average, Optimizer } from '../nn/optimizer.js';
import { loadTensors } from '../nn/stored.js';
import { Copies, type Weights } from '../nn/weights.js';
import {
  type Device,
  type DType,
  Graph,
  grad,
  isOutOfMemory,
  markWork,
  noGrad,
  scope,
  type Tensor,
  tensor,
  where,
  workAhead,
  zeros,
} from '../torch/index.js';
import type { RunConfig } from './config.js';
import { Inputs } from './inputs.js';
import { learningRate } from './schedule.js';
import { loadAutoencoder } from './weights.js';

/** What a step leaves, unread, on the device; the reader disposes of it. The values hold until the next step, which may write its own in their place. */
export interface StepOutput {
  readonly terms: Partial<Record<LossName | 'total', Tensor>>; // 0-d
  /** Gradient norm before clipping; not finite: the step was skipped. */
  readonly gradientNorm: Tensor; // 0-d
  readonly latent?: Tensor; // z1 (B, N, C) of the last micro-batch
  readonly rawLatent?: Tensor; // before LayerNorm
}

/** How fast the teacher's centre follows (DINO's 0.9). */
const CENTER_MOMENTUM = 0.9;
/** Steps before one is captured: the first compiles kernels and makes workspaces, which cannot be captured. */
const WARM_UP = 2;
/** Steps that may be begun before the device has done them. */
const MOST_AHEAD = 4;

/** Pictures as uint8 (B, H, W, ch) to [-1, 1] on the device. */
export function toPictures(images: Uint8Array, config: ModelConfig, device: Device): Tensor {
  const { image, channels } = config;
  const batch = images.length / (image * image * channels);
  return scope(() => fromPixels(tensor(images, [batch, image, image, channels], { dtype: 'uint8', device })));
}

/** Networks, optimizer and averages of a run, and what one batch does to them. */
export class Stepper {
  readonly online: Model;
  /** theta_bar, whose encoder makes the targets. */
  readonly target: Average;
  /** The average that is saved and sampled from. */
  readonly average: Average;
  /** Samples and reconstructions are made with these weights. */
  readonly averaged: Model;
  readonly frozen: Model | undefined;
  private readonly optimizer: Optimizer;
  /** What the losses are computed with. */
  private readonly computed: { readonly online: Computed; readonly target?: Computed; readonly frozen?: Computed };
  private readonly center: Tensor;
  private readonly perceptual: ((a: Tensor, b: Tensor) => Tensor) | undefined;
  /** Updates tried so far, skipped ones counted. */
  steps = 0;
  /** Pictures of a forward and backward pass: train.microBatch, or what fits. */
  micro: number;
  /** Why steps are not captured although train.graph asks for it and the device could. */
  uncaptured: string | undefined;
  private updating = false;
  private inputs: Inputs | undefined;
  private graph: Graph<StepOutput> | undefined;
  /** What a captured step holds for, and how many steps of the kind there were in a row. */
  private kind = '';
  private alike = 0;

  /** @param frozen the frozen autoencoder, where it has been read already; else it is read from objective.frozen */
  constructor(
    private readonly config: RunConfig,
    model: ModelConfig,
    private readonly device: Device,
    /** The type that token-wise layers compute in. */
    compute: DType,
    frozen?: Model,
  ) {
    const { objective, train } = config;
    this.online = Model.init(model, train.seed, { device });
    this.target = new Average(this.online.weights, train.targetDecay);
    this.average = new Average(this.online.weights, train.averageDecay);
    this.averaged = Model.of(model, this.average.weights);
    const { beta1, beta2, epsilon, weightDecay, clip } = train;
    const matrices = train.optimizer === 'muon' ? [...parameters(model)].filter(([, spec]) => spec.matrices > 0) : [];
    const muon = new Map(matrices.map(([name, spec]) => [name, spec.matrices]));
    if (objective.targetEncoder === 'frozen' && objective.frozen) this.frozen = frozen ?? loadAutoencoder(objective.frozen, model, device);
    this.computed = {
      online: computed(model, this.online.weights, compute),
      ...(objective.targetEncoder === 'ema' ? { target: computed(model, this.target.weights, compute) } : {}),
      ...(this.frozen ? { frozen: computed(this.frozen.config, this.frozen.weights, compute) } : {}),
    };
    const { online, target } = this.computed;
    for (const weight of online.model.weights.list()) weight.requiresGrad_(true);
    this.optimizer = new Optimizer(
      this.online.weights,
      { beta1, beta2, epsilon, weightDecay, clip, muon, compute },
      // Without an averaged teacher the target stays what it was made as.
      { average: this.average, copies: online.copies, ...(target ? { target: this.target, targetCopies: target.copies } : {}) },
    );
    this.center = zeros([model.prototypes], { device });
    this.micro = train.microBatch || train.batch;
    if (objective.perceptual) this.perceptual = lpips(loadTensors(objective.perceptual, device));
  }

  /** Frees the networks, the averages and the optimizer's state. */
  dispose(): void {
    this.graph?.dispose();
    this.inputs?.dispose();
    for (const { model } of Object.values<Computed>(this.computed)) model.dispose();
    for (const owned of [this.online, this.target.weights, this.averaged, this.frozen, this.optimizer]) owned?.dispose();
    this.center.dispose();
  }

  /** All that changes from step to step, by the file of a checkpoint and the name in it. The tensors themselves, not copies. */
  state(): Map<'online' | 'target' | 'average' | 'optimizer', ReadonlyMap<string, Tensor>> {
    const { targetEncoder } = this.config.objective;
    return new Map([
      ['online', this.online.weights.tensors],
      ['average', this.average.weights.tensors],
      ['optimizer', new Map([...this.optimizer.state(), ['center', this.center]])],
      // Without an averaged teacher it stays what it was made as.
      ...(targetEncoder === 'ema' ? [['target', this.target.weights.tensors] as const] : []),
    ]);
  }

  /** To be called when the tensors of `state` were set from outside: what was derived from them is made again. */
  refresh(): void {
    for (const { copies } of Object.values<Computed>(this.computed)) copies.refresh();
  }

  /**
   * One step on a batch; `images` is the number of pictures seen before it. Where train.microBatch is 0 and memory runs out, the batch is cut in two,
   * and again, until it fits: the same draws and, to rounding, the same step. Waits for the device only where it is far behind.
   * @throws FailureError when one picture does not fit, or a given microBatch does not
   */
  step(batch: Batch, images: number): StepOutput {
    workAhead(MOST_AHEAD - 1);
    for (;;) {
      try {
        const output = this.tryStep(batch, images);
        markWork(this.device);
        return output;
      } catch (error) {
        if (!isOutOfMemory(error)) throw error;
        this.shrink(error);
      }
    }
  }

  /** The next smaller number of pictures that divides the batch. */
  private get smaller(): number | undefined {
    const { micro, config } = this;
    return Array.from({ length: micro - 1 }, (_, i) => i + 1).findLast((part) => config.train.batch % part === 0 && part <= micro / 2);
  }

  private shrink(cause: unknown): void {
    const { batch, microBatch } = this.config.train;
    const { micro, smaller } = this;
    if (!this.updating && smaller && microBatch === 0) {
      this.micro = smaller;
      return;
    }
    const what = this.updating
      ? 'out of memory while the weights were updated, which no smaller batch helps'
      : `out of memory in a training step with ${micro} picture${micro === 1 ? '' : 's'} at a time`;
    const mend =
      smaller && !this.updating
        ? `try --set train.microBatch=${smaller}, which leaves the result of the batch of ${batch} the same, or a smaller model`
        : 'a smaller model is needed: see model.width and model.depth';
    throw new FailureError(`${what}: ${mend}`, { cause });
  }

  private tryStep(batch: Batch, images: number): StepOutput {
    const inputs = this.fill(batch, images);
    const graph = this.captured(inputs);
    graph?.replay();
    const output = graph ? scope(() => viewsOf(graph.result)) : this.compute(inputs);
    this.steps++;
    return output;
  }

  /** Gives the device what changes from step to step. */
  private fill(batch: Batch, images: number): Inputs {
    const { config, steps, target, average } = this;
    if (this.inputs?.count !== batch.labels.length) {
      this.release();
      this.inputs?.dispose();
      this.inputs = new Inputs(this.online.config, batch.labels.length, this.device);
    }
    this.inputs.set(batch, [learningRate(config.train, images), target.share(steps), average.share(steps)]);
    return this.inputs;
  }

  /** The step as a graph, captured when there have been enough steps of its kind: as many pictures, in the same parts, the same ones of them masked. */
  private captured(inputs: Inputs): Graph<StepOutput> | undefined {
    const { train, objective } = this.config;
    const masks = objective.mask > 0;
    const kind = `${inputs.count} by ${this.micro}${masks ? ` from ${inputs.firstImage % 2}` : ''}`;
    if (kind !== this.kind) {
      this.release();
      this.kind = kind;
    }
    this.alike++;
    if (!train.graph || !Graph.supports(this.device)) return undefined;
    if (masks && train.batch % 2 === 1)
      this.uncaptured ??= `every second picture is masked, and in batches of ${train.batch}, an odd number, those are others from step to step; with an even train.batch steps are captured`;
    if (this.uncaptured !== undefined || this.alike <= WARM_UP) return undefined;
    try {
      this.graph ??= Graph.capture(this.device, () => this.compute(inputs));
    } catch (error) {
      this.updating = false; // nothing was: what is captured is not done
      this.uncaptured = isOutOfMemory(error) ? this.cramped() : error instanceof Error ? error.message : String(error);
    }
    return this.graph;
  }

  /** Steps of this size fit; beside a captured one's memory, which is its own, nothing else's does. */
  private cramped(): string {
    const { micro, smaller } = this;
    return `memory does not suffice for a captured step with ${micro} picture${micro === 1 ? '' : 's'} at a time${smaller ? `; try --set train.microBatch=${smaller}` : ''}`;
  }

  /**
   * Frees the captured step and the memory for all that is in it, which nothing else can use; after a few steps one is captured again.
   * @returns whether there was one
   */
  release(): boolean {
    const { graph } = this;
    graph?.dispose();
    this.graph = undefined;
    this.alike = 0;
    return graph !== undefined;
  }

  /** The whole step on the device, from inputs that lie there. All that it does to tensors it does again when it is replayed. */
  private compute(inputs: Inputs): StepOutput {
    return scope(() => {
      const { micro } = this;
      this.updating = false;
      let sum: (Tensor | null)[] = this.online.weights.list().map(() => null);
      const parts: Losses[] = [];
      for (let start = 0; start < inputs.count; start += micro) {
        const part = this.microBatch(inputs, start, Math.min(start + micro, inputs.count));
        parts.push(part.losses);
        // One part is left as it is; several are summed in float32.
        const wide = micro < inputs.count;
        sum = sum.map((total, i) => {
          const more = wide ? part.gradients[i]?.to({ dtype: 'float32' }) : part.gradients[i];
          return total && more ? total.add(more) : (more ?? total);
        });
      }
      this.updating = true;
      const gradientNorm = this.optimizer.update(sum, inputs.rates);
      const output = noGrad(() => this.output(parts, gradientNorm));
      // Not before: a step that is tried again must not have been applied already.
      this.updating = false;
      return output;
    });
  }

  /** Losses and gradients of some rows of a batch, weighted by their share of it; frees autograd's graph. */
  protected microBatch(inputs: Inputs, start: number, end: number): { losses: Losses; gradients: (Tensor | null)[] } {
    return scope(() => {
      const { config, device } = this;
      const count = end - start;
      const rows = (of: Tensor): Tensor => of.narrow(0, start, count);
      const x = fromPixels(rows(inputs.images));
      const y = rows(inputs.labels).to({ dtype: 'int64' });
      const first = start === 0 ? inputs.first : inputs.first.add(BigInt(start));
      const draws = draw(this.online.config, config.train.seed, first, count, config.objective.passes, { dtype: 'float32', device });
      const { online, target, frozen } = this.computed;
      const networks = {
        online: online.model,
        ...(target ? { target: target.model } : {}),
        ...(frozen ? { frozen: frozen.model } : {}),
        center: this.center,
        ...(this.perceptual ? { perceptual: this.perceptual } : {}),
      };
      const out = losses(networks, { x, y, firstImage: inputs.firstImage + start }, draws, config.objective);
      const share = count / inputs.count;
      const gradients = grad([share === 1 ? out.total : out.total.mul(share)], online.model.weights.list(), undefined, {
        allowUnused: true,
      });
      return { losses: detached(out), gradients };
    });
  }

  protected output(parts: readonly Losses[], gradientNorm: Tensor): StepOutput {
    const mean = (of: (part: Losses) => Tensor) =>
      parts
        .map(of)
        .reduce((a, b) => a.add(b))
        .div(parts.length);
    const first = parts[0] as Losses;
    const terms: Partial<Record<LossName | 'total', Tensor>> = { total: mean((p) => p.total) };
    for (const name of Object.keys(first.terms) as LossName[]) terms[name] = mean((p) => p.terms[name] as Tensor);
    if (first.teacherMean) {
      const moved = this.center.lerp(
        mean((p) => p.teacherMean as Tensor),
        1 - CENTER_MOMENTUM,
      );
      // A step that is skipped moves nothing: one value that is not finite would stay in the centre for ever.
      this.center.copy_(where(gradientNorm.isfinite(), moved, this.center));
    }
    const { z1, raw } = (parts.at(-1) as Losses).latents;
    return { terms, gradientNorm, ...(z1 ? { latent: z1 } : {}), ...(raw ? { rawLatent: raw } : {}) };
  }
}

/** A network that a step computes with: over the weights themselves, or with its token-wise ones held in a lower precision. */
interface Computed {
  readonly model: Model;
  readonly copies: Copies;
}

function computed(config: ModelConfig, weights: Weights, compute: DType): Computed {
  const narrow = compute === 'float32' ? [] : [...parameters(config)].filter(([, spec]) => spec.perToken).map(([name]) => name);
  const copies = new Copies(weights, narrow, compute);
  return { copies, model: Model.of(config, copies.weights) };
}

/** Other handles of the same tensors, for a reader to dispose of. */
function viewsOf({ terms, gradientNorm, latent, rawLatent }: StepOutput): StepOutput {
  const named = Object.entries(terms).map(([name, value]) => [name, value.detach()] as const);
  return {
    terms: Object.fromEntries(named),
    gradientNorm: gradientNorm.detach(),
    ...(latent ? { latent: latent.detach() } : {}),
    ...(rawLatent ? { rawLatent: rawLatent.detach() } : {}),
  };
}

/** The values of a step's losses without their history, so that leaving the scope frees the graph. */
function detached(out: Losses): Losses {
  const cut = <T extends Partial<Record<string, Tensor>>>(tensors: T): T =>
    Object.fromEntries(Object.entries(tensors).map(([name, value]) => [name, value?.detach()])) as T;
  return { ...out, total: out.total.detach(), terms: cut(out.terms), latents: cut(out.latents) };
}
