/**
 * The trunk: the one Vision Transformer behind the three roles. ARCHITECTURE.md, The method: network.
 * Shapes: B pictures, N = n*n tokens, d width, h heads, F hidden width.
 */
import { EPSILON, mlp, project } from '../nn/layers.js';
import type { Linear, Weights } from '../nn/weights.js';
import {
  addLinear,
  addNorm,
  addNormLinear,
  addNormMlp,
  arange,
  cat,
  embedding,
  full,
  ones,
  qkvAttention,
  type Stream,
  scope,
  settled,
  stack,
  type Tensor,
} from '../torch/index.js';
import { type ModelConfig, TIME_FEATURES } from './sizes.js';

/** What the trunk is used for; the embedding of this number is all that tells the three apart. */
export const ROLE = { encode: 0, denoise: 1, decode: 2 } as const;
export type Role = keyof typeof ROLE;

/** What is sent through the trunk: h (B, N, d) embedded patches or latents, t (B) in [0, 1] (1 clean, 0 noise), y (B) int64 classes (K for none). */
export interface TrunkInput {
  readonly role: Role;
  readonly h: Tensor;
  readonly t: Tensor;
  readonly y: Tensor;
  /** Asks for the tokens after that many blocks (1 = the first). */
  readonly tapAfter?: number | undefined;
}

/** What the trunk returns: the normalised last tokens, in the stream's type, and the tokens after the block that was asked for. */
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

/**
 * One block, from stream to stream (B, N, d); modulation (B, 6, d), its table already added, float32 or wider. A branch is added to the stream where the
 * next norm reads it, in one pass over memory, or, where no gradient is recorded, by the product that it ends with. Whatever is put between these lines
 * just works, in as many passes as it has operators.
 */
export function block(w: BlockWeights, heads: number, stream: Stream, modulation: Tensor, turn: Rotary): Stream {
  const [shift1, scale1, gate1, shift2, scale2, gate2] = modulation.unbind(1) as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]; // (B, d) each
  const [x, qkv] = addNormLinear(stream, { shift: shift1, scale: scale1 }, EPSILON, w.qkv.weight); // (B, N, 3d)
  const attended = qkvAttention(qkv, heads, { q: w.qNorm, k: w.kNorm, ...turn }, EPSILON); // (B, N, d)
  const after = addLinear(x, gate1, attended, w.proj.weight); // (B, N, d)

  const weights = { gateUp: w.gateUp.weight, down: w.down.weight };
  return addNormMlp(after, { shift: shift2, scale: scale2 }, EPSILON, weights, gate2); // (B, N, d)
}

/**
 * The trunk. Several inputs go through it as one batch, which makes the same results of larger matrix products; each gets its own output.
 * They may differ in everything but N.
 */
export function trunk(weights: Weights, config: ModelConfig, inputs: readonly TrunkInput[], turn: Rotary): TrunkOutput[] {
  const w = weights.at('trunk');
  const sizes = inputs.map(({ h }) => h.shape[0] as number);
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
  const joined = (of: (input: TrunkInput) => Tensor): Tensor => (inputs.length === 1 ? of(inputs[0] as TrunkInput) : cat(inputs.map(of)));
  const own = (rows: Tensor, i: number): Tensor => (inputs.length === 1 ? rows : rows.narrow(0, starts[i] as number, sizes[i] as number));

  const time = mlp([w.linear('time.0'), w.linear('time.2')], (x) => x.silu(), timeFeatures(joined(({ t }) => t))); // (B, d)
  const role = joined(({ role, h }) =>
    w
      .get('role.weight')
      .select(0, ROLE[role])
      .expand(h.shape[0] as number, config.width),
  ); // (B, d)
  const condition = time
    .add(
      embedding(
        w.get('class.weight'),
        joined(({ y }) => y),
      ),
    )
    .add(role); // (B, d)
  const blocks = Array.from({ length: config.depth }, (_, i) => blockWeights(w, i));
  // Of all blocks at once, (L, B, 6, d): block by block, these small sums and those of their gradients cost a GPU more than what they compute.
  const shared = project(w.linear('modulation'), condition.silu()).view(-1, 6, config.width);
  const modulations = stack(blocks.map(({ table }) => table))
    .unsqueeze(1)
    .add(shared)
    .unbind(0);
  const wide = condition.dtype;
  // The residual stream is wide on the CPU. A GPU's passes over it do nothing but move bytes: there it is stored as what the matrices multiply in.
  const narrow = (blocks[0] as BlockWeights).qkv.weight.dtype;
  const first: Stream = { x: joined(({ h }) => h).to({ dtype: condition.device === 'cpu' ? wide : narrow }) };
  let stream = first;
  const taps = new Map<number, Tensor>();
  const isTap = ({ x }: Stream): boolean => [...taps.values()].includes(x);
  for (const [i, of] of blocks.entries()) {
    const before = stream;
    // Without a scope for each block, a pass without gradient would hold every block's activations to its end.
    stream = scope(() => block(of, config.heads, before, modulations[i] as Tensor, turn));
    if (before !== first && !isTap(before)) free(before);
    if (!inputs.some(({ tapAfter }) => tapAfter === i + 1)) continue;
    const tap = settled(stream);
    if (tap !== stream.x) free(stream);
    stream = { x: tap };
    taps.set(i + 1, tap);
  }
  const [, tokens] = addNorm(stream, undefined, EPSILON, stream.x.dtype);
  return inputs.map(({ tapAfter }, i) => {
    const tap = tapAfter === undefined ? undefined : taps.get(tapAfter);
    return { tokens: own(tokens, i), ...(tap ? { tap: own(tap, i).to({ dtype: wide }) } : {}) };
  });
}

function free({ x, branch }: Stream): void {
  for (const tensor of [x, branch?.gate, branch?.y]) tensor?.dispose();
}

/** Conditioning of the two roles that know neither time nor class: t = 1 and the null class. */
export function unconditional(config: ModelConfig, batch: number, like: Tensor): { t: Tensor; y: Tensor } {
  return {
    t: ones([batch], { dtype: like.dtype, device: like.device }),
    y: full([batch], config.classes, { dtype: 'int64', device: like.device }),
  };
}
