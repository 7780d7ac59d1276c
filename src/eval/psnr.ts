/**
 * PSNR of a set: 10 log10(4 / mse), with the squared error pooled over all values of all pictures. (The mean of the pictures' own PSNR is
 * larger, and infinite if one is perfect.) Values are in [-1, 1], a range of 2, and clamped to it, as a saved picture would be; not rounded.
 */
import { noGrad, scope, type Tensor } from '../torch/index.js';
import { sumEach, Tally } from './tally.js';

/** Accumulates pictures and their approximations on their device. */
export class PsnrMeter {
  private readonly errors = new Tally(); // of each picture the sum of squared errors
  private values = 0;

  /** Adds pictures (B, ...) and what approximates them, of one shape, in either order. Does not wait for the device. */
  add(pictures: Tensor, approximations: Tensor): void {
    if (pictures.shape.join() !== approximations.shape.join())
      throw new RangeError(`psnr: the shapes (${pictures.shape.join(', ')}) and (${approximations.shape.join(', ')}) differ`);
    noGrad(() =>
      scope(() => {
        const wide = (x: Tensor) => x.detach().to({ dtype: 'float64' }).clamp(-1, 1);
        this.errors.add(sumEach(wide(pictures).sub(wide(approximations)).square()));
      }),
    );
    this.values += pictures.numel;
  }

  /** Reads, frees what was held and starts anew. Infinity where nothing differs, NaN where nothing was added or a value was NaN. */
  decibels(): number {
    const mse = this.errors.sum() / this.values;
    this.dispose();
    return 10 * Math.log10(4 / mse);
  }

  /** Frees what is held without reading it. */
  dispose(): void {
    this.errors.dispose();
    this.values = 0;
  }
}

/** PSNR in decibels of pictures at hand. */
export function psnr(pictures: Tensor, approximations: Tensor): number {
  const meter = new PsnrMeter();
  meter.add(pictures, approximations);
  return meter.decibels();
}
