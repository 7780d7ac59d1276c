/** Layers as functions of (weights, input). Shapes: B pictures, N tokens, d width. */
import { linear, rmsNorm, scope, type Tensor } from '../torch/index.js';
import type { Linear } from './weights.js';

/** Of every RMSNorm and LayerNorm in the network. */
export const EPSILON = 1e-6;

/** x W^T + b in the weight's type: (..., in) -> (..., out). */
export function project(layer: Linear, x: Tensor): Tensor {
  return linear(x.to({ dtype: layer.weight.dtype }), layer.weight, layer.bias);
}

/** Multi-layer perceptron with an activation between the layers and none after the last. */
export function mlp(layers: readonly Linear[], activation: (x: Tensor) => Tensor, x: Tensor): Tensor {
  return layers.reduce((h, layer, i) => project(layer, i === 0 ? h : activation(h)), x);
}

/** RMSNorm without weight, over the last dimension. */
export const rms = (x: Tensor): Tensor => rmsNorm(x, undefined, EPSILON);

/** Mean over tokens: (B, N, d) -> (B, d), in float32 where they are narrower. */
export const meanPool = (tokens: Tensor): Tensor =>
  scope(() => (tokens.dtype === 'bfloat16' ? tokens.to({ dtype: 'float32' }) : tokens).mean(1));
