/**
 * Networks whose features pictures are compared by. A distance is named after its features, and compares with others on the same ones only:
 * ARCHITECTURE.md, The method: evaluation.
 */
import { UsageError } from '../core/errors.js';
import type { Device, Tensor } from '../torch/index.js';
import type { Classifier } from './classifier.js';
import { Inception2015 } from './inception-2015.js';
import { NsfwInception } from './nsfwjs.js';

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

/** Feature networks with weights of their own; a classifier has to be trained first. */
export const EXTRACTORS = ['inception-2015', 'nsfwjs-mixed7'] as const;
export type ExtractorName = (typeof EXTRACTORS)[number];

const WANTED =
  'FID is defined by the Inception of 2015, whose weights cannot be shipped here. Give them with --inception PATH, or in the variable DSD_INCEPTION: inception-2015-12-05.pt (TorchScript), or a safetensors file with the names of that one or of pt_inception-2015-12-05-6726825d.pth';

/**
 * @param options.inception the file of `inception-2015`; DSD_INCEPTION if not given
 * @throws UsageError when there is no such file to read; FailureError when it, or the package nsfwjs, is not what it should be
 */
export function openExtractor(
  name: ExtractorName,
  options: { readonly device: Device; readonly inception?: string | undefined },
): Extractor {
  if (name === 'nsfwjs-mixed7') return NsfwInception.open(options.device);
  const path = options.inception ?? process.env.DSD_INCEPTION;
  if (!path) throw new UsageError(WANTED);
  return Inception2015.open(path, options.device);
}

/** A classifier as an extractor. It stays the caller's. */
export function ofClassifier(classifier: Classifier): Extractor {
  const { name, features: dimension, steps, seed, trainedOn } = classifier.protocol;
  return {
    ...{ name, dimension, distance: `FD-${name}`, source: `classifier trained for ${steps} steps on ${trainedOn}, seed ${seed}` },
    features: (pixels) => ({ pooled: classifier.features(pixels) }),
    dispose: () => {},
  };
}
