/**
 * A small classifier trained on the set itself: the judge of class-conditional samples, and the features of FD-classifier.
 *
 * 3 x 3 convolutions of 64, 128, 256, 256 channels with strides 1, 2, 2, 2, each with batch norm and ReLU; average pool; linear. 600 AdamW
 * steps at batch 256. All else is PyTorch's default: lr 1e-3 throughout, betas 0.9 and 0.999, weight decay 0.01, uniform
 * initialisation within 1 / sqrt(fan in); but convolutions have no bias, since batch norm takes it away. float32; pictures in [-1, 1], no flips.
 */
import { createHash } from 'node:crypto';
import { FailureError, UsageError } from '../core/errors.js';
import { key, permutation } from '../core/random.js';
import { type ImageSource, stack } from '../data/source.js';
import { fromPixels } from '../dsd/generate.js';
import { disk } from '../io/disk.js';
import { readSafetensors, type SafeTensor, writeSafetensors } from '../io/safetensors.js';
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
import { pictures, spread } from './pictures.js';

const CHANNELS = [64, 128, 256, 256] as const;
const STRIDES = [1, 2, 2, 2] as const;
/** Width of the pooled features. */
export const FEATURES = 256;
const MOMENTUM = 0.1;
const EPSILON = 1e-5;
/** Pixels of pictures in one pass without gradient: the first layer holds 64 float32 values, a few times, for each. */
const PIXELS = 2 ** 19;

/** Of a kept file's metadata: how it was trained, and what its pictures are known by. */
const [SETTINGS, PICTURES] = ['classifier', 'pictures'];
/** Pictures by which a set is known again. */
const LOOKED_AT = 64;

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
  /** Of its weights: 16 digits of their SHA-256. Training on a GPU, or with other threads, may give others. */
  readonly digest: string;
}

export class Classifier {
  private digest: string | undefined;

  private constructor(
    private readonly settings: Omit<ClassifierProtocol, 'digest'>,
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
   * @throws as `train` and `checkKept`
   */
  static async kept(path: string, source: ImageSource, options: ClassifierOptions): Promise<Classifier> {
    const protocol = protocolOf(source, options);
    const identity = await identityOf(source);
    const { device } = options;
    const K = source.classes.length;
    if (disk.exists(path)) {
      const { trained, running } = readKept(path, source, protocol, identity);
      const load = (stored: ReadonlyMap<string, SafeTensor>): Weights =>
        new Weights(new Map([...stored].map(([name, value]) => [name, toTensor(value, device)])));
      return new Classifier(protocol, K, device, load(trained), load(running));
    }
    const classifier = await Classifier.train(source, options);
    try {
      const metadata = new Map([
        [SETTINGS, settingsOf(protocol)],
        [PICTURES, identity],
      ]);
      writeSafetensors(path, new Map([...classifier.tensors()].map(([name, value]) => [name, toFile(value)])), metadata);
      return classifier;
    } catch (error) {
      classifier.dispose();
      throw error;
    }
  }

  /** Whether `kept` would find another classifier than is asked for. @throws UsageError if so; SafetensorsError, FailureError for a file that is none; DiskError */
  static async checkKept(path: string, source: ImageSource, options: ClassifierOptions): Promise<void> {
    if (disk.exists(path)) readKept(path, source, protocolOf(source, options), await identityOf(source));
  }

  private tensors(): Map<string, Tensor> {
    return new Map([...this.weights.tensors, ...this.running.tensors]);
  }

  /** Of its weights. Waits for the device. */
  get protocol(): ClassifierProtocol {
    this.digest ??= digestOf(this.tensors());
    return { ...this.settings, digest: this.digest };
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

function protocolOf(source: ImageSource, options: ClassifierOptions): Omit<ClassifierProtocol, 'digest'> {
  const { seed, steps = 600, batch = 256, learningRate = 1e-3, weightDecay = 0.01 } = options;
  return {
    ...{ name: 'classifier', features: FEATURES, steps, batch, optimizer: 'AdamW', learningRate, weightDecay, seed },
    ...{ trainedOn: source.name, pictures: source.length },
  };
}

/** What a set is known by, wherever it lies: its classes, and labels and pixels of some of its pictures. */
async function identityOf(source: ImageSource): Promise<string> {
  const { classes, size, channels, length } = source;
  const some = spread(length, Math.min(LOOKED_AT, length));
  const about = JSON.stringify({ classes, size, channels, length, labels: some.map((i) => source.label(i)) });
  return createHash('sha256')
    .update(about)
    .update(await stack(source, some))
    .digest('hex');
}

function digestOf(tensors: ReadonlyMap<string, Tensor>): string {
  const hash = createHash('sha256');
  for (const value of tensors.values()) hash.update(toFile(value).data);
  return hash.digest('hex').slice(0, 16);
}

/** As JSON, without where the pictures lie, which may change; what they are is their identity. */
const settingsOf = ({ trainedOn: _, ...settings }: Omit<ClassifierProtocol, 'digest'>): string => JSON.stringify(settings);

interface Kept {
  readonly trained: ReadonlyMap<string, SafeTensor>;
  readonly running: ReadonlyMap<string, SafeTensor>;
}

/** The tensors of a kept classifier, if it is the one that is asked for. @throws as checkKept */
function readKept(path: string, { channels, classes }: ImageSource, protocol: Omit<ClassifierProtocol, 'digest'>, identity: string): Kept {
  const { tensors, metadata } = readSafetensors(path);
  const mend = 'Choose another folder, or remove this file and what was judged by it';
  const [found, wanted] = [metadata.get(SETTINGS), settingsOf(protocol)];
  if (found === undefined) throw new FailureError(`'${path}' holds no classifier of ours: it does not say how it was trained. ${mend}`);
  if (found !== wanted)
    throw new UsageError(`the classifier in '${path}' was trained with other settings: ${found}, wanted ${wanted}. ${mend}`);
  if (metadata.get(PICTURES) !== identity)
    throw new UsageError(`the classifier in '${path}' was trained on other pictures than ${protocol.trainedOn}. ${mend}`);
  const like = ({ tensors: wanted }: Weights): Map<string, SafeTensor> =>
    new Map(
      [...wanted].map(([name, { shape }]) => {
        const stored = tensors.get(name);
        if (stored?.dtype === 'F32' && String(stored.shape) === String(shape)) return [name, stored];
        throw new FailureError(`'${path}' is damaged: its tensor '${name}' is missing or of another shape. ${mend}`);
      }),
    );
  return scope(() => ({ trained: like(initial(channels, classes.length, 0, 'cpu')), running: like(initialRunning('cpu')) }));
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
