/** Pictures of a run's progress, from fixed pictures, fixed noise and fixed labels: what changes between two of them is the network. */
import { key } from '../core/random.js';
import { grid, pairGrid, writePng } from '../data/picture.js';
import { type ImageSource, stack } from '../data/source.js';
import { generate, toPixels } from '../dsd/generate.js';
import type { Model } from '../dsd/model.js';
import { spread } from '../eval/pictures.js';
import { type Device, type DType, noGrad, randn, scope, type Tensor, tensor } from '../torch/index.js';
import { type RunConfig, samplerOptions } from './config.js';
import type { RunFolder } from './run.js';
import { type Stepper, toPictures } from './step.js';
import { decodes } from './weights.js';

/** Pictures in a grid of reconstructions. */
const SHOWN = 32;

/** The model that encodes and decodes: with a frozen autoencoder, that. */
export const coderOf = (stepper: Stepper): Model => stepper.frozen ?? stepper.averaged;

/** Pixels (uint8) of what `make` returns, read back. */
function read(make: () => Tensor): Uint8Array {
  const out = noGrad(() => scope(() => toPixels(make())));
  const pixels = out.toArray() as Uint8Array;
  out.dispose();
  return pixels;
}

/** Draws both grids into the run's folder and returns their paths. @throws DiskError */
export async function drawGrids(
  stepper: Stepper,
  config: RunConfig,
  folder: RunFolder,
  heldOut: ImageSource,
  images: number,
  compute: DType,
  device: Device,
): Promise<string[]> {
  if (!decodes(config)) return [];
  const { image: size, channels, classes: K } = stepper.averaged.config;
  const coder = coderOf(stepper);
  const paths: string[] = [];

  const shown = spread(heldOut.length, Math.min(SHOWN, heldOut.length));
  const originals = await stack(heldOut, shown);
  const rebuilt = read(() => coder.in(compute).reconstruct(toPictures(originals, coder.config, device)));
  const reconstructions = folder.grid('reconstructions', images);
  await writePng(reconstructions, pairGrid(originals, rebuilt, shown.length, size, channels, 8, { gap: 2, scale: 2 }));
  paths.push(reconstructions);

  if (config.objective.weights.denoise === 0 || config.objective.input === 'clean') return paths;
  // Without labels no class embedding was trained, so there is nothing to draw but the null class, and nothing to guide to.
  const { labels: labelled } = config.objective;
  const columns = labelled ? Math.max(1, Math.min(K, 10)) : 10;
  const total = columns * config.sample.rows;
  const pixels = read(() => {
    const noise = randn(key(config.train.seed, 'grid'), 0, stepper.averaged.latentShape(total), { device });
    const labels = tensor(
      BigInt64Array.from({ length: total }, (_, i) => BigInt(labelled ? i % columns : K)),
      [total],
      { device },
    );
    return generate(stepper.averaged, coder, { noise, labels, options: samplerOptions(config) }, compute);
  });
  const samples = folder.grid('samples', images);
  await writePng(samples, grid(pixels, total, size, channels, columns, { gap: 2, scale: 2 }));
  paths.push(samples);
  return paths;
}
