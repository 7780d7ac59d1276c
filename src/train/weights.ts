/**
 * Weights on disk: one safetensors file with the parameters in float32 under the names of dsd/sizes.ts, and beside them, as metadata, the
 * whole configuration, so that a file is enough to use a model. Of a latent-diffusion run the frozen autoencoder lies in it too, under
 * `frozen.`, with its own shapes in the metadata: the two share a latent, not a size.
 */
import { join } from 'node:path';
import { FailureError, UsageError } from '../core/errors.js';
import { Model } from '../dsd/model.js';
import { type ModelConfig, type ParameterSpec, parameters } from '../dsd/sizes.js';
import { type Disk, disk as realDisk } from '../io/disk.js';
import { encodeSafetensors, readSafetensors, type SafeTensor } from '../io/safetensors.js';
import { toFile, toTensor } from '../nn/stored.js';
import { Weights } from '../nn/weights.js';
import type { Device, Tensor } from '../torch/index.js';
import { checkConfig, modelConfig, type RunConfig } from './config.js';

/** The name that model hubs look for, beside config.json and README.md. */
export const WEIGHTS_FILE = 'model.safetensors';
const FORMAT = 'dsd-1';
const FROZEN = 'frozen.';

/** What a weights file says of itself. */
export interface WeightsInfo {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly classes: readonly string[];
  /** Pictures trained on. */
  readonly images: number;
  /** `average`: the exponential moving average, from which one samples; `raw`: the optimizer's own. */
  readonly kind: 'average' | 'raw';
  /** Shapes of the frozen autoencoder, where there is one. */
  readonly autoencoder?: ModelConfig;
}

/** A model ready to use. */
export interface Loaded extends Omit<WeightsInfo, 'autoencoder'> {
  readonly denoiser: Model;
  /** Encodes and decodes: the denoiser itself, but for latent diffusion. */
  readonly autoencoder: Model;
}

/** The file that a path means: itself, or the weights in a run's folder. @throws UsageError when there is none. */
export function weightsPath(path: string, disk: Disk = realDisk): string {
  if (!disk.exists(path)) throw new UsageError(`there is no file or run folder '${path}'`);
  if (disk.stat(path).kind !== 'folder') return path;
  const inside = join(path, WEIGHTS_FILE);
  if (!disk.exists(inside))
    throw new UsageError(`the folder '${path}' has no ${WEIGHTS_FILE}: name a weights file, or the folder of a run that has saved one`);
  return inside;
}

/** Writes weights atomically. @throws DiskError. */
export function saveWeights(
  path: string,
  weights: Weights,
  frozen: Model | undefined,
  info: Omit<WeightsInfo, 'model' | 'autoencoder'>,
  disk: Disk = realDisk,
): void {
  disk.writeFileAtomic(path, encodeWeights(weights.tensors, frozen, info));
}

/** The bytes of a weights file, in pieces. */
export function encodeWeights(
  weights: ReadonlyMap<string, Tensor>,
  frozen: Model | undefined,
  info: Omit<WeightsInfo, 'model' | 'autoencoder'>,
): Uint8Array[] {
  const tensors = new Map<string, SafeTensor>();
  for (const [prefix, set] of [
    ['', weights],
    [FROZEN, frozen?.weights.tensors],
  ] as const) {
    for (const [name, value] of set ?? []) tensors.set(prefix + name, toFile(value));
  }
  const metadata = new Map([
    ['format', FORMAT],
    ['config', JSON.stringify(info.config)],
    ['classes', JSON.stringify(info.classes)],
    ['images', String(info.images)],
    ['kind', info.kind],
    ...(frozen ? [['autoencoder', JSON.stringify(frozen.config)] as const] : []),
  ]);
  return encodeSafetensors(tensors, metadata);
}

/** What a weights file holds, without an engine. @throws UsageError, FailureError, SafetensorsError. */
export function readWeights(path: string, disk: Disk = realDisk): { info: WeightsInfo; tensors: Map<string, SafeTensor>; path: string } {
  const file = weightsPath(path, disk);
  const { tensors, metadata } = readSafetensors(file, disk);
  if (metadata.get('format') !== FORMAT)
    throw new FailureError(
      `'${file}' was not written by dsd: its metadata has format ${JSON.stringify(metadata.get('format') ?? null)}, wanted "${FORMAT}"`,
    );
  return { info: readInfo(file, metadata, tensors), tensors, path: file };
}

function readInfo(file: string, metadata: ReadonlyMap<string, string>, tensors: ReadonlyMap<string, SafeTensor>): WeightsInfo {
  const parse = (name: string): unknown => {
    try {
      return JSON.parse(metadata.get(name) ?? '');
    } catch (cause) {
      throw new FailureError(`'${file}': its metadata '${name}' is missing or no JSON`, { cause });
    }
  };
  const config = readConfig(file, parse('config'));
  const classes = parse('classes');
  if (!Array.isArray(classes) || !classes.every((name): name is string => typeof name === 'string'))
    throw new FailureError(`'${file}': its metadata 'classes' is no list of names`);
  const values = tensors.get('patch_in.weight')?.shape[1] ?? 0;
  const channels = values / config.model.patch ** 2;
  if (channels !== 1 && channels !== 3)
    throw new FailureError(
      `'${file}': patch_in.weight takes ${values} values a patch, which is neither 1 nor 3 channels of ${config.model.patch} x ${config.model.patch} pixels`,
    );
  const kind = metadata.get('kind') === 'raw' ? 'raw' : 'average';
  const images = parse('images');
  if (!Number.isSafeInteger(images) || (images as number) < 0)
    throw new FailureError(`'${file}': its metadata 'images' is no count: ${JSON.stringify(images)}`);
  const model = modelConfig(config, { channels, classes: classes.length });
  const frozen = [...tensors.keys()].some((name) => name.startsWith(FROZEN));
  return {
    ...{ config, model, classes, images: images as number, kind },
    ...(frozen ? { autoencoder: metadata.has('autoencoder') ? readShapes(file, config, parse('autoencoder')) : model } : {}),
  };
}

/** The frozen autoencoder's shapes, checked as the settings that they once were. */
function readShapes(file: string, config: RunConfig, tree: unknown): ModelConfig {
  const { image, channels, classes, ...model } = (typeof tree === 'object' ? tree : {}) as Partial<ModelConfig>;
  if ((channels !== 1 && channels !== 3) || !Number.isSafeInteger(classes) || (classes as number) < 0)
    throw new FailureError(`'${file}': its metadata 'autoencoder' holds no shapes of a network`);
  const settings = readConfig(file, { ...config, model, data: { ...config.data, image } });
  return modelConfig(settings, { channels, classes: classes as number });
}

function readConfig(file: string, tree: unknown): RunConfig {
  try {
    return checkConfig(tree);
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause;
    throw new FailureError(`'${file}': its configuration is not one that this version of dsd knows:\n${cause.message}`, { cause });
  }
}

/** Loads a model to use. @throws UsageError, FailureError (weights of another shape, by name), SafetensorsError. */
export function loadModel(path: string, device: Device): Loaded {
  const { info, tensors, path: file } = readWeights(path);
  const make = (prefix: string, model: ModelConfig) => Model.of(model, fromFile(file, tensors, parameters(model), prefix, device));
  const denoiser = make('', info.model);
  return { ...info, denoiser, autoencoder: info.autoencoder ? make(FROZEN, info.autoencoder) : denoiser };
}

/** Whether a network of these settings has learned to decode, or brings a frozen one that has. */
export const decodes = ({ objective: { weights, targetEncoder } }: RunConfig): boolean =>
  weights.reconstruction + weights.squared + weights.perceptual > 0 || targetEncoder === 'frozen';

/**
 * The frozen encoder and decoder that a denoiser of shapes `wanted` is to be trained on.
 * @throws UsageError when it cannot decode, or its latents are not those that the denoiser takes; and as loadModel
 */
export function loadAutoencoder(path: string, wanted: ModelConfig, device: Device): Model {
  const { config, denoiser, autoencoder } = loadModel(path, device);
  if (!decodes(config))
    throw new UsageError(`objective.frozen: '${path}' was trained by paradigm '${config.objective.paradigm}' and has no decoder`);
  for (const [key, name] of Object.entries({ image: 'data.image', patch: 'model.patch', latent: 'model.latent' } as const)) {
    const [own, other] = [wanted[key as keyof ModelConfig], autoencoder.config[key as keyof ModelConfig]];
    if (own !== other)
      throw new UsageError(
        `objective.frozen: '${path}' has ${name} ${other}, and this run ${own}: they share a latent, so --set ${name}=${other}`,
      );
  }
  if (wanted.channels !== autoencoder.config.channels)
    throw new UsageError(
      `objective.frozen: '${path}' was made for pictures of ${autoencoder.config.channels} channels, and the data has ${wanted.channels}`,
    );
  if (denoiser !== autoencoder) denoiser.dispose();
  return autoencoder;
}

function fromFile(
  file: string,
  tensors: ReadonlyMap<string, SafeTensor>,
  table: ReadonlyMap<string, ParameterSpec>,
  prefix: string,
  device: Device,
): Weights {
  const out = new Map<string, Tensor>();
  for (const [name, { shape, trainingOnly }] of table) {
    const found = tensors.get(prefix + name);
    if (!found) {
      if (trainingOnly) continue;
      throw new FailureError(`'${file}' has no tensor '${prefix}${name}', which its configuration calls for`);
    }
    if (found.dtype !== 'F32' || found.shape.join() !== shape.join()) {
      throw new FailureError(
        `'${file}': tensor '${prefix}${name}' is ${found.dtype} [${found.shape}], wanted F32 [${shape}]: these weights are of another network than their configuration says`,
      );
    }
    out.set(name, toTensor(found, device));
  }
  return new Weights(out);
}
