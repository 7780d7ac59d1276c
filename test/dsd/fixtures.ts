/** The oracle's fixtures (test/oracle/oracle.py) as tensors and objects of ours. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Draws } from '../../src/dsd/draws.js';
import { Model } from '../../src/dsd/model.js';
import { type ObjectiveConfig, PARADIGMS } from '../../src/dsd/objective.js';
import type { ModelConfig } from '../../src/dsd/sizes.js';
import { readSafetensors, type Safetensors } from '../../src/io/safetensors.js';
import { Weights } from '../../src/nn/weights.js';
import { type DType, type Tensor, tensor } from '../../src/torch/index.js';

const FOLDER = join(import.meta.dirname, '../../../test/fixtures/oracle');

/** One file of the oracle. Values are float64 (or int64); `case` and `parameters` come from its metadata. */
export class Fixture {
  private readonly file: Safetensors;
  readonly case: Record<string, unknown>;
  /** The order of `reach.*`. */
  readonly parameters: readonly string[];

  constructor(name: string) {
    this.file = readSafetensors(join(FOLDER, `${name}.safetensors`));
    this.case = JSON.parse(this.file.metadata.get('case') ?? '{}');
    this.parameters = JSON.parse(this.file.metadata.get('parameters') ?? '[]');
  }

  has(name: string): boolean {
    return this.file.tensors.has(name);
  }

  names(prefix: string): string[] {
    return [...this.file.tensors.keys()].filter((name) => name.startsWith(prefix));
  }

  values(name: string): Float64Array {
    const found = this.file.tensors.get(name);
    assert.ok(found, `the fixture has no ${name}`);
    const { buffer, byteOffset, byteLength } = found.data;
    if (found.dtype === 'F64') return new Float64Array(buffer, byteOffset, byteLength / 8);
    if (found.dtype === 'F32') return Float64Array.from(new Float32Array(buffer, byteOffset, byteLength / 4));
    return Float64Array.from(new BigInt64Array(buffer, byteOffset, byteLength / 8), Number);
  }

  scalar(name: string): number {
    return this.values(name)[0] as number;
  }

  tensor(name: string, dtype: DType = 'float64'): Tensor {
    return tensor(this.values(name), [...(this.file.tensors.get(name)?.shape ?? [])]).to({ dtype });
  }
}

/** The oracle's toy network. */
export function toyConfig(latentNorm = true): ModelConfig {
  return { image: 16, channels: 3, patch: 4, width: 32, depth: 3, heads: 2, hidden: 24, latent: 5, classes: 4, latentNorm, prototypes: 12 };
}

/** One of its two networks, with gradients where `trained`. */
export function toyModel(which: 'online' | 'target', options: { dtype?: DType; latentNorm?: boolean; trained?: boolean } = {}): Model {
  const { dtype = 'float64', latentNorm = true, trained = which === 'online' } = options;
  const file = new Fixture('weights');
  const tensors = file
    .names(`${which}.`)
    .map((name): [string, Tensor] => [name.slice(which.length + 1), file.tensor(name, dtype).requiresGrad_(trained)]);
  return Model.of(toyConfig(latentNorm), new Weights(new Map(tensors)));
}

/** Inputs and draws of the loss cases. */
export function stepInput(
  passes: number,
  dtype: DType = 'float64',
): { x: Tensor; y: Tensor; firstImage: number; draws: Draws; center: Tensor } {
  const file = new Fixture(`draws-${passes}`);
  const get = (name: string) => file.tensor(name, dtype);
  return {
    x: get('x'),
    y: file.tensor('y', 'int64'),
    firstImage: file.values('indices')[0] as number,
    center: get('center'),
    draws: {
      noise: get('noise'),
      time: file.tensor('time'),
      drop: get('drop'),
      mask: get('mask'),
      decodeNoise: get('decode_noise'),
      decodeLevel: get('decode_level'),
    },
  };
}

const base: ObjectiveConfig = {
  target: 'clean',
  preconditioned: false,
  stopGradient: true,
  targetEncoder: 'ema',
  input: 'noised',
  gradientIntoInput: 1,
  mask: 0.25,
  passes: 1,
  time: { mean: 0, std: 1, shift: 0.71, weighting: 0 },
  decoderNoise: { probability: 0.5, from: 0.7 },
  dropClass: 0.1,
  labels: true,
  weights: { reconstruction: 1, squared: 0, perceptual: 0, denoise: 0.3, align: 0.5, represent: 0.25, classify: 0.1 },
};
/** A paradigm's switches over these. */
const switched = (name: keyof typeof PARADIGMS) => ({ ...base, ...PARADIGMS[name], time: base.time });
const bare = { reconstruction: 1, squared: 0, perceptual: 0, denoise: 0.3, align: 0, represent: 0, classify: 0 };

/** Our settings for each loss case of the oracle, and whether its networks have the latent norm. */
export const LOSS_CASES: Record<string, { config: ObjectiveConfig; latentNorm: boolean }> = {
  dsd: { config: base, latentNorm: true },
  'dsd-passes': { config: { ...base, mask: 0, passes: 3, weights: bare }, latentNorm: true },
  'dsd-passes-align': { config: { ...base, passes: 3, weights: { ...bare, align: 0.5 } }, latentNorm: true },
  'dsd-input-cut': { config: { ...base, gradientIntoInput: 0 }, latentNorm: true },
  'dsd-preconditioned': { config: { ...base, preconditioned: true, weights: bare }, latentNorm: true },
  naive: { config: { ...switched('naive'), weights: bare }, latentNorm: false },
  'naive-sg': { config: { ...switched('naive'), stopGradient: true, weights: bare }, latentNorm: false },
  clean: { config: { ...base, targetEncoder: 'online', stopGradient: false, mask: 0, weights: bare }, latentNorm: false },
  'clean-sg': { config: { ...base, targetEncoder: 'online', mask: 0, weights: bare }, latentNorm: false },
  'velocity-ema': { config: { ...base, target: 'velocity', weights: bare }, latentNorm: true },
  'self-distillation': {
    config: { ...switched('self-distillation'), weights: { ...bare, reconstruction: 0 } },
    latentNorm: true,
  },
  'latent-diffusion': { config: { ...switched('latent-diffusion'), weights: { ...bare, reconstruction: 0 } }, latentNorm: true },
  autoencoder: { config: { ...switched('autoencoder'), weights: { ...bare, denoise: 0 } }, latentNorm: true },
};

/** || a - b || / max(|| b ||, floor). */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>, floor = 0): number {
  assert.equal(a.length, b.length, 'lengths differ');
  let [difference, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference) / Math.max(Math.sqrt(norm), floor);
}

export function assertClose(actual: Tensor, expected: ArrayLike<number>, tolerance: number, what: string, floor = 0): void {
  const values = actual.detach().to({ dtype: 'float64' }).toArray() as Float64Array;
  const error = relativeError(values, expected, floor);
  assert.ok(error <= tolerance, `${what}: relative error ${error.toExponential(2)} is over ${tolerance}`);
}
