/**
 * The shapes of the network: named sizes, and one table of every parameter. Pure data, no engine: `dsd info` and the export read it too.
 *
 * ARCHITECTURE.md, The method: network. That one ViT plays three roles is the paper's; every width and depth below is ours, chosen to meet the
 * stated totals (42M, 118M, 205M) within 1 %.
 */
import { nearest, UsageError } from '../core/errors.js';

/** Width d, depth L, attention heads, width of the SwiGLU's hidden layer. */
export interface Size {
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  readonly hidden: number;
}

export const SIZES = {
  /** For unit tests: a step in milliseconds. */
  toy: { width: 32, depth: 3, heads: 2, hidden: 64 },
  /** For CPUs: the demo. */
  demo: { width: 128, depth: 6, heads: 4, hidden: 320 },
  T: { width: 256, depth: 8, heads: 4, hidden: 672 },
  S: { width: 384, depth: 24, heads: 6, hidden: 928 },
  M: { width: 640, depth: 24, heads: 10, hidden: 1600 },
  B: { width: 768, depth: 28, heads: 12, hidden: 2048 },
} as const satisfies Record<string, Size>;

/** Everything that fixes the network's shapes. */
export interface ModelConfig extends Size {
  /** Side of the square picture in pixels; a multiple of `patch`. */
  readonly image: number;
  /** Colour channels of the picture: 3, or 1 for grey. */
  readonly channels: 1 | 3;
  /** Side of a patch in pixels. */
  readonly patch: number;
  /** Channels of the latent, a token: C. */
  readonly latent: number;
  /** Number of classes K; class K is the null class. */
  readonly classes: number;
  /** LayerNorm without affine on the latent (without it its scale runs away: ARCHITECTURE.md, The method: collapse and its cures). */
  readonly latentNorm: boolean;
  /** Prototypes of the representation head (DINO; ARCHITECTURE.md, The method: training). */
  readonly prototypes: number;
}

/** Sinusoidal features of t that enter the time MLP. */
export const TIME_FEATURES = 256;

/** How a parameter starts: a constant, or normal of this standard deviation cut at two of them. */
export type Init = 0 | 1 | { readonly std: number };

export interface ParameterSpec {
  readonly shape: readonly number[];
  readonly init: Init;
  /** A matrix (or its bias) applied to every token: held in the compute type during a step. Norms and what works on one row a picture stay float32. */
  readonly perToken: boolean;
  /** How many matrices lie in it one under the other, for an optimizer that treats matrices as such; 0: none. Of the trunk's blocks only. */
  readonly matrices: number;
  /** Used by losses only, never by encode, denoise or decode: not counted in the model's size, and not needed to sample. */
  readonly trainingOnly: boolean;
}

/** Tokens N of a picture. */
export const tokens = (config: ModelConfig): number => (config.image / config.patch) ** 2;

/** Values of one patch: patch * patch * channels. */
export const patchValues = (config: ModelConfig): number => config.patch ** 2 * config.channels;

/** The most effective rank of a latent: LayerNorm takes one dimension away. */
export const mostRank = ({ latent, latentNorm }: Pick<ModelConfig, 'latent' | 'latentNorm'>): number => latent - (latentNorm ? 1 : 0);

/** Pixel values to one latent value, e.g. 24 for 256 px, p = 16, C = 32. */
export const compression = (config: ModelConfig): number => patchValues(config) / config.latent;

/**
 * Checks that the shapes fit each other.
 * @throws UsageError that names the two numbers that disagree.
 */
export function checkModel(config: ModelConfig): void {
  const { image, patch, width, heads, latent } = config;
  if (image % patch !== 0)
    throw new UsageError(
      `a picture of ${image} px cannot be cut into patches of ${patch} px: choose an image size that ${patch} divides, e.g. ${Math.max(1, Math.round(image / patch)) * patch}`,
    );
  if (width % heads !== 0) throw new UsageError(`width ${width} cannot be shared by ${heads} heads: choose a multiple of ${heads}`);
  if ((width / heads) % 4 !== 0)
    throw new UsageError(
      `a head of ${width / heads} dimensions cannot carry two-dimensional rotary positions: it must be a multiple of 4 (width ${width}, ${heads} heads)`,
    );
  if (config.latentNorm && latent < 2)
    throw new UsageError(`latent has ${latent} channel: with latentNorm it needs at least 2, since LayerNorm takes one dimension away`);
}

/** Looks a size up by name. @throws UsageError naming the known sizes. */
export function size(name: string): Size {
  const found = Object.entries(SIZES).find(([known]) => known === name);
  if (found) return found[1];
  const known = Object.keys(SIZES);
  const guess = nearest(name, known);
  throw new UsageError(`there is no size '${name}'${guess ? `; did you mean '${guess}'?` : ''} Known sizes: ${known.join(', ')}`);
}

/**
 * Every parameter of the network by its name in a weights file, with shape and initialisation, in the order of use.
 * The residual projections are divided by sqrt(2 L) so that the stream's variance does not grow with depth; modulation starts at zero,
 * so an untrained block ignores time, class and role.
 */
export function parameters(config: ModelConfig): Map<string, ParameterSpec> {
  const { width: d, depth, hidden, latent: C, classes: K, prototypes: P } = config;
  const table = new Map<string, ParameterSpec>();
  const normal: Init = { std: 0.02 };
  const residual: Init = { std: 0.02 / Math.sqrt(2 * depth) };
  const add = (name: string, shape: number[], init: Init, perToken: boolean, trainingOnly = false, matrices = 0) =>
    table.set(name, { shape, init, perToken, matrices, trainingOnly });
  const linear = (name: string, out: number, into: number, perToken: boolean, trainingOnly = false) => {
    add(`${name}.weight`, [out, into], normal, perToken, trainingOnly);
    add(`${name}.bias`, [out], 0, perToken, trainingOnly);
  };

  linear('patch_in', d, patchValues(config), true);
  add('mask_token', [d], normal, true);
  linear('latent_in', d, C, true);

  linear('trunk.time.0', d, TIME_FEATURES, false);
  linear('trunk.time.2', d, d, false);
  add('trunk.class.weight', [K + 1, d], normal, false);
  add('trunk.role.weight', [3, d], normal, false);
  add('trunk.modulation.weight', [6 * d, d], 0, false);
  add('trunk.modulation.bias', [6 * d], 0, false);
  for (let i = 0; i < depth; i++) {
    const block = `trunk.blocks.${i}`;
    add(`${block}.qkv.weight`, [3 * d, d], normal, true, false, 3);
    add(`${block}.q_norm.weight`, [d / config.heads], 1, false);
    add(`${block}.k_norm.weight`, [d / config.heads], 1, false);
    add(`${block}.proj.weight`, [d, d], residual, true, false, 1);
    add(`${block}.gate_up.weight`, [2 * hidden, d], normal, true, false, 2);
    add(`${block}.down.weight`, [d, hidden], residual, true, false, 1);
    add(`${block}.table`, [6, d], 0, false);
  }

  linear('latent_out', C, d, true);
  linear('denoise_out', C, d, true);
  linear('patch_out', patchValues(config), d, true);

  for (const layer of [0, 2, 4]) linear(`align.${layer}`, d, d, true, true);
  linear('represent.0', d, d, false, true);
  linear('represent.2', Math.min(d, 256), d, false, true);
  add('represent.prototypes', [P, Math.min(d, 256)], normal, false, true);
  linear('classify', Math.max(1, K), d, false, true);
  return table;
}

/** Number of parameters that encode, denoise and decode use (the count a paper states), and of the training heads beside them. */
export function countParameters(config: ModelConfig): { readonly model: number; readonly heads: number } {
  let model = 0;
  let heads = 0;
  for (const { shape, trainingOnly } of parameters(config).values()) {
    const count = shape.reduce((product, side) => product * side, 1);
    if (trainingOnly) heads += count;
    else model += count;
  }
  return { model, heads };
}

/**
 * Floating-point operations of one forward pass of one picture through the trunk: two a multiply-add, matrix products and attention only.
 * A training step is counted as 10 of these at k = 1 without mask (1 EMA encode; encode, denoise and decode forward and twice backward).
 */
export function forwardFlops(config: ModelConfig): number {
  const { width: d, depth, hidden } = config;
  const N = tokens(config);
  return depth * (2 * N * (4 * d * d + 3 * d * hidden) + 4 * N * N * d);
}
