/**
 * The InceptionV3 inside npm's `nsfwjs` (MIT): Keras's network, trained on photographs and drawings in five classes of decency. It is no
 * replacement of the Inception of 2015, but a feature network that npm brings to any machine: pictures are compared by its layer `mixed7`,
 * averaged over places. A distance on it is an FD-nsfwjs-mixed7, never FID.
 *
 * Its weights are 8-bit: value = byte * scale + min, with scale and min for each tensor. The files are JavaScript modules: `model.min.js`
 * exports the description, each shard a text of base64.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { FailureError } from '../core/errors.js';
import { Weights } from '../nn/weights.js';
import { type Device, scope, type Tensor, tensor, zeros } from '../torch/index.js';
import type { Extractor, Features } from './features.js';
import { type Conv, convolutions, inPieces, run } from './inception.js';
import { EPSILON, folded, type Trained } from './inception-weights.js';

const VERSION = '4.3.0';
const LAST = 'mixed_7';
const DIMENSION = 768;

const Description = z.object({
  modelTopology: z.object({
    model_config: z.object({
      config: z.object({ layers: z.array(z.object({ name: z.string(), config: z.record(z.string(), z.unknown()) })) }),
    }),
  }),
  weightsManifest: z.array(
    z.object({
      paths: z.array(z.string().regex(/^[\w-]+$/)),
      weights: z.array(
        z.object({
          name: z.string(),
          shape: z.array(z.int().positive()),
          dtype: z.literal('float32'),
          quantization: z.object({ min: z.number(), scale: z.number(), dtype: z.literal('uint8') }),
        }),
      ),
    }),
  ),
});
type Description = z.infer<typeof Description>;

/** One tensor's bytes, and its shape as Keras has it. */
interface Quantised {
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
  readonly scale: number;
  readonly min: number;
}

export class NsfwInception implements Extractor {
  readonly name = 'nsfwjs-mixed7';
  readonly distance = 'FD-nsfwjs-mixed7';
  readonly dimension = DIMENSION;
  readonly source = `layer mixed7 of the InceptionV3 in nsfwjs ${VERSION}`;

  private constructor(
    private readonly weights: Weights,
    private readonly device: Device,
  ) {}

  /** @throws FailureError when the package is not installed, or another version or network than this was written for */
  static open(device: Device): NsfwInception {
    const folder = packageFolder();
    const description = read(folder);
    const values = quantised(description, folder);
    const weights = new Map<string, Tensor>();
    for (const [i, conv] of convolutions(LAST).entries()) {
      const differs = difference(description, conv, i + 1);
      if (differs) throw wrong(`${differs}: it is not the network that this was written for`);
      for (const [name, value] of folded(conv, trained(values, conv, i + 1), device)) weights.set(name, value);
    }
    return new NsfwInception(new Weights(weights), device);
  }

  /** As the package itself feeds its network: pixels / 255, resized so that corners fall together. */
  features(pixels: Tensor): Features {
    return scope(() => {
      const [count = 0] = pixels.shape;
      const pooled = zeros([count, DIMENSION], { device: this.device });
      inPieces(pixels, this.device, 'corners', (x, at, take) => {
        pooled.narrow(0, at, take).copy_(run(this.weights, x.div(255), LAST).mean([2, 3]));
      });
      return { pooled };
    });
  }

  dispose(): void {
    this.weights.dispose();
  }
}

const wrong = (problem: string): FailureError =>
  new FailureError(`the package nsfwjs cannot be used: ${problem}; 'npm run setup' installs the version ${VERSION}`);

/** The package's folder, found as Node finds packages; its code is not loaded, which would ask for TensorFlow.js. */
function packageFolder(): string {
  const require = createRequire(import.meta.url);
  let folder = '';
  try {
    folder = join(dirname(require.resolve('nsfwjs')), '..', '..'); // of dist/cjs/index.js
  } catch {
    throw wrong('it is not installed');
  }
  const { version } = z.object({ version: z.string() }).parse(JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')));
  if (version !== VERSION) throw wrong(`version ${version} was found, whose features may be others`);
  return folder;
}

const part = (folder: string, name: string): string => join(folder, 'dist', 'models', 'inception_v3', `${name}.min.js`);

function read(folder: string): Description {
  const found = Description.safeParse(createRequire(import.meta.url)(part(folder, 'model')));
  if (!found.success) throw wrong(`its description is not as expected (${found.error.issues[0]?.path.join('.')})`);
  return found.data;
}

/** All tensors by Keras's names. */
function quantised({ weightsManifest }: Description, folder: string): Map<string, Quantised> {
  const tensors = new Map<string, Quantised>();
  for (const { paths, weights } of weightsManifest) {
    const all = Buffer.concat(paths.map((path) => shard(part(folder, path))));
    let at = 0;
    for (const { name, shape, quantization } of weights) {
      const end = at + shape.reduce((product, extent) => product * extent, 1);
      tensors.set(name, { shape, bytes: all.subarray(at, end), ...quantization });
      at = end;
    }
    if (at !== all.length) throw wrong(`its weights have ${all.length} bytes where ${at} are described`);
  }
  return tensors;
}

/** The bytes of a shard. Its text is taken out, not run: Node would keep it as long as the process lives. */
function shard(path: string): Buffer {
  const [, base64] = /\bexports="([A-Za-z0-9+/]+={0,2})"/.exec(readFileSync(path, 'latin1')) ?? [];
  if (base64 === undefined) throw wrong(`${path} holds no weights`);
  return Buffer.from(base64, 'base64');
}

/** What Keras's description of its Nth convolution and batch norm says otherwise than `inception.ts`. */
function difference({ modelTopology }: Description, { out, kernel, stride, padding }: Conv, n: number): string | undefined {
  const { layers } = modelTopology.model_config.config;
  const config = (name: string): Record<string, unknown> => layers.find((layer) => layer.name === name)?.config ?? {};
  // At a kernel of 1 x 1 Keras's two paddings are one.
  const expected = {
    ...{ filters: out, kernel_size: kernel, strides: [stride, stride], use_bias: false },
    ...(Math.max(...kernel) === 1 ? {} : { padding: Math.max(...padding) === 0 ? 'valid' : 'same' }),
  };
  const norm = { epsilon: EPSILON, scale: false, center: true };
  for (const [layer, wanted] of [
    [`conv2d_${n}`, expected],
    [`batch_normalization_${n}`, norm],
  ] as const)
    for (const [key, value] of Object.entries(wanted)) {
      const found = config(layer)[key];
      if (JSON.stringify(found) !== JSON.stringify(value)) return `its layer ${layer} has ${key} ${JSON.stringify(found)}`;
    }
  return undefined;
}

/** Keras's Nth convolution: its kernel is (h, w, in, out). */
function trained(values: ReadonlyMap<string, Quantised>, { into, out, kernel: [h, w] }: Conv, n: number): Trained {
  const take = (name: string, shape: readonly number[]): Float32Array => {
    const found = values.get(name);
    if (!found || String(found.shape) !== String(shape)) throw wrong(`its ${name} is of shape [${found?.shape}] and should be [${shape}]`);
    const { bytes, scale, min } = found;
    const floats = new Float32Array(bytes.length);
    for (let i = 0; i < floats.length; i++) floats[i] = bytes[i]! * scale + min;
    return floats;
  };
  const norm = (what: string): Float32Array => take(`batch_normalization_${n}/${what}`, [out]);
  const kernel = take(`conv2d_${n}/kernel`, [h, w, into, out]);
  const weight = scope(() => tensor(kernel, [h, w, into, out]).permute(3, 2, 0, 1).contiguous().toArray() as Float32Array);
  return { weight, beta: norm('beta'), mean: norm('moving_mean'), variance: norm('moving_variance') };
}
