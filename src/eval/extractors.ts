/** The feature networks by their names. */
import { UsageError } from '../core/errors.js';
import type { Device } from '../torch/index.js';
import type { Classifier } from './classifier.js';
import type { Extractor } from './features.js';
import { Inception2015 } from './inception-2015.js';
import { NsfwInception } from './nsfwjs.js';

/** Feature networks with weights of their own; a classifier has to be trained first. */
export const EXTRACTORS = ['inception-2015', 'nsfwjs-mixed7'] as const;
export type ExtractorName = (typeof EXTRACTORS)[number];

const WANTED =
  'FID is defined by the Inception of 2015, whose weights cannot be shipped here. Name their file in the variable DSD_INCEPTION (or, of `dsd eval`, with --inception PATH): inception-2015-12-05.pt (TorchScript), or a safetensors file with the names of that one or of pt_inception-2015-12-05-6726825d.pth';

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
