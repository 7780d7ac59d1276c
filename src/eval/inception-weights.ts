/**
 * The weights of the Inception of 2015, out of the files in which they go around: TorchScript or safetensors, under the names of the graph
 * (`layers.mixed_6.conv.beta`, as in `inception-2015-12-05.pt`) or those of torchvision's module (`Mixed_6d.branch1x1.bn.bias`, as in
 * `pt_inception-2015-12-05-6726825d.pth` turned to safetensors). A file that has more, less, or other shapes is another network's.
 */
import { createHash } from 'node:crypto';
import { FailureError } from '../core/errors.js';
import { readSafetensors, type SafeTensor } from '../io/safetensors.js';
import { looksLike, readTorchScript } from '../io/torchscript.js';
import { Weights } from '../nn/weights.js';
import { type Device, scope, type Tensor, tensor } from '../torch/index.js';
import { type Conv, convolutions } from './inception.js';

/** Added to the variance, here and in Keras's network. */
export const EPSILON = 1e-3;
const OUTPUT: readonly (readonly [name: string, torchvision: string, shape: readonly number[]])[] = [
  ['output.weight', 'fc.weight', [1008, 2048]],
  ['output.bias', 'fc.bias', [1008]],
];

/** A convolution's kernel (out, in, h, w) and its batch norm's parameters (out), as they were trained. */
export interface Trained {
  readonly weight: Float32Array;
  readonly beta: Float32Array;
  readonly mean: Float32Array;
  readonly variance: Float32Array;
  /** 1 if not given: both networks were trained without. */
  readonly gamma?: Float32Array;
}

export interface LoadedInception {
  /** What `run` takes, and `output.weight` (1008, 2048). */
  readonly weights: Weights;
  /** Of all values in the order of the network: the same whatever file they came in. Hexadecimal. */
  readonly sha256: string;
}

/** @throws FailureError when it is no file of this network, with what to do; DiskError if it cannot be read */
export function loadInception(path: string, device: Device): LoadedInception {
  return inceptionOf(tensorsOf(path), path, device);
}

/** The same of tensors in memory. @param path what messages call them */
export function inceptionOf(found: ReadonlyMap<string, SafeTensor>, path: string, device: Device): LoadedInception {
  const fail = (problem: string): never => {
    throw new FailureError(`${path} does not hold the Inception of 2015: ${problem}`);
  };
  const names = found.has('layers.conv.weight') ? byGraph : found.has('Conv2d_1a_3x3.conv.weight') ? byTorchvision : undefined;
  if (!names)
    return fail(
      `it has neither 'layers.conv.weight' nor 'Conv2d_1a_3x3.conv.weight', by which such files begin; it has ${some(found.keys())}`,
    );
  if (found.has('AuxLogits.conv0.conv.weight') || found.get('fc.weight')?.shape[0] === 1000)
    fail("these are torchvision's own weights, of another training; no distance on them is FID");
  const used = new Set<string>();
  const take = (name: string, shape: readonly number[]): Float32Array => {
    const each = found.get(name) ?? fail(`it has no tensor '${name}'`);
    used.add(name);
    if (each.dtype !== 'F32' || String(each.shape) !== String(shape))
      fail(`its tensor '${name}' is ${each.dtype} [${each.shape}] and should be F32 [${shape}]`);
    return new Float32Array(new Uint8Array(each.data).buffer);
  };
  const hash = createHash('sha256');
  const tensors = new Map<string, Tensor>();
  for (const conv of convolutions()) {
    const of = names(conv);
    const [weight, beta, mean, variance] = [
      take(of.weight, [conv.out, conv.into, ...conv.kernel]),
      ...[of.beta, of.mean, of.variance].map((name) => take(name, [conv.out])),
    ] as [Float32Array, Float32Array, Float32Array, Float32Array];
    const gamma = of.gamma === undefined ? undefined : take(of.gamma, [conv.out]);
    if (gamma?.some((value) => value !== 1)) fail(`its '${of.gamma}' is not 1, as the network of 2015 has it`);
    const problem = problemOf({ weight, beta, mean, variance });
    if (problem) fail(`of ${conv.name}, ${problem}`);
    for (const part of [weight, beta, mean, variance]) hash.update(part);
    for (const [name, value] of folded(conv, { weight, beta, mean, variance }, device)) tensors.set(name, value);
  }
  for (const [name, torchvision, shape] of OUTPUT) {
    const values = take(names === byGraph ? name : torchvision, shape);
    hash.update(values);
    if (name === 'output.weight') tensors.set(name, tensor(values, shape, { device }));
  }
  const more = [...found.keys()].filter((name) => !used.has(name) && !name.endsWith('.num_batches_tracked'));
  if (more.length > 0) fail(`it has ${more.length} tensors that are no part of it: ${some(more)}`);
  return { weights: new Weights(tensors), sha256: hash.digest('hex') };
}

/** `<name>.weight` and `<name>.bias` of a convolution that does what the convolution and its batch norm do. */
export function folded(conv: Conv, { weight, beta, mean, variance, gamma }: Trained, device: Device): [string, Tensor][] {
  return scope(() => {
    const wide = (values: Float32Array): Tensor => tensor(values, [conv.out], { device }).to({ dtype: 'float64' });
    const deviation = wide(variance).add(EPSILON).sqrt();
    const scale = (gamma ? wide(gamma) : tensor(new Float64Array(conv.out).fill(1), [conv.out], { device })).div(deviation);
    const kernel = tensor(weight, [conv.out, conv.into, ...conv.kernel], { device }).to({ dtype: 'float64' });
    return [
      [`${conv.name}.weight`, kernel.mul(scale.view(conv.out, 1, 1, 1)).to({ dtype: 'float32' })],
      [`${conv.name}.bias`, wide(beta).sub(wide(mean).mul(scale)).to({ dtype: 'float32' })],
    ];
  });
}

function tensorsOf(path: string): ReadonlyMap<string, SafeTensor> {
  const kind = looksLike(path);
  if (kind === undefined) return readSafetensors(path).tensors;
  const tensors = kind === 'zip' ? readTorchScript(path) : undefined;
  if (tensors) return tensors;
  throw new FailureError(
    `${path} is a Python pickle, which can run any program as it is read, and so is not. Turn it into safetensors once, where PyTorch is:\n  python3 -c 'import sys, torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load(sys.argv[1], map_location="cpu", weights_only=True).items()}, sys.argv[2])' ${path} inception.safetensors`,
  );
}

interface Names {
  readonly weight: string;
  readonly beta: string;
  readonly mean: string;
  readonly variance: string;
  readonly gamma?: string;
}

const byGraph = ({ name }: Conv): Names => ({
  ...{ weight: `layers.${name}.weight`, beta: `layers.${name}.beta` },
  ...{ mean: `layers.${name}.mean`, variance: `layers.${name}.var` },
});

const byTorchvision = ({ torchvision }: Conv): Names => ({
  ...{ weight: `${torchvision}.conv.weight`, beta: `${torchvision}.bn.bias`, gamma: `${torchvision}.bn.weight` },
  ...{ mean: `${torchvision}.bn.running_mean`, variance: `${torchvision}.bn.running_var` },
});

/** What is wrong with values, which would make all features NaN. */
function problemOf(trained: Trained): string | undefined {
  const wrong = Object.entries(trained).find(([, values]: [string, Float32Array]) => !values.every(Number.isFinite));
  if (wrong) return `its ${wrong[0]} is not finite`;
  return trained.variance.some((value) => value < 0) ? 'its variance is negative' : undefined;
}

const some = (names: Iterable<string>): string => {
  const all = [...names];
  return `${all.slice(0, 3).join(', ')}${all.length > 3 ? ` and ${all.length - 3} more` : ''}`;
};
