/**
 * The objective: every loss and every stop-gradient, each with its reason.
 * ARCHITECTURE.md, The method: paradigms, collapse and its cures, training.
 *
 * The four paradigms of the paper's figure 1 are settings of one loss, || P(input, t) - target ||^2; see PARADIGMS.
 * Shapes: B pictures, k denoising passes for one encoding, N tokens, C latent channels, d width.
 */
import { meanPool, mlp } from '../nn/layers.js';
import type { Weights } from '../nn/weights.js';
import { cat, cosineSimilarity, crossEntropy, full, l1Loss, mseLoss, noGrad, onesLike, stack, type Tensor, where } from '../torch/index.js';
import type { Draws } from './draws.js';
import type { Denoised, Encoded, Model, Pass } from './model.js';

export interface ObjectiveConfig {
  /** What the network predicts: the clean latent (cure 2), or the velocity z - eps. */
  readonly target: 'clean' | 'velocity';
  /**
   * The clean latent is predicted as skip z_t + out F, where F is what the network gives: see `precondition`. The loss stays the clean latent's, in which F's
   * error counts out^2; with a time.weighting of 2 it counts nearly alike at every t. For a clean target, a noised input and latents of deviation 1. Ours.
   */
  readonly preconditioned: boolean;
  /** Cure 1: no gradient into the target. Always so for an EMA or frozen target, whose weights are not trained. */
  readonly stopGradient: boolean;
  /** Who encodes the target: the average of the weights, the online network itself, or a frozen network trained before. */
  readonly targetEncoder: 'ema' | 'online' | 'frozen';
  /** `noised`: z_t = t zc + (1 - t) eps. `clean`: zc itself at t = 1, which is self-distillation. */
  readonly input: 'noised' | 'clean';
  /** Share, 0 to 1, of its gradient with which the diffusion loss reaches the encoder through z_t. */
  readonly gradientIntoInput: number;
  /** Share of patches hidden from the online encoder on every second picture (even global index); 0: no mask. */
  readonly mask: number;
  /** k: denoising passes for one encoding. */
  readonly passes: number;
  /**
   * t = sigmoid(mean + std n), n normal; then t' = shift t / (1 + (shift - 1) t). The error at t counts max(1 - t, 0.05)^-weighting times: 0 is the
   * paper's plain mean; of a clean latent 2 is the error of the velocity that the sampler makes of it.
   */
  readonly time: { readonly mean: number; readonly std: number; readonly shift: number; readonly weighting: number };
  /** With this probability the decoder sees s z1 + (1 - s) eps, s uniform in [from, 1): it learns to forgive the sampler's errors. */
  readonly decoderNoise: { readonly probability: number; readonly from: number };
  /** Rate at which the class is replaced by the null class, for classifier-free guidance. */
  readonly dropClass: number;
  /** False: no label is used anywhere (a label-free run). */
  readonly labels: boolean;
  /** Weight of each loss; one that is 0 is not computed. */
  readonly weights: {
    /** Mean absolute error of the pictures. */
    readonly reconstruction: number;
    /** Mean squared error of the pictures: it costs nothing beside the other and is what PSNR measures. */
    readonly squared: number;
    readonly perceptual: number;
    readonly denoise: number;
    readonly align: number;
    readonly represent: number;
    readonly classify: number;
  };
}

export type LossName = keyof ObjectiveConfig['weights'];

type DeepPartial<T> = { readonly [K in keyof T]?: T[K] extends object ? DeepPartial<T[K]> : T[K] };

/** The settings that make each paradigm of figure 1; all else is shared, so that a comparison changes nothing else. */
export const PARADIGMS = {
  /** Clean target from the EMA encoder on the full view, input from the online encoder on a masked one: stable. */
  dsd: { target: 'clean', stopGradient: true, targetEncoder: 'ema', input: 'noised' },
  /** Everything joint, gradient everywhere: collapses by suppressing the latent's variance. */
  naive: {
    target: 'velocity',
    preconditioned: false,
    stopGradient: false,
    targetEncoder: 'online',
    input: 'noised',
    gradientIntoInput: 1,
    mask: 0,
    time: { weighting: 0 },
  },
  /** Latent diffusion, stage one: an autoencoder alone. */
  autoencoder: {
    target: 'clean',
    preconditioned: false,
    stopGradient: true,
    targetEncoder: 'online',
    input: 'noised',
    mask: 0,
    time: { weighting: 0 },
    weights: { denoise: 0, align: 0, represent: 0, classify: 0 },
  },
  /** Latent diffusion, stage two: a separate network learns the velocity of a frozen encoder's latents. */
  'latent-diffusion': {
    target: 'velocity',
    preconditioned: false,
    stopGradient: true,
    targetEncoder: 'frozen',
    input: 'noised',
    mask: 0,
    time: { weighting: 0 },
    weights: { reconstruction: 0, squared: 0, perceptual: 0, align: 0, represent: 0, classify: 0 },
  },
  /** The denoise role at t = 1 without noise predicts the EMA encoder's latent of the full view from a masked one; no decoder. */
  'self-distillation': {
    target: 'clean',
    preconditioned: false,
    stopGradient: true,
    targetEncoder: 'ema',
    input: 'clean',
    gradientIntoInput: 1,
    time: { weighting: 0 },
    weights: { reconstruction: 0, squared: 0, perceptual: 0 },
  },
} as const satisfies Record<string, DeepPartial<ObjectiveConfig>>;
export type Paradigm = keyof typeof PARADIGMS;

/** The networks of a step. `target` is the EMA of `online`; `frozen` a network trained before, for latent diffusion's second stage. */
export interface Networks {
  readonly online: Model;
  readonly target?: Model;
  readonly frozen?: Model;
  /** Distance of two pictures (B, H, H, ch) -> 0-d, for the perceptual loss. */
  readonly perceptual?: (a: Tensor, b: Tensor) => Tensor;
  /** Running centre of the teacher's logits (P), which keeps the representation head from collapsing onto one prototype. */
  readonly center?: Tensor;
}

export interface StepInput {
  readonly x: Tensor; // (B, H, H, ch) in [-1, 1]
  readonly y: Tensor; // (B) int64
  /** Global index of the first picture: even pictures are the masked ones. */
  readonly firstImage: number;
}

export interface Losses {
  /** Weighted sum: what is differentiated. */
  readonly total: Tensor; // 0-d
  /** Each loss that has a weight, without it. */
  readonly terms: Partial<Record<LossName, Tensor>>; // 0-d each
  /**
   * The latent by its uses: z1 (online, clean view) as the decoder sees it, zc (online, augmented view) as the denoiser's input is made of it, z2 as
   * the target, before its stop-gradient. Each is a node of its own even where they are one latent, so that a gradient can be asked for by use.
   * raw: z1 before LayerNorm.
   */
  readonly latents: { readonly z1: Tensor; readonly zc: Tensor; readonly z2: Tensor; readonly raw: Tensor }; // (B, N, C)
  /** Mean of the teacher's logits over the batch (P), by which the centre moves. */
  readonly teacherMean?: Tensor;
}

/** sg(): the value without its history. */
const stopGradient = (x: Tensor): Tensor => x.detach();

/** The value with a share of its gradient. */
const withGradient = (x: Tensor, share: number): Tensor => {
  if (share === 1) return x;
  const still = stopGradient(x);
  return share === 0 ? still : x.sub(still).mul(share).add(still);
};

/** t' = a t / (1 + (a - 1) t), elementwise. */
const shifted = (t: Tensor, a: number): Tensor => (a === 1 ? t : t.mul(a).div(t.mul(a - 1).add(1)));

/** `precondition` of t (B, 1, 1), and what it makes of what the network gave, (B, N, C). */
function preconditioned(given: Tensor, zt: Tensor, t: Tensor): Tensor {
  const rest = t.neg().add(1);
  const power = t.square().add(rest.square());
  return zt.mul(t.div(power)).add(given.mul(rest.div(power.sqrt())));
}

/** The least 1 - t in the weight of an error: what is left of the noise there is too little to see, and the weight would have no bound. */
const LEAST_NOISE = 0.05;

/** Logits of the representation head: unit vectors times unit prototypes. pooled (B, d) -> (B, P). */
function prototypeLogits(weights: Weights, pooled: Tensor): Tensor {
  const unit = (v: Tensor) => v.div(v.norm(2, -1, true).clamp(1e-12));
  const w = weights.at('represent');
  return unit(mlp([w.linear('0'), w.linear('2')], (h) => h.gelu(), pooled)).matmul(unit(w.get('prototypes')).transpose(0, 1));
}

/** The mean over pictures of max(1 - t, LEAST_NOISE)^-p times the mean square of a - b, (B, N, C) each; t (B). */
function weightedError(a: Tensor, b: Tensor, t: Tensor, p: number): Tensor {
  const weight = t.neg().add(1).clamp(LEAST_NOISE).pow(-p).to({ dtype: a.dtype }); // (B)
  return a.sub(b).square().mean([1, 2]).mul(weight).mean();
}

/** The online encoder's clean view of every picture, and its augmented one. */
interface Views {
  readonly clean: Encoded;
  readonly augmented: { readonly z: Tensor; readonly pooled: () => Tensor };
}

/**
 * Even pictures are encoded again with patches hidden, odd ones reuse the clean encoding (an augmentation on every second picture costs half a
 * pass). Rows come back in the batch's order.
 */
function encodeViews(online: Model, input: StepInput, draws: Draws, share: number, options: { tapAfter?: number }): Views {
  const B = input.x.shape[0] as number;
  const even = input.firstImage % 2;
  const maskedRows = Math.ceil((B - even) / 2);
  if (share === 0 || maskedRows === 0) {
    const clean = online.encode(input.x, options);
    return { clean, augmented: { z: clean.z, pooled: () => meanPool(clean.tokens) } };
  }
  const second = (x: Tensor, start: number) => x.slice(0, start, B, 2);
  const mask = second(draws.mask, even).lt(share);
  const [clean, masked] = online.run(online.encoding(input.x, options), online.encoding(second(input.x, even), { mask }));
  // Each of the one kind beside one of the other, and of an odd number the last alone.
  const pairs = Math.floor(B / 2);
  const merge = (of: (e: Encoded) => Tensor): Tensor => {
    const [hidden, whole] = [of(masked), second(of(clean), 1 - even)];
    const [a, b] = even === 0 ? [hidden, whole] : [whole, hidden];
    const both = stack([a.narrow(0, 0, pairs), b.narrow(0, 0, pairs)], 1).flatten(0, 1);
    return B % 2 === 0 ? both : cat([both, a.narrow(0, pairs, 1)]);
  };
  return { clean, augmented: { z: merge((e) => e.z), pooled: () => merge((e) => meanPool(e.tokens)) } };
}

/** All losses of a step. Deterministic given `draws`. */
export function losses(networks: Networks, input: StepInput, draws: Draws, config: ObjectiveConfig): Losses {
  const { online } = networks;
  const { weights } = config;
  const { depth, classes: K } = online.config;
  const terms: Partial<Record<LossName, Tensor>> = {};
  const labels = config.labels && K > 0;
  const wantsDenoiser = weights.denoise > 0 || weights.align > 0;
  const wantsTeacher = wantsDenoiser || weights.represent > 0;

  // --- z2, the target. A teacher's weights are an average or frozen, never trained by this loss: no gradient is recorded at all.
  const teacherTap = weights.align > 0 ? { tapAfter: Math.ceil((2 * depth) / 3) } : {};
  const teacherModel = config.targetEncoder === 'ema' ? networks.target : config.targetEncoder === 'frozen' ? networks.frozen : undefined;
  const encodeTeacher = (): Encoded | undefined =>
    wantsTeacher && teacherModel ? noGrad(() => teacherModel.encode(input.x, teacherTap)) : undefined;
  const external = encodeTeacher();

  // --- z1 and zc, the online encoder's clean and augmented views. With a frozen encoder there is no online one: z = zc = z2.
  const frozen = config.targetEncoder === 'frozen';
  const views = frozen
    ? { clean: external as Encoded, augmented: { z: (external as Encoded).z, pooled: () => meanPool((external as Encoded).tokens) } }
    : encodeViews(online, input, draws, config.mask, config.targetEncoder === 'online' ? teacherTap : {});
  const { clean: first, augmented: view } = views;
  const teacher = external ?? first;
  const use = (z: Tensor): Tensor => z.view(...z.shape);
  const [z1, zc, z2] = [use(first.z), use(view.z), use(teacher.z)];

  // --- the decoder's input: z1, half of the time a little noised. The gradient reaches the encoder: this is what fills the latent.
  const wantsDecoder = weights.reconstruction > 0 || weights.squared > 0 || weights.perceptual > 0;
  const decoding = (): Pass<Tensor> => {
    const { probability, from } = config.decoderNoise;
    if (probability === 0) return online.decoding(z1);
    const [chosen, level] = draws.decodeLevel.chunk(2, 1) as [Tensor, Tensor]; // (B, 1) each
    const s = where(chosen.lt(probability), level.mul(1 - from).add(from), onesLike(level)).unsqueeze(-1); // (B, 1, 1)
    return online.decoding(z1.mul(s).add(draws.decodeNoise.mul(s.neg().add(1))));
  };

  // --- the denoiser's: z_t, of k draws of (t, eps) for each encoding.
  const [B, k, N, C] = draws.noise.shape as [number, number, number, number];
  const flat = (x: Tensor) => x.reshape(B * k, ...x.shape.slice(2)); // (B, k, ...) -> (B k, ...)
  const repeat = (x: Tensor) => (k === 1 ? x : flat(x.unsqueeze(1).expand(B, k, ...x.shape.slice(1))));
  const eps = flat(draws.noise); // (B k, N, C)
  const noised = config.input === 'noised';
  const drawn = shifted(draws.time.mul(config.time.std).add(config.time.mean).sigmoid(), config.time.shift);
  const t = flat(noised ? drawn : onesLike(drawn)); // (B k)
  const denoising = (): Pass<Denoised> => {
    // The diffusion loss trains the encoder through its input (inferred from the paper). Near t = 1 what it asks of zc is to stay z2, its own average,
    // and an error weighted by time.weighting asks that loudest: then a small share serves better.
    const source = repeat(withGradient(zc, config.gradientIntoInput));
    const tt = t.to({ dtype: eps.dtype }).view(B * k, 1, 1);
    const zt = noised ? source.mul(tt).add(eps.mul(tt.neg().add(1))) : source; // (B k, N, C)
    const y = repeat(input.y);
    const asked = labels ? where(flat(draws.drop).lt(config.dropClass), K, y) : full([B * k], K, { dtype: 'int64', device: y.device });
    const { input: pass, finish } = online.denoising(
      zt,
      t,
      asked.to({ dtype: 'int64' }),
      weights.align > 0 ? { tapAfter: Math.ceil(depth / 3) } : {},
    );
    if (!config.preconditioned) return { input: pass, finish };
    return {
      input: pass,
      finish: (out) => {
        const { prediction, ...rest } = finish(out);
        return { prediction: preconditioned(prediction, zt, tt), ...rest };
      },
    };
  };

  // Neither needs the other's result, so the trunk takes both as one batch.
  const passes = [...(wantsDecoder ? [decoding()] : []), ...(wantsDenoiser ? [denoising()] : [])];
  const results: readonly unknown[] = passes.length > 0 ? online.run(...(passes as readonly Pass<unknown>[])) : [];
  const picture = wantsDecoder ? (results[0] as Tensor) : undefined;
  const predicted = wantsDenoiser ? (results.at(-1) as Denoised) : undefined;

  // --- reconstruction
  if (picture) {
    if (weights.reconstruction > 0) terms.reconstruction = l1Loss(picture, input.x);
    if (weights.squared > 0) terms.squared = mseLoss(picture, input.x);
    if (weights.perceptual > 0 && networks.perceptual) terms.perceptual = networks.perceptual(picture, input.x);
  }

  // --- denoise: || P(z_t, t, y) - target ||^2
  if (predicted) {
    // Cure 1: with gradient into the target the cheapest way down is to shrink the latent's variance (E tr Var(z | z_t) falls), so z2 is cut off.
    const z = repeat(config.stopGradient ? stopGradient(z2) : z2);
    // Cure 2: a velocity target contains eps, of full rank, and drives the predictor's rank above its target's; a clean one lets it be a low-rank filter.
    const target = (config.target === 'velocity' ? z.sub(eps) : z).reshape(B * k, N, C);
    if (weights.denoise > 0) {
      const { weighting } = config.time;
      terms.denoise = weighting > 0 ? weightedError(predicted.prediction, target, t, weighting) : mseLoss(predicted.prediction, target);
    }

    // --- align: an early denoiser layer looks like a late teacher layer. The teacher is the goal, not a party: stop-gradient.
    if (weights.align > 0 && predicted.tap && teacher.tap) {
      const w = online.weights.at('align');
      const student = mlp([w.linear('0'), w.linear('2'), w.linear('4')], (h) => h.silu(), predicted.tap); // (B k, N, d)
      const goal = repeat(stopGradient(teacher.tap));
      terms.align = cosineSimilarity(student.to({ dtype: goal.dtype }), goal, -1)
        .mean()
        .neg()
        .add(1);
    }
  }

  // --- represent: the augmented view's prototypes follow the teacher's sharpened, centred ones (DINO). Stop-gradient: the teacher's side is the label.
  let teacherMean: Tensor | undefined;
  if (weights.represent > 0) {
    const student = prototypeLogits(online.weights, view.pooled()).div(0.1).logSoftmax(-1); // (B, P)
    const logits = noGrad(() => prototypeLogits((teacherModel ?? online).weights, stopGradient(meanPool(teacher.tokens))));
    const label = noGrad(() => (networks.center ? logits.sub(networks.center) : logits).div(0.04).softmax(-1));
    terms.represent = label.mul(student).sum(-1).mean().neg();
    teacherMean = noGrad(() => logits.mean(0));
  }

  // --- classify: a linear probe on the clean view's pooled tokens, with gradient, so that labels shape the representation.
  if (weights.classify > 0 && labels) {
    const w = online.weights.linear('classify');
    terms.classify = crossEntropy(
      mlp([w], (h) => h, meanPool(first.tokens)),
      input.y,
    );
  }

  const names = Object.keys(terms) as LossName[];
  const total = names.map((name) => (terms[name] as Tensor).mul(weights[name])).reduce((sum, term) => sum.add(term));
  const latents = { z1, zc, z2, raw: first.raw };
  return teacherMean ? { total, terms, latents, teacherMean } : { total, terms, latents };
}
