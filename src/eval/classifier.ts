/**
 * A small classifier trained on the set itself: the judge of class-conditional samples, and the features of FD-classifier.
 *
 * 3 x 3 convolutions of 64, 128, 256, 256 channels with strides 1, 2, 2, 2, each with batch norm and ReLU; average pool; linear. 600 AdamW
 * steps at batch 256. All else is PyTorch's default: lr 1e-3 throughout, betas 0.9 and 0.999, weight decay 0.01, uniform
 * initialisation within 1 / sqrt(fan in); but convolutions have no bias, since batch norm takes it away. float32; pictures in [-1, 1], no flips.
 */
import { FailureError, UsageError } from '../core/errors.js';
import { key, permutation } from '../core/random.js';
import type { ImageSource } from '../data/source.js';
import { fromPixels } from '../dsd/generate.js';
import { disk } from '../io/disk.js';
import { readSafetensors, writeSafetensors } from '../io/safetensors.js';
import { Optimizer } from '../nn/optimizer.js';
import { toFile, toTensor } from '../nn/stored.js';
import { Weights } from '../nn/weights.js';
import {
  adaptiveAvgPool2d,
  batchNorm,
  conv2d,
  crossEntropy,
  type Device,
  grad,
  linear,
  noGrad,
  ones,
  rand,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../torch/index.js';
import { pictures } from './pictures.js';

const CHANNELS = [64, 128, 256, 256] as const;
const STRIDES = [1, 2, 2, 2] as const;
/** Width of the pooled features. */
export const FEATURES = 256;
const MOMENTUM = 0.1;
const EPSILON = 1e-5;
/** Pixels of pictures in one pass without gradient: the first layer holds 64 float32 values, a few times, for each. */
const PIXELS = 2 ** 19;

/** Of a file's metadata: the protocol as JSON. */
const PROTOCOL = 'classifier';

export interface ClassifierOptions {
  readonly device: Device;
  readonly seed: number;
  readonly steps?: number;
  readonly batch?: number;
  readonly learningRate?: number;
  readonly weightDecay?: number;
  readonly progress?: (step: number, steps: number) => void;
}

/** All that fixes a trained classifier; part of the protocol. */
export interface ClassifierProtocol {
  readonly name: 'classifier';
  readonly features: number;
  readonly steps: number;
  readonly batch: number;
  readonly optimizer: 'AdamW';
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly seed: number;
  /** The name of the source it was trained on. */
  readonly trainedOn: string;
  readonly pictures: number;
}

export class Classifier {
  private constructor(
    readonly protocol: ClassifierProtocol,
    readonly classes: number,
    readonly device: Device,
    /** Trained by gradient. */
    private readonly weights: Weights,
    /** Running means and variances of the batch norms. */
    private readonly running: Weights,
  ) {}

  /**
   * Trains one. On a CPU the same seed gives the same classifier to the bit; on CUDA sums in the backward pass may be reordered.
   * @throws UsageError for a source without at least two classes; PictureError for a picture that cannot be read
   */
  static async train(source: ImageSource, options: ClassifierOptions): Promise<Classifier> {
    const { device, progress } = options;
    const K = source.classes.length;
    if (K < 2) throw new UsageError(`a classifier needs at least two classes, and ${source.name} has ${K}`);
    const protocol = protocolOf(source, options);
    const { seed, steps, batch, learningRate, weightDecay } = protocol;
    const classifier = new Classifier(protocol, K, device, initial(source.channels, K, seed, device), initialRunning(device));
    const optimizer = new Optimizer(classifier.weights, {
      muon: new Map(),
      compute: 'float32',
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay,
      clip: Number.POSITIVE_INFINITY,
    });
    const order = orderOf(source.length, seed);
    try {
      for (const weight of classifier.weights.list()) weight.requiresGrad_(true);
      for (let step = 0; step < steps; step++) {
        const indices = Array.from({ length: batch }, () => order.next().value);
        const pixels = await pictures(source, indices, device);
        scope(() => {
          const wanted = tensor(
            BigInt64Array.from(indices, (i) => BigInt(source.label(i))),
            [batch],
            { dtype: 'int64', device },
          );
          const loss = crossEntropy(classifier.head(classifier.pool(fromPixels(pixels), true)), wanted);
          optimizer.update(grad([loss], classifier.weights.list()), tensor(new Float64Array([learningRate, 0, 0]), [3], { device }));
        });
        pixels.dispose();
        progress?.(step + 1, steps);
      }
      for (const weight of classifier.weights.list()) weight.requiresGrad_(false);
      return classifier;
    } catch (error) {
      classifier.dispose();
      throw error;
    } finally {
      optimizer.dispose();
    }
  }

  /**
   * The classifier in a file, or, where there is no such file, one that is trained and written there: for what is judged at several times to be judged by one.
   * @throws UsageError for a file of another classifier; and as `train`, SafetensorsError, DiskError
   */
  static async kept(path: string, source: ImageSource, options: ClassifierOptions): Promise<Classifier> {
    if (disk.exists(path)) return Classifier.read(path, source, options);
    const classifier = await Classifier.train(source, options);
    try {
      const tensors = [...classifier.weights.tensors, ...classifier.running.tensors].map(([name, value]) => [name, toFile(value)] as const);
      writeSafetensors(path, new Map(tensors), new Map([[PROTOCOL, JSON.stringify(classifier.protocol)]]));
      return classifier;
    } catch (error) {
      classifier.dispose();
      throw error;
    }
  }

  private static read(path: string, source: ImageSource, options: ClassifierOptions): Classifier {
    const { device } = options;
    const { tensors, metadata } = readSafetensors(path);
    const protocol = protocolOf(source, options);
    // Where the pictures lie may have changed.
    const settings = (of: object): string => JSON.stringify({ ...of, trainedOn: undefined });
    const found: unknown = JSON.parse(metadata.get(PROTOCOL) ?? 'null');
    if (typeof found !== 'object' || found === null || settings(found) !== settings(protocol))
      throw new UsageError(
        `'${path}' is not the classifier that is asked for (${settings(protocol)}), but ${settings(found ?? {})}: remove it to have another trained`,
      );
    const load = (like: Weights): Weights => {
      const loaded = new Map<string, Tensor>();
      for (const [name, value] of like.tensors) {
        const stored = tensors.get(name);
        if (stored?.dtype !== 'F32' || String(stored.shape) !== String(value.shape))
          throw new FailureError(
            `'${path}' has no classifier of these pictures: its tensor '${name}' is missing or of another shape. Remove it`,
          );
        loaded.set(name, toTensor(stored, device));
      }
      like.dispose();
      return new Weights(loaded);
    };
    const K = source.classes.length;
    return new Classifier(protocol, K, device, load(initial(source.channels, K, protocol.seed, device)), load(initialRunning(device)));
  }

  /** x (B, H, H, ch) in [-1, 1] -> (B, 256): the last layer, averaged over places. */
  private pool(x: Tensor, training: boolean): Tensor {
    let h = x.permute(0, 3, 1, 2); // (B, ch, H, H), channels last in memory
    for (const [i, stride] of STRIDES.entries()) {
      const norm = this.weights.at(`norm.${i}`);
      const running = this.running.at(`norm.${i}`);
      h = conv2d(h, this.weights.get(`conv.${i}.weight`), undefined, [stride, stride], [1, 1]);
      h = batchNorm(
        h,
        running.get('mean'),
        running.get('variance'),
        norm.get('weight'),
        norm.get('bias'),
        training,
        MOMENTUM,
        EPSILON,
      ).relu();
    }
    return adaptiveAvgPool2d(h, [1, 1]).flatten(1);
  }

  private head(features: Tensor): Tensor {
    const { weight, bias } = this.weights.linear('linear');
    return linear(features, weight, bias); // (B, K)
  }

  /**
   * Features (B, 256) float32 of pictures (B, H, H, ch): uint8, or float in [-1, 1]. In pieces of bounded size; each picture's are its own,
   * whatever the batch (batch norm uses its running statistics), up to the rounding of the convolution.
   */
  features(images: Tensor): Tensor {
    const [count, side] = images.shape as [number, number];
    const size = Math.max(1, Math.floor(PIXELS / (side * side)));
    return noGrad(() =>
      scope(() => {
        const out = zeros([count, FEATURES], { device: this.device });
        for (let at = 0; at < count; at += size) {
          const take = Math.min(size, count - at);
          scope(() => {
            const part = images.narrow(0, at, take).to({ device: this.device });
            out.narrow(0, at, take).copy_(this.pool(part.dtype === 'uint8' ? fromPixels(part) : part, false));
          });
        }
        return out;
      }),
    );
  }

  /** The most likely class, (B) int64, of features (B, 256). */
  labelsOf(features: Tensor): Tensor {
    return noGrad(() => scope(() => this.head(features).argmax(1)));
  }

  /** The most likely class, (B) int64, of pictures as `features` takes them. */
  classify(images: Tensor): Tensor {
    return scope(() => this.labelsOf(this.features(images)));
  }

  dispose(): void {
    this.weights.dispose();
    this.running.dispose();
  }
}

function protocolOf(source: ImageSource, options: ClassifierOptions): ClassifierProtocol {
  const { seed, steps = 600, batch = 256, learningRate = 1e-3, weightDecay = 0.01 } = options;
  return {
    ...{ name: 'classifier', features: FEATURES, steps, batch, optimizer: 'AdamW', learningRate, weightDecay, seed },
    ...{ trainedOn: source.name, pictures: source.length },
  };
}

function initial(channels: number, K: number, seed: number, device: Device): Weights {
  const tensors = new Map<string, Tensor>();
  const uniform = (name: string, shape: number[], fanIn: number) => {
    const size = shape.reduce((product, side) => product * side, 1);
    const bound = 1 / Math.sqrt(fanIn);
    const value = scope(() =>
      rand(key(seed, `classifier/${name}`), 0, [1, size], { device })
        .view(...shape)
        .mul(2 * bound)
        .sub(bound),
    );
    tensors.set(name, value);
  };
  let into = channels;
  for (const [i, out] of CHANNELS.entries()) {
    uniform(`conv.${i}.weight`, [out, into, 3, 3], into * 9);
    tensors.set(`norm.${i}.weight`, ones([out], { device }));
    tensors.set(`norm.${i}.bias`, zeros([out], { device }));
    into = out;
  }
  uniform('linear.weight', [K, into], into);
  uniform('linear.bias', [K], into);
  return new Weights(tensors);
}

function initialRunning(device: Device): Weights {
  const tensors = new Map<string, Tensor>();
  for (const [i, channels] of CHANNELS.entries()) {
    tensors.set(`norm.${i}.mean`, zeros([channels], { device }));
    tensors.set(`norm.${i}.variance`, ones([channels], { device }));
  }
  return new Weights(tensors);
}

/** Indices of training pictures without end, each epoch in an order of its own. */
function* orderOf(length: number, seed: number): Generator<number, never> {
  const shuffle = key(seed, 'classifier/order');
  for (let epoch = 0; ; epoch++) yield* permutation(shuffle, epoch, length);
}
