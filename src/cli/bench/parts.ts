/** The parts of a block that are one operator each, with what they cannot do without: bytes to move and FLOPs. */
import { key } from '../../core/random.js';
import { type ModelConfig, tokens } from '../../dsd/sizes.js';
import { type BlockWeights, block, rotary } from '../../dsd/vit.js';
import { EPSILON } from '../../nn/layers.js';
import { plain } from '../../torch/fused.js';
import { addNorm, type Device, type DType, dtypeBytes, noGrad, qkvAttention, randn, swiglu, type Tensor } from '../../torch/index.js';

/** The least that has to be done: every input read once and every output written once, and the arithmetic of matrix products. */
export interface Cost {
  readonly bytes: number;
  readonly flops: number;
}

/** A part with inputs of its own. */
export interface Instance {
  /** Those that a gradient is wanted for. */
  readonly inputs: readonly Tensor[];
  readonly fused: () => readonly Tensor[];
  /** The same as a composition. */
  readonly plain: () => readonly Tensor[];
}

export interface Part {
  readonly name: string;
  readonly forward: Cost;
  readonly backward: Cost;
  /** How many of it a block has. */
  readonly times: number;
  /** @param seed of its inputs */
  readonly make: (seed: number) => Instance;
}

export interface Shape {
  readonly model: ModelConfig;
  readonly batch: number;
  readonly device: Device;
  /** What enters matrix products. */
  readonly compute: DType;
}

/** Numbers from a normal distribution: on zeros a device can be faster than it is. */
export const numbers = ({ device }: Shape, seed: number, name: string, shape: readonly number[], dtype: DType, grad = false): Tensor => {
  const drawn = randn(key(seed, name), 0, shape, { dtype, device });
  return grad ? drawn.requiresGrad_(true) : drawn;
};

export function blockParts(shape: Shape): Part[] {
  const { model, batch, device, compute } = shape;
  const { width: d, hidden: F, heads } = model;
  const N = tokens(model);
  const rows = batch * N;
  // As the trunk has them: on a GPU the stream is stored as what the matrices multiply in.
  const stream: DType = device === 'cpu' ? 'float32' : compute;
  const [wide, flow, narrow] = [dtypeBytes('float32'), dtypeBytes(stream), dtypeBytes(compute)];
  const vectors = batch * d * wide; // a shift, a scale or a gate
  const turn = rotary(model, numbers(shape, 0, 'like', [1], 'float32'));
  const draw = (seed: number, name: string, size: readonly number[], dtype: DType): Tensor => numbers(shape, seed, name, size, dtype, true);
  return [
    {
      name: 'addNorm: gated residual, RMSNorm, adaLN',
      times: 2,
      // x and y in; x and the normed out.
      forward: { bytes: rows * d * (2 * flow + 2 * narrow) + 3 * vectors, flops: 0 },
      // The gradients of both outputs, x and y in; those of x and y out, and of gate, shift and scale.
      backward: { bytes: rows * d * (3 * flow + 3 * narrow) + 6 * vectors, flops: 0 },
      make: (seed) => {
        const [x, y] = [draw(seed, 'x', [batch, N, d], stream), draw(seed, 'y', [batch, N, d], compute)];
        const [gate, shift, scale] = ['gate', 'shift', 'scale'].map((name) => draw(seed, name, [batch, d], 'float32')) as Three;
        const before = { x, branch: { gate, y } };
        return {
          inputs: [x, y, gate, shift, scale],
          fused: () => addNorm(before, { shift, scale }, EPSILON, compute),
          plain: () => plain.addNorm(before, { shift, scale }, EPSILON, compute),
        };
      },
    },
    {
      name: 'swiglu',
      times: 1,
      forward: { bytes: rows * F * 3 * narrow, flops: 0 },
      backward: { bytes: rows * F * 5 * narrow, flops: 0 },
      make: (seed) => {
        const x = draw(seed, 'x', [batch, N, 2 * F], compute);
        return { inputs: [x], fused: () => [swiglu(x)], plain: () => [plain.swiglu(x)] };
      },
    },
    {
      name: 'qkvAttention: QK-norm, RoPE, attention',
      times: 1,
      forward: { bytes: rows * d * 4 * narrow, flops: 4 * rows * N * d },
      // The output and its gradient, q, k and v in; their gradients out. Of five products one makes the scores again.
      backward: { bytes: rows * d * 8 * narrow, flops: 10 * rows * N * d },
      make: (seed) => {
        const qkv = draw(seed, 'qkv', [batch, N, 3 * d], compute);
        const [q, k] = [draw(seed, 'q', [d / heads], 'float32'), draw(seed, 'k', [d / heads], 'float32')];
        const norms = { q, k, ...turn };
        return {
          inputs: [qkv, q, k],
          fused: () => [qkvAttention(qkv, heads, norms, EPSILON)],
          plain: () => [plain.attention(...plain.splitHeads(qkv, heads, norms, EPSILON))],
        };
      },
    },
  ];
}

type Three = [Tensor, Tensor, Tensor];

/** A matrix product of a block: rows x into -> rows x out. */
export interface Product {
  readonly name: string;
  readonly rows: number;
  readonly into: number;
  readonly out: number;
}

export function blockProducts({ model, batch }: Shape): Product[] {
  const { width: d, hidden: F } = model;
  const rows = batch * tokens(model);
  return [
    { name: 'qkv', rows, into: d, out: 3 * d },
    { name: 'proj', rows, into: d, out: d },
    { name: 'gate_up', rows, into: d, out: 2 * F },
    { name: 'down', rows, into: F, out: d },
  ];
}

/** A whole block as the trunk has it, with weights of its own: whatever lies between the parts is in it too. */
export function makeBlock(shape: Shape, seed: number): Pick<Instance, 'inputs' | 'fused'> {
  const { model, batch, device, compute } = shape;
  const { width: d, hidden: F, heads } = model;
  const N = tokens(model);
  const stream: DType = device === 'cpu' ? 'float32' : compute;
  const draw = (name: string, size: readonly number[], dtype: DType, scale = 1): Tensor =>
    noGrad(() => numbers(shape, seed, name, size, dtype).mul(scale)).requiresGrad_(true);
  const weight = (name: string, out: number, into: number) => ({ weight: draw(name, [out, into], compute, 0.02) });
  const weights: BlockWeights = {
    ...{ qkv: weight('qkv', 3 * d, d), proj: weight('proj', d, d), gateUp: weight('gate_up', 2 * F, d), down: weight('down', d, F) },
    ...{
      qNorm: draw('q', [d / heads], 'float32'),
      kNorm: draw('k', [d / heads], 'float32'),
      table: draw('table', [6, d], 'float32', 0.02),
    },
  };
  const turn = rotary(model, numbers(shape, 0, 'like', [1], 'float32'));
  const [x, y] = [draw('x', [batch, N, d], stream), draw('y', [batch, N, d], compute)];
  const [gate, modulation] = [draw('gate', [batch, d], 'float32', 0.02), draw('modulation', [batch, 6, d], 'float32', 0.02)];
  const { qkv, proj, gateUp, down, qNorm, kNorm, table } = weights;
  return {
    inputs: [x, y, gate, modulation, qkv.weight, proj.weight, gateUp.weight, down.weight, qNorm, kNorm, table],
    fused: () => {
      const after = block(weights, heads, { x, branch: { gate, y } }, modulation.add(table), turn);
      return [after.x, ...(after.branch ? [after.branch.gate, after.branch.y] : [])];
    },
  };
}
