/** What a step reads of the host, held on the device. */
import type { Batch } from '../data/loader.js';
import type { ModelConfig } from '../dsd/sizes.js';
import { type Device, empty, keep, type Tensor } from '../torch/index.js';

/**
 * A batch and all else that changes from step to step. The tensors are the same for every batch of a size and take its values, so that a captured step, which
 * reads them where they lie, can be replayed with others.
 */
export class Inputs {
  readonly images: Tensor; // (B, H, W, ch) uint8
  readonly labels: Tensor; // (B) int32
  /** Global number of the first picture, which the draws are made from. */
  readonly first: Tensor; // 0-d int64
  /** Learning rate, and the shares by which the averages move (Optimizer.update). */
  readonly rates: Tensor; // (3) float64
  /** The first picture's number once more, for what is decided by it (which pictures are masked: the even ones). */
  firstImage = 0;

  constructor(
    { image, channels }: ModelConfig,
    readonly count: number,
    device: Device,
  ) {
    this.images = keep(empty([count, image, image, channels], { dtype: 'uint8', device }));
    this.labels = keep(empty([count], { dtype: 'int32', device }));
    this.first = keep(empty([], { dtype: 'int64', device }));
    this.rates = keep(empty([3], { dtype: 'float64', device }));
  }

  /** Waits for nothing: the device takes the values when it has done with those before. @throws TypeError when the batch has another size */
  set({ images, labels, firstImage }: Pick<Batch, 'images' | 'labels' | 'firstImage'>, rates: readonly number[]): void {
    this.images.upload(images);
    this.labels.upload(labels);
    this.first.upload(BigInt64Array.of(BigInt(firstImage)));
    this.rates.upload(Float64Array.from(rates));
    this.firstImage = firstImage;
  }

  dispose(): void {
    for (const tensor of [this.images, this.labels, this.first, this.rates]) tensor.dispose();
  }
}
