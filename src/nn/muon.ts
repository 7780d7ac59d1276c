/**
 * Muon: momentum, then an update made orthogonal by Newton and Schulz's iteration, for the matrices inside the trunk. Jordan et al. 2024
 * (kellerjordan.github.io/posts/muon); the scale that lets it share AdamW's learning rate is Liu et al.'s, arXiv 2502.16982, section 2.2.
 *
 * Matrices of one shape are stacked and treated as one batch, so a step costs a few dozen operator calls whatever the depth.
 */
import { type DType, muonDirection, quintic_, scope, type Tensor, zeros } from '../torch/index.js';

/** Coefficients of the quintic a x + b x^3 + c x^5, which drives singular values towards 1 in five rounds. */
const [A, B, C] = [3.4445, -4.775, 2.0315];
const ROUNDS = 5;
const MOMENTUM = 0.95;

/**
 * The nearest orthogonal matrices, roughly (singular values end between about 0.7 and 1.2), of u (M, r, q), whose norms are at most 1. A round
 * is u' = (A + B s + C s^2) u with s = u u^T, taken on the side on which s is smaller.
 */
export function orthogonalize(u: Tensor): Tensor {
  const [, r, q] = u.shape as [number, number, number];
  for (let round = 0; round < ROUNDS; round++) {
    const before = u;
    u = scope(() => {
      const turned = before.transpose(1, 2);
      const s = r > q ? turned.matmul(before) : before.matmul(turned); // (M, min, min)
      const polynomial = s.matmul(s);
      quintic_(polynomial, s, A, B, C);
      return r > q ? before.matmul(polynomial) : polynomial.matmul(before);
    });
    if (round > 0) before.dispose();
  }
  return u;
}

/** A parameter that is `count` matrices of (r, q) one under the other. */
export interface Stacked {
  readonly name: string;
  readonly weight: Tensor;
  readonly count: number;
}

/** All matrices of one shape, with their momentum. */
export class MuonGroup {
  /** (M, r, q) */
  readonly momentum: Tensor;
  /** What the direction is multiplied by, so that AdamW's learning rate does for both. */
  readonly scale: number;

  constructor(
    readonly members: readonly Stacked[],
    rows: number,
    columns: number,
    private readonly compute: DType,
  ) {
    const total = members.reduce((sum, { count }) => sum + count, 0);
    const { dtype, device } = (members[0] as Stacked).weight;
    this.momentum = zeros([total, rows, columns], { dtype, device });
    this.scale = 0.2 * Math.sqrt(Math.max(rows, columns));
  }

  /** The direction in which each member goes, from their gradients; where the step's are not finite it is of no meaning, and momentum stays. */
  directions(gradients: readonly Tensor[], numbers: Tensor): Tensor[] {
    return scope(() => {
      const all = orthogonalize(muonDirection(gradients, this.momentum, numbers, MOMENTUM, this.compute)); // (M, r, q)
      let at = 0;
      return this.members.map(({ weight, count }) => {
        at += count;
        return all.narrow(0, at - count, count).view(...weight.shape);
      });
    });
  }
}
