/**
 * The trunk: the one Vision Transformer behind the three roles. ARCHITECTURE.md, The method: network.
 * Shapes: B pictures, N = n*n tokens, d width, h heads, F hidden width.
 */
import { EPSILON, mlp, project, rms } from '../nn/layers.js';
import type { Linear, Weights } from '../nn/weights.js';
import {
  arange,
  attention,
  cat,
  embedding,
  full,
  gatedAdd,
  modulatedNorm,
  ones,
  scope,
  splitHeads,
  swiglu,
  type Tensor,
} from '../torch/index.js';
import { type ModelConfig, TIME_FEATURES } from './sizes.js';

/** What the trunk is used for; the embedding of this number is all that tells the three apart. */
export const ROLE = { encode: 0, denoise: 1, decode: 2 } as const;
export type Role = keyof typeof ROLE;

/** What the trunk returns: the normalised last tokens, and the tokens after the block that was asked for. */
export interface TrunkOutput {
  readonly tokens: Tensor; // (B, N, d)
  readonly tap?: Tensor; // (B, N, d)
}

/** cos and sin of the rotary angles, (N, hd/2) each: the first half of the pairs turns with the row, the second with the column. */
export interface Rotary {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

export function rotary(config: ModelConfig, like: Tensor): Rotary {
  const n = config.image / config.patch;
  const quarter = config.width / config.heads / 4;
  const options = { dtype: like.dtype, device: like.device } as const;
  return scope(() => {
    const frequency = arange(quarter, { ...options, dtype: 'float64' })
      .mul(-Math.log(10000) / quarter)
      .exp(); // (hd/4)
    const angle = arange(n, { ...options, dtype: 'float64' })
      .unsqueeze(1)
      .mul(frequency); // (n, hd/4)
    const rows = angle
      .unsqueeze(1)
      .expand(n, n, quarter)
      .reshape(n * n, quarter);
    const columns = angle
      .unsqueeze(0)
      .expand(n, n, quarter)
      .reshape(n * n, quarter);
    const both = cat([rows, columns], 1); // (N, hd/2)
    return { cos: both.cos().to(options), sin: both.sin().to(options) };
  });
}

/** Sinusoidal features of 1000 t: (B) -> (B, 256), in float64, since the fastest angle magnifies t's rounding a thousandfold. */
export function timeFeatures(t: Tensor): Tensor {
  const half = TIME_FEATURES / 2;
  const wide = { dtype: 'float64', device: t.device } as const;
  const frequency = arange(half, wide)
    .mul(-Math.log(10000) / half)
    .exp();
  const angle = t.to(wide).mul(1000).unsqueeze(1).mul(frequency);
  return cat([angle.cos(), angle.sin()], 1);
}

export interface BlockWeights {
  readonly qkv: Linear;
  readonly proj: Linear;
  readonly gateUp: Linear;
  readonly down: Linear;
  readonly qNorm: Tensor;
  readonly kNorm: Tensor;
  readonly table: Tensor;
}

export function blockWeights(trunk: Weights, i: number): BlockWeights {
  const w = trunk.at(`blocks.${i}`);
  return {
    qkv: w.linear('qkv'),
    proj: w.linear('proj'),
    gateUp: w.linear('gate_up'),
    down: w.linear('down'),
    qNorm: w.get('q_norm.weight'),
    kNorm: w.get('k_norm.weight'),
    table: w.get('table'),
  };
}

/** One block. x (B, N, d) float32 or wider; modulation (B, 6, d). */
export function block(w: BlockWeights, heads: number, x: Tensor, modulation: Tensor, turn: Rotary): Tensor {
  const m = modulation.add(w.table).unbind(1) as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]; // (B, d) each
  const [shift1, scale1, gate1, shift2, scale2, gate2] = m;
  const narrow = w.qkv.weight.dtype; // what the matrices multiply in

  const qkv = project(w.qkv, modulatedNorm(x, shift1, scale1, EPSILON, narrow)); // (B, N, 3d)
  const [q, k, v] = splitHeads(qkv, heads, { q: w.qNorm, k: w.kNorm, ...turn }, EPSILON); // (B, h, N, hd) each, q and k with norm and position
  const x1 = gatedAdd(x, gate1, project(w.proj, attention(q, k, v)));

  const hidden = swiglu(project(w.gateUp, modulatedNorm(x1, shift2, scale2, EPSILON, narrow))); // (B, N, F)
  return gatedAdd(x1, gate2, project(w.down, hidden));
}

/**
 * The trunk. h (B, N, d) embedded patches or latents, t (B) in [0, 1] (1 clean, 0 noise), y (B) int64 classes (K for none).
 * `tapAfter` asks for the tokens after that many blocks (1 = the first).
 */
export function trunk(
  weights: Weights,
  config: ModelConfig,
  h: Tensor,
  t: Tensor,
  y: Tensor,
  role: Role,
  turn: Rotary,
  tapAfter?: number,
): TrunkOutput {
  const w = weights.at('trunk');
  const time = mlp([w.linear('time.0'), w.linear('time.2')], (x) => x.silu(), timeFeatures(t)); // (B, d)
  const condition = time.add(embedding(w.get('class.weight'), y)).add(w.get('role.weight').select(0, ROLE[role])); // (B, d)
  const modulation = project(w.linear('modulation'), condition.silu()).view(-1, 6, config.width); // (B, 6, d)
  let x = h.to({ dtype: condition.dtype }); // the residual stream stays in the weights' wide type
  let tap: Tensor | undefined;
  for (let i = 0; i < config.depth; i++) {
    const before = x;
    // Without a scope for each block, a pass without gradient would hold every block's activations to its end.
    x = scope(() => block(blockWeights(w, i), config.heads, before, modulation, turn));
    if (i > 0 && before !== tap) before.dispose();
    if (i + 1 === tapAfter) tap = x;
  }
  const tokens = rms(x);
  return tap ? { tokens, tap } : { tokens };
}

/** Conditioning of the two roles that know neither time nor class: t = 1 and the null class. */
export function unconditional(config: ModelConfig, batch: number, like: Tensor): { t: Tensor; y: Tensor } {
  return {
    t: ones([batch], { dtype: like.dtype, device: like.device }),
    y: full([batch], config.classes, { dtype: 'int64', device: like.device }),
  };
}
