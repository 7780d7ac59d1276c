/** Trains one case with one seed and records its curve. Writes nothing. */
import { setImmediate as turn } from 'node:timers/promises';
import { DivergedError } from '../../core/errors.js';
import { Loader } from '../../data/loader.js';
import type { DataSet } from '../../data/source.js';
import type { ModelConfig } from '../../dsd/sizes.js';
import type { Device, DType } from '../../torch/index.js';
import type { RunConfig } from '../../train/config.js';
import { Accumulator } from '../../train/metrics.js';
import { due } from '../../train/schedule.js';
import { Stepper } from '../../train/step.js';
import { stopIf } from '../runner.js';
import { scaleLatent } from '../scale.js';
import { type Measured, measure } from './measure.js';

export interface Point extends Measured {
  /** Pictures trained on. */
  readonly images: number;
  /** Mean of the diffusion loss over the steps since the point before; absent at the start, and where there is no such loss. */
  readonly denoise?: number;
}

export interface Curve {
  readonly points: readonly Point[];
  /** Why it ends before the last picture; absent if it does not. */
  readonly diverged?: string;
  /** Steps not applied, because their gradient was not finite. */
  readonly skipped: number;
  /** Of all: training and measuring. */
  readonly seconds: number;
}

export interface TrainCaseOptions {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly data: DataSet;
  readonly device: Device;
  readonly compute: DType;
  /** Held-out pictures that each point is measured on. */
  readonly measured: number;
  /** Deviation that the untrained latent is brought to, before its LayerNorm where it has one; 0: as the first values make it. */
  readonly scale: number;
  readonly signal: AbortSignal;
  readonly onProgress: (images: number, last: Point) => void;
}

/**
 * A run from its first values to train.images pictures, measured at the start, every log.evaluate pictures and at the end, with the raw weights:
 * those that the losses move. Values that stop being finite end it; they are an outcome and no error.
 * @throws InterruptedError, FailureError (out of memory), PictureError
 */
export async function trainCase(options: TrainCaseOptions): Promise<Curve> {
  const { config, model, data, device, compute, measured, scale, signal, onProgress } = options;
  const {
    train: plan,
    log,
    objective: { preconditioned },
  } = config;
  const began = performance.now();
  const stepper = new Stepper(config, model, device, compute);
  const loader = new Loader(data.train, { batch: plan.batch, seed: plan.seed, flip: config.data.flip, workers: config.data.workers });
  const accumulator = new Accumulator();
  const points: Point[] = [];
  const at = async (images: number, denoise?: number): Promise<Point> => {
    const found = await measure(stepper.online, data.heldOut, { device, compute, count: measured, preconditioned });
    const point = { images, ...found, ...(denoise === undefined ? {} : { denoise }) };
    points.push(point);
    return point;
  };
  let [images, skipped] = [0, 0];
  const ended = (diverged?: string): Curve => ({
    ...{ points, skipped, seconds: (performance.now() - began) / 1000 },
    ...(diverged === undefined ? {} : { diverged }),
  });
  try {
    if (scale > 0) {
      const { deviation } = await measure(stepper.online, data.heldOut, { device, compute, count: measured, preconditioned });
      scaleLatent(stepper, scale / deviation);
    }
    let last = await at(0);
    while (images < plan.images) {
      stopIf(signal);
      const batch = await loader.next();
      accumulator.add(stepper.step(batch, images));
      const before = images;
      images += plan.batch;
      if (due(log.evaluate, before, images) || images >= plan.images) {
        const { losses, bad } = accumulator.read();
        skipped += bad.filter(Boolean).length;
        if (bad.every(Boolean)) return ended(`no step since ${last.images} pictures had a gradient that was finite`);
        try {
          last = await at(images, losses.denoise);
        } catch (error) {
          if (error instanceof DivergedError) return ended(`at ${images} pictures: ${error.message}`);
          throw error;
        }
      }
      onProgress(images, last);
      await turn(); // lets signal handlers run
    }
    return ended();
  } finally {
    await loader.close();
    accumulator.dispose();
    stepper.dispose();
  }
}
