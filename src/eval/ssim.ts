/**
 * Structural similarity of a set: the mean over pictures, channels and places of the index of Wang, Bovik, Sheikh and Simoncelli 2004.
 * Computed as scikit-image's `structural_similarity` by its defaults: windows of 7 x 7, all weighted alike, variances over 48, K1 = 0.01,
 * K2 = 0.03, and no window that reaches over an edge.
 *
 * Unlike PSNR the index depends on where black is: its first factor compares means. So pictures are taken from [-1, 1] to [0, 1] first,
 * which gives the figure of the same pictures in [0, 255]. Clamped, as a saved picture would be; not rounded.
 */
import { UsageError } from '../core/errors.js';
import { avgPool2d, noGrad, scope, type Tensor } from '../torch/index.js';
import { sumEach, Tally } from './tally.js';

const WINDOW = 7;
const SAMPLE = WINDOW ** 2 / (WINDOW ** 2 - 1); // from variances over 49 to those over 48
const C1 = 0.01 ** 2;
const C2 = 0.03 ** 2;
/** Values of pictures looked at together: ten arrays of so many float64 values are alive at once. */
const VALUES = 2 ** 21;

/** Accumulates pictures and their approximations on their device. */
export class SsimMeter {
  private readonly similarities = new Tally(); // of each picture the mean

  /**
   * Adds pictures (B, H, W, ch) in [-1, 1] and what approximates them, of one shape, in either order. Does not wait for the device.
   * @throws UsageError for pictures smaller than a window, RangeError for shapes that differ
   */
  add(pictures: Tensor, approximations: Tensor): void {
    if (pictures.shape.join() !== approximations.shape.join() || pictures.shape.length !== 4)
      throw new RangeError(`ssim: the shapes (${pictures.shape.join(', ')}) and (${approximations.shape.join(', ')}) do not fit`);
    const [B, H, W, channels] = pictures.shape as [number, number, number, number];
    if (Math.min(H, W) < WINDOW)
      throw new UsageError(`SSIM looks through windows of ${WINDOW} x ${WINDOW} px, and the pictures have ${W} x ${H}`);
    const size = Math.max(1, Math.floor(VALUES / (H * W * channels)));
    for (let at = 0; at < B; at += size) {
      noGrad(() =>
        scope(() => {
          const part = (x: Tensor) => x.detach().narrow(0, at, Math.min(size, B - at));
          this.similarities.add(similarity(part(pictures), part(approximations)));
        }),
      );
    }
  }

  /** Reads, frees what was held and starts anew. From -1 to 1, 1 only for equal pictures; NaN where nothing was added or a value was NaN. */
  value(): number {
    const mean = this.similarities.sum() / this.similarities.count;
    this.dispose();
    return mean;
  }

  /** Frees what is held without reading it. */
  dispose(): void {
    this.similarities.dispose();
  }
}

/** SSIM of pictures at hand, as SsimMeter takes them. */
export function ssim(pictures: Tensor, approximations: Tensor): number {
  const meter = new SsimMeter();
  meter.add(pictures, approximations);
  return meter.value();
}

/** The mean index of each picture: (B). */
function similarity(pictures: Tensor, approximations: Tensor): Tensor {
  const unit = (x: Tensor) => x.to({ dtype: 'float64' }).clamp(-1, 1).add(1).mul(0.5).permute(0, 3, 1, 2).contiguous(); // (B, ch, H, W)
  const mean = (x: Tensor) => avgPool2d(x, WINDOW, 1);
  const [x, y] = [unit(pictures), unit(approximations)];
  const [ux, uy] = [mean(x), mean(y)];
  const spread = (product: Tensor, means: Tensor) => mean(product).sub(means).mul(SAMPLE);
  const [uxx, uyy, uxy] = [ux.square(), uy.square(), ux.mul(uy)];
  const above = uxy
    .mul(2)
    .add(C1)
    .mul(spread(x.mul(y), uxy).mul(2).add(C2));
  const below = uxx
    .add(uyy)
    .add(C1)
    .mul(spread(x.square(), uxx).add(spread(y.square(), uyy)).add(C2));
  const index = above.div(below);
  return sumEach(index).div(index.numel / (index.shape[0] as number));
}
