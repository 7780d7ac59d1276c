/** A toy run for tests: a few steps of a small network, returning what it logged. */
import { Loader } from '../../src/data/loader.js';
import type { Device, DType } from '../../src/torch/index.js';
import { modelConfig, type RunSettings, resolveConfig } from '../../src/train/config.js';
import { findPreset } from '../../src/train/presets.js';
import { type StepOutput, Stepper } from '../../src/train/step.js';
import { discs } from './synthetic.js';

export interface ToyOptions {
  readonly steps: number;
  readonly workers?: number;
  readonly device?: Device;
  readonly dtype?: DType;
  readonly settings?: RunSettings;
  /** Called after each step, before what it returned is read. */
  readonly onStep?: (step: number, output: StepOutput) => void;
}

/** Loss terms of each step, total first, then in alphabetical order. */
export async function toyRun({
  steps,
  settings = {},
  onStep,
  workers = 0,
  device = 'cpu',
  dtype = 'float32',
}: ToyOptions): Promise<number[][]> {
  const config = resolveConfig(findPreset('toy').settings, settings);
  const source = discs(96, config.data.image);
  const stepper = new Stepper(config, modelConfig(config, { channels: 3, classes: source.classes.length }), device, dtype);
  const loader = new Loader(source, { batch: config.train.batch, seed: config.train.seed, flip: true, workers, prefetch: 1 + workers });
  const out: number[][] = [];
  try {
    for (let step = 0; step < steps; step++) {
      const output = stepper.step(await loader.next(), step * config.train.batch);
      onStep?.(step, output);
      const { total, ...terms } = output.terms;
      out.push(
        [
          total,
          ...Object.keys(terms)
            .sort()
            .map((name) => terms[name as keyof typeof terms]),
        ].map((term) => Number(term?.item())),
      );
      for (const value of [...Object.values(output.terms), output.gradientNorm, output.latent, output.rawLatent]) value?.dispose();
    }
  } finally {
    await loader.close();
    stepper.dispose();
  }
  return out;
}
