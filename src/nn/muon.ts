/**
 * Muon: momentum, then an update made orthogonal by Newton and Schulz's iteration, for the matrices inside the trunk. Jordan et al. 2024
 * (kellerjordan.github.io/posts/muon); the scale that lets it share AdamW's learning rate is Liu et al.'s, arXiv 2502.16982, section 2.2.
 *
 * Matrices of one shape are stacked and treated as one batch, so a step costs a few dozen operator calls whatever the depth.
 */
import { cat, type DType, scope, type Tensor, where, zeros } from '../torch/index.js';

/** Coefficients of the quintic a x + b x^3 + c x^5, which drives singular values towards 1 in five rounds. */
const [A, B, C] = [3.4445, -4.775, 2.0315];
const ROUNDS = 5;
const MOMENTUM = 0.95;

/** The nearest orthogonal matrices, roughly (singular values end between about 0.7 and 1.2). x (M, r, q) in any floating type. */
export function orthogonalize(x: Tensor, compute: DType): Tensor {
  const [, r, q] = x.shape as [number, number, number];
  const tall = r > q;
  let u = scope(() => (tall ? x.transpose(1, 2) : x).div(x.norm(2, [1, 2], true).add(1e-7)).to({ dtype: compute }));
  for (let round = 0; round < ROUNDS; round++) {
    const before = u;
    u = scope(() => {
      const square = before.matmul(before.transpose(1, 2)); // (M, min, min)
      return before.mul(A).add(square.mul(B).add(square.matmul(square).mul(C)).matmul(before));
    });
    before.dispose();
  }
  return (tall ? u.transpose(1, 2) : u).to({ dtype: x.dtype });
}

/** A parameter that is `count` matrices of (r, q) one under the other. */
export interface Stacked {
  readonly name: string;
  readonly weight: Tensor;
  readonly count: number;
}

/** What a step takes beside gradients. */
export interface MuonStep {
  readonly learningRate: Tensor; // 0-d
  readonly weightDecay: number;
  readonly scale: Tensor; // 0-d
  readonly finite: Tensor; // 0-d bool
}

/** All matrices of one shape, with their momentum. */
export class MuonGroup {
  /** (M, r, q) */
  readonly momentum: Tensor;

  constructor(
    readonly members: readonly Stacked[],
    private readonly rows: number,
    private readonly columns: number,
    private readonly compute: DType,
  ) {
    const total = members.reduce((sum, { count }) => sum + count, 0);
    const { dtype, device } = (members[0] as Stacked).weight;
    this.momentum = zeros([total, rows, columns], { dtype, device });
  }

  /**
   * One step from the members' gradients, which are divided by `scale` first; where `finite` (0-d bool) is false nothing changes. Runs without
   * gradient. Weight decay is decoupled, as AdamW's: learningRate * weightDecay of each weight is taken away.
   */
  update(gradients: readonly Tensor[], { learningRate, weightDecay, scale, finite }: MuonStep): void {
    const [r, q] = [this.rows, this.columns];
    scope(() => {
      const nesterov = scope(() => {
        const stacked = cat(gradients.map((gradient) => gradient.reshape(-1, r, q))).div(scale);
        this.momentum.copy_(where(finite, this.momentum.lerp(stacked, 1 - MOMENTUM), this.momentum));
        return where(finite, stacked.lerp(this.momentum, MOMENTUM), 0);
      });
      const size = learningRate.mul(-0.2 * Math.sqrt(Math.max(r, q))); // 0-d
      const update = orthogonalize(nesterov, this.compute).mul_(size);
      let at = 0;
      for (const { weight, count } of this.members) {
        const own = update.narrow(0, at, count).reshape(...weight.shape);
        weight.add_(where(finite, weightDecay > 0 ? own.sub(weight.mul(learningRate.mul(weightDecay))) : own, 0));
        at += count;
      }
    });
  }
}
