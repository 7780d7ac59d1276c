/**
 * Mean and covariance of rows that arrive in batches, in float64. What the effective rank, the per-patch PCA and the Frechet distance share.
 *
 * Rows are gathered in blocks of a fixed length before they are multiplied, so that on one machine the result is the same to the
 * last bit however the rows were cut into batches. Sums are taken about the mean of the first block: sum x x^T minus n mean mean^T would
 * cancel where the mean is large beside the deviation.
 */
import { FailureError } from '../core/errors.js';
import { keep, noGrad, scope, type Tensor, zeros } from '../torch/index.js';

/** What a set of rows comes down to. Plain data: it can be saved, and nothing has to be freed. */
export interface Statistics {
  /** Number of rows; Infinity where it is not known, as of statistics from most files. */
  readonly count: number;
  /** D values. */
  readonly mean: Float64Array;
  /** D * D values, over count - 1. */
  readonly covariance: Float64Array;
}

/** Rows of a block; of 48 or 2,048 columns it takes 1.5 or 64 MiB. */
const BLOCK = 4096;

interface State {
  readonly dimension: number;
  readonly block: Tensor; // (BLOCK, D), the first `filled` rows are waiting
  readonly shift: Tensor; // (D)
  readonly sum: Tensor; // (D), of the rows less the shift
  readonly outer: Tensor; // (D, D), likewise
}

export class Moments {
  private state: State | undefined;
  private filled = 0;
  private blocks = 0;

  get count(): number {
    return this.blocks * BLOCK + this.filled;
  }

  /**
   * Adds rows (..., D) of any float type; D and the device are those of the first. Does not wait for the device. What is held lives until
   * `dispose`, outside of every scope.
   */
  add(rows: Tensor): void {
    noGrad(() =>
      scope(() => {
        const D = rows.shape.at(-1) as number;
        this.state ??= start(D, rows);
        const state = this.state;
        if (D !== state.dimension) throw new RangeError(`moments: rows of ${D} values after rows of ${state.dimension}`);
        const flat = rows.detach().reshape(-1, D);
        const length = flat.shape[0] as number;
        for (let at = 0; at < length; ) {
          const take = Math.min(length - at, BLOCK - this.filled);
          state.block.narrow(0, this.filled, take).copy_(flat.narrow(0, at, take));
          at += take;
          this.filled += take;
          if (this.filled === BLOCK) this.fold(state);
        }
      }),
    );
  }

  /** A full block goes into the sums. */
  private fold({ block, shift, sum, outer }: State): void {
    if (this.blocks === 0) shift.copy_(block.mean(0));
    const centred = block.sub(shift);
    sum.add_(centred.sum(0));
    outer.add_(centred.transpose(0, 1).matmul(centred));
    this.blocks++;
    this.filled = 0;
  }

  /**
   * The statistics of all rows so far; more may follow.
   * @throws FailureError for fewer than two rows, or when a value was not finite
   */
  read(): Statistics {
    const { count, state } = this;
    if (!state || count < 2) throw new FailureError(`a covariance needs at least two rows, got ${count}`);
    const { mean, covariance } = noGrad(() =>
      scope(() => {
        const rest = state.block.narrow(0, 0, this.filled);
        const shift = this.blocks === 0 ? rest.mean(0) : state.shift;
        const centred = rest.sub(shift);
        const sum = state.sum.add(centred.sum(0));
        const outer = state.outer.add(centred.transpose(0, 1).matmul(centred));
        const offset = sum.div(count); // (D)
        const products = offset.unsqueeze(1).matmul(sum.unsqueeze(0)); // (D, D)
        return {
          mean: shift.add(offset).toArray() as Float64Array,
          covariance: outer
            .sub(products)
            .div(count - 1)
            .toArray() as Float64Array,
        };
      }),
    );
    for (let i = 0; i < mean.length; i++)
      if (!Number.isFinite(mean[i]) || !Number.isFinite(covariance[i * mean.length + i]))
        throw new FailureError(`column ${i} of ${count} rows holds values that are not finite: they have no mean and covariance`);
    return { count, mean, covariance };
  }

  /** Frees the state; the next row starts anew. */
  dispose(): void {
    if (this.state) for (const tensor of [this.state.block, this.state.shift, this.state.sum, this.state.outer]) tensor.dispose();
    this.state = undefined;
    this.filled = 0;
    this.blocks = 0;
  }
}

function start(dimension: number, { device }: Tensor): State {
  const make = (...shape: number[]) => keep(zeros(shape, { dtype: 'float64', device }));
  return { dimension, block: make(BLOCK, dimension), shift: make(dimension), sum: make(dimension), outer: make(dimension, dimension) };
}

/** The statistics of rows (..., D) that are at hand. @throws FailureError as Moments.read */
export function statistics(rows: Tensor): Statistics {
  const moments = new Moments();
  try {
    moments.add(rows);
    return moments.read();
  } finally {
    moments.dispose();
  }
}
