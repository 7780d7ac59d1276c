/**
 * The sum of one number a picture, in float64, the same to the last bit on a CPU however the pictures were cut into batches: numbers are
 * gathered in blocks of a fixed length, and blocks are added in order.
 */
import { cat, keep, noGrad, scope, type Tensor, zeros } from '../torch/index.js';

const BLOCK = 4096;

export class Tally {
  private state: Tensor | undefined; // (BLOCK + 1): the sum of full blocks, then a block of which the first `filled` are waiting
  private filled = 0;
  private blocks = 0;

  get count(): number {
    return this.blocks * BLOCK + this.filled;
  }

  /** Adds numbers (B) of any float type. Does not wait for the device. What is held lives until `dispose`, outside of every scope. */
  add(values: Tensor): void {
    noGrad(() =>
      scope(() => {
        this.state ??= keep(zeros([BLOCK + 1], { dtype: 'float64', device: values.device }));
        const [total, block] = [this.state.narrow(0, 0, 1), this.state.narrow(0, 1, BLOCK)];
        const length = values.shape[0] ?? 0;
        for (let at = 0; at < length; ) {
          const take = Math.min(length - at, BLOCK - this.filled);
          block.narrow(0, this.filled, take).copy_(values.detach().narrow(0, at, take));
          at += take;
          this.filled += take;
          if (this.filled < BLOCK) continue;
          total.add_(block.sum());
          this.filled = 0;
          this.blocks++;
        }
      }),
    );
  }

  /** The sum so far; 0 of nothing. Waits for the device. */
  sum(): number {
    const { state } = this;
    if (!state) return 0;
    return noGrad(() =>
      scope(() =>
        Number(
          state
            .select(0, 0)
            .add(state.narrow(0, 1, this.filled).sum())
            .item(),
        ),
      ),
    );
  }

  /** Frees what is held; the next number starts anew. */
  dispose(): void {
    this.state?.dispose();
    this.state = undefined;
    this.filled = 0;
    this.blocks = 0;
  }
}

/** The sum over all but the first dimension: (B, ...) -> (B). Each is the same to the bit whatever B is, on a CPU. */
export function sumEach(values: Tensor): Tensor {
  return scope(() => {
    const rows = values.flatten(1);
    // A lone sum is shared among threads, the sums of several rows are not: a row that is alone gets company.
    return rows.shape[0] === 1 ? cat([rows, rows]).sum(1).narrow(0, 0, 1) : rows.sum(1);
  });
}
