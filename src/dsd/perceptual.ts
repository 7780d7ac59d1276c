/**
 * LPIPS, the perceptual distance of Zhang et al. 2018 (arXiv 1801.03924) on VGG16 features. Its weights are the user's to give: a safetensors
 * file with torchvision's names for the convolutions (`features.0.weight` ...) and lpips' names for the linear ones (`lin0.model.1.weight` ...).
 */
import { FailureError } from '../core/errors.js';
import type { Weights } from '../nn/weights.js';
import { cat, conv2d, maxPool2d, type Tensor, tensor } from '../torch/index.js';

/** VGG16's convolutions by torchvision's index, block by block; each block ends in a tap, and all but the last in a 2 x 2 max pool. */
const BLOCKS = [
  [0, 2],
  [5, 7],
  [10, 12, 14],
  [17, 19, 21],
  [24, 26, 28],
] as const;
const MEAN = [-0.03, -0.088, -0.188];
const DEVIATION = [0.458, 0.448, 0.45];

/** @throws FailureError when a tensor is missing, by name. */
export function lpips(weights: Weights): (a: Tensor, b: Tensor) => Tensor {
  const missing = BLOCKS.flatMap((block, i) => [
    ...block.flatMap((n) => [`features.${n}.weight`, `features.${n}.bias`]),
    `lin${i}.model.1.weight`,
  ]).filter((name) => !weights.has(name));
  if (missing.length > 0)
    throw new FailureError(
      `the perceptual weights lack ${missing.length} tensors, the first is '${missing[0]}': give VGG16's convolutions and LPIPS' linear layers in one safetensors file`,
    );

  // Made once: a captured step takes no values of arrays.
  const { dtype, device } = weights.get('features.0.weight');
  const [mean, deviation] = [tensor(MEAN, [3], { dtype, device }), tensor(DEVIATION, [3], { dtype, device })];

  /** x (B, H, W, ch) in [-1, 1] -> the five taps, each of unit length over channels. */
  function taps(x: Tensor): Tensor[] {
    const rgb = x.shape[3] === 1 ? cat([x, x, x], 3) : x;
    let h = rgb.sub(mean).div(deviation).permute(0, 3, 1, 2); // (B, 3, H, W)
    return BLOCKS.map((block, i) => {
      if (i > 0) h = maxPool2d(h, [2, 2], [2, 2]);
      for (const n of block) h = conv2d(h, weights.get(`features.${n}.weight`), weights.get(`features.${n}.bias`), [1, 1], [1, 1]).relu();
      return h.div(h.square().sum(1, true).sqrt().add(1e-10));
    });
  }

  return (a, b) => {
    const [of, from] = [taps(a), taps(b)];
    const distances = of.map((tap, i) => conv2d(tap.sub(from[i] as Tensor).square(), weights.get(`lin${i}.model.1.weight`)).mean([2, 3])); // (B, 1) each
    return distances.reduce((sum, distance) => sum.add(distance)).mean();
  };
}
