/** The first samples of each set, kept to be shown. */
import type { SamplerOptions } from '../../dsd/sampler.js';
import { scope, type Tensor } from '../../torch/index.js';
import type { Outcome } from './outcome.js';

export class Shown {
  private readonly parts: Uint8Array[][];
  private shape: readonly number[] = [];

  constructor(
    private readonly settings: readonly SamplerOptions[],
    private readonly most: number,
  ) {
    this.parts = settings.map(() => []);
  }

  /** @param pixels samples first, first + 1, ... of a set: (B, H, H, ch) uint8 */
  see(set: number, first: number, pixels: Tensor): void {
    const [count = 0, ...shape] = pixels.shape;
    const take = Math.min(count, this.most - first);
    if (take <= 0) return;
    this.shape = shape;
    this.parts[set]?.push(scope(() => pixels.narrow(0, 0, take).contiguous().toArray() as Uint8Array));
  }

  read(): NonNullable<Outcome['drawn']> {
    const [size = 0, , channels] = this.shape;
    const sets = this.settings.map(({ guidance }, i) => ({ guidance, bytes: Buffer.concat(this.parts[i] ?? []) }));
    return {
      ...{ size, channels: channels === 1 ? 1 : 3 },
      count: (sets[0]?.bytes.length ?? 0) / (size * size * (channels === 1 ? 1 : 3)),
      sets: sets.map(({ guidance, bytes }) => ({ guidance, pixels: bytes.toString('base64') })),
    };
  }
}
