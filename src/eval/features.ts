/**
 * What pictures are compared by. A distance is named after its features, and compares with others on the same ones only:
 * ARCHITECTURE.md, The method: evaluation.
 */
import type { Tensor } from '../torch/index.js';

/** Of B pictures, float32 on the extractor's device. Each picture's are its own, whatever the batch, up to float32's rounding. */
export interface Features {
  /** (B, dimension): for Frechet and kernel distances, precision and recall. */
  readonly pooled: Tensor;
  /** (B, D2): for sFID. */
  readonly spatial?: Tensor;
  /** (B, classes): for the Inception Score. */
  readonly logits?: Tensor;
}

export interface Extractor {
  /** `inception-2015`, `nsfwjs-mixed7` or `classifier`. */
  readonly name: string;
  /** What a Frechet distance of `pooled` is called: FID for the Inception of 2015 alone, else FD and the extractor's name. */
  readonly distance: string;
  readonly dimension: number;
  /** What fixes the features, for the protocol. */
  readonly source: string;
  /**
   * In pieces of bounded size (about 300 MB), however many pictures.
   * @param pixels (B, H, W, ch) uint8 on any device, ch 1 or 3
   * @throws UsageError for pictures of other channels
   */
  features(pixels: Tensor): Features;
  dispose(): void;
}
