/** The update of all weights, of `dsd bench ops`: clipping, AdamW, both averages and the copies that a step computes with. */
import { Model } from '../../dsd/model.js';
import { parameters } from '../../dsd/sizes.js';
import { Average, Optimizer } from '../../nn/optimizer.js';
import { Copies } from '../../nn/weights.js';
import { dtypeBytes, scope, tensor } from '../../torch/index.js';
import { type Cost, numbers, type Shape } from './parts.js';

/**
 * Bytes that an update cannot do without. The gradient is read twice, since clipping wants its norm first; the weight, two moments and two averages
 * are read and written; of a weight with copies those are written.
 */
export function updateCost({ model, compute }: Pick<Shape, 'model' | 'compute'>): Cost {
  const [wide, narrow] = [dtypeBytes('float32'), dtypeBytes(compute)];
  let bytes = 0;
  for (const { shape, perToken } of parameters(model).values()) {
    const elements = shape.reduce((product, side) => product * side, 1);
    const copied = perToken && compute !== 'float32';
    bytes += elements * (5 * 2 * wide + (copied ? 2 * narrow + 2 * narrow : 2 * wide));
  }
  return { bytes, flops: 0 };
}

/** One update of a network with gradients that are there already. To be called, and its tensors kept, in one scope. */
export function makeUpdate(shape: Shape): () => void {
  const { model, device, compute } = shape;
  const { weights } = Model.init(model, 0, { device });
  const narrow = compute === 'float32' ? [] : [...parameters(model)].filter(([, spec]) => spec.perToken).map(([name]) => name);
  const [target, average] = [new Average(weights, 0.999), new Average(weights, 0.999)];
  const [copies, targetCopies] = [new Copies(weights, narrow, compute), new Copies(target.weights, narrow, compute)];
  const adam = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, clip: 1, muon: new Map<string, number>(), compute };
  const optimizer = new Optimizer(weights, adam, { target, average, copies, targetCopies });
  const gradients = [...weights.tensors].map(([name, weight]) =>
    numbers(shape, 0, `gradient ${name}`, weight.shape, copies.tensors.get(name)?.dtype ?? 'float32'),
  );
  const rates = tensor(new Float64Array([1e-6, 0.001, 0.001]), [3], { device });
  return () => scope(() => void optimizer.update(gradients, rates));
}
