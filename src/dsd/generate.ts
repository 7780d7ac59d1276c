/**
 * From noise and classes to pictures, on the engine: it answers what `sampler.ts` asks and decodes what that returns.
 * ARCHITECTURE.md, The method: sampling.
 */
import { UsageError } from '../core/errors.js';
import { cat, type DType, full, keep, noGrad, Replayed, scope, type Tensor } from '../torch/index.js';
import type { Model } from './model.js';
import { type Latents, type SamplerOptions, sample } from './sampler.js';

/** The solver's operations as tensor operations. Weights are applied in the latents' own type. */
export const LATENTS: Latents<Tensor> = {
  mix: (a, x, b, y) => scope(() => (a === 1 ? x : x.mul(a)).add(y.mul(b))),
  pair: (x) => cat([x, x]),
  halves: (x) => x.chunk(2, 0) as [Tensor, Tensor],
  free: (x) => x.dispose(),
};

export interface GenerateInput {
  /** (B, N, C) standard normal, in the latents' type; stays the caller's. */
  readonly noise: Tensor;
  /** (B) int64 on the noise's device: classes 0 to K - 1, or K for none. Stays the caller's. */
  readonly labels: Tensor;
  readonly options: SamplerOptions;
}

/**
 * Draws batch after batch with one model. On a CUDA device the network's calls are captured, once for each shape, and replayed: a call for each operator
 * takes longer than the work of a small batch.
 */
export class Sampler {
  private readonly denoiser: Model;
  private readonly own: readonly Tensor[];
  private readonly denoise: Replayed<[z: Tensor, t: Tensor, y: Tensor]>;
  private readonly decode: Replayed<[z: Tensor]>;

  /**
   * @param denoiser answers the solver; it and the coder must outlive this object, and their weights may not change meanwhile
   * @param coder decodes: the same model, but for latent diffusion
   * @param compute type for token-wise layers, the models' own by default; their weights are copied in it, here and once
   */
  constructor(denoiser: Model, coder: Model, compute?: DType) {
    const own = new Set<Tensor>();
    const narrow = (model: Model): Model => {
      if (!compute) return model;
      const copy = noGrad(() => model.in(compute));
      for (const [name, weight] of copy.weights.tensors) if (weight !== model.weights.tensors.get(name)) own.add(keep(weight));
      return copy;
    };
    this.denoiser = narrow(denoiser);
    const decoder = coder === denoiser ? this.denoiser : narrow(coder);
    this.own = [...own];
    this.denoise = new Replayed((z, t, y) => this.denoiser.denoise(z, t, y).prediction);
    this.decode = new Replayed((z) => decoder.decode(z).clamp(-1, 1));
  }

  /** Why the network's calls are not captured although the device could: the draws are the same, and slower. */
  get uncaptured(): string | undefined {
    return this.denoise.uncaptured ?? this.decode.uncaptured;
  }

  /**
   * Draws latents (B, N, C), without gradient: the denoiser answers the solver. Memory is flat in the number of steps: a latent is freed when the solver
   * is done with it, and what the network made when it has answered.
   * @throws UsageError for no steps, or shapes and classes that are not the model's. (A class out of range would end a CUDA context, so
   * the labels are looked at first: one short wait a call.)
   */
  latents({ noise, labels, options }: GenerateInput): Tensor {
    const batch = noise.shape[0] ?? 0;
    check(this.denoiser, noise, labels, options);
    return noGrad(() =>
      scope(() => {
        const none = full([batch], this.denoiser.config.classes, { dtype: 'int64', device: noise.device });
        const both = cat([labels, none]); // the order of Question.z: with class, without
        const solver = sample(LATENTS, noise, options);
        let turn = solver.next();
        while (!turn.done) {
          const { z, t, guided } = turn.value;
          const answer = scope(() => {
            const time = full([z.shape[0] ?? 0], t, { dtype: z.dtype, device: z.device });
            return this.denoise.call(z, time, guided ? both : labels);
          });
          turn = solver.next(answer);
        }
        return turn.value;
      }),
    );
  }

  /** Draws pictures (B, H, H, ch) in [-1, 1]: latents as above, decoded. @throws UsageError as `latents` */
  draw(input: GenerateInput): Tensor {
    return noGrad(() => scope(() => this.decode.call(this.latents(input))));
  }

  /** Frees what was captured, and the copies of the weights. */
  dispose(): void {
    this.denoise.dispose();
    this.decode.dispose();
    for (const weight of this.own) weight.dispose();
  }
}

/** Draws one batch of pictures: see Sampler. */
export function generate(denoiser: Model, coder: Model, input: GenerateInput, compute?: DType): Tensor {
  const sampler = new Sampler(denoiser, coder, compute);
  try {
    return sampler.draw(input);
  } finally {
    sampler.dispose();
  }
}

/** Pictures in [-1, 1] as they are saved: clamped and rounded to uint8, the same shape. */
export function toPixels(x: Tensor): Tensor {
  return noGrad(() => scope(() => x.clamp(-1, 1).add(1).mul(127.5).round().to({ dtype: 'uint8' })));
}

/** uint8 pixels to values in [-1, 1]; 0 is -1 and 255 is 1. */
export function fromPixels(pixels: Tensor): Tensor {
  return scope(() => pixels.to({ dtype: 'float32' }).div(127.5).sub(1));
}

function check(model: Model, noise: Tensor, labels: Tensor, { steps }: SamplerOptions): void {
  const [, N, C] = model.latentShape(1);
  const K = model.config.classes;
  if (!Number.isInteger(steps) || steps < 1) throw new UsageError(`sampling needs at least one step, got ${steps}`);
  if (noise.ndim !== 3 || noise.shape[1] !== N || noise.shape[2] !== C)
    throw new UsageError(`this model's noise has the shape (batch, ${N}, ${C}), got (${noise.shape.join(', ')})`);
  if (labels.ndim !== 1 || labels.shape[0] !== noise.shape[0])
    throw new UsageError(`sampling needs one label a picture: (${noise.shape[0]}), got (${labels.shape.join(', ')})`);
  if (noise.shape[0] === 0) throw new UsageError('sampling needs at least one picture, got none');
  const [least, most] = scope(() => [Number(labels.min().item()), Number(labels.max().item())] as const);
  if (least < 0 || most > K)
    throw new UsageError(`class ${least < 0 ? least : most} does not exist: this model has classes 0 to ${K - 1}, and ${K} for none`);
}
