/** Results of a comparing study made by hand. */
import type { CompareResult } from '../../src/study/compare/outcome.js';
import { PARADIGM_PRESETS, paradigmCases } from '../../src/study/compare/paradigms.js';
import { planRuns } from '../../src/study/compare/plan.js';

const CASES = paradigmCases(0.5);
export const SIZE = 16;
const COUNT = 4;

/** The Frechet distance without guidance and at 2, and a PSNR. */
export function compared(name: string, seed: number, distance: number, psnr = 30): CompareResult {
  const [run] = planRuns({
    ...{
      preset: PARADIGM_PRESETS.cpu,
      cases: CASES.filter((each) => each.name === name),
      seeds: [seed],
      settings: [],
      judging: {},
      scale: 1,
    },
  });
  const { data, settings } = run!;
  const of = (frechet: number) => [{ extractor: 'nsfwjs-mixed7', name: 'FD-nsfwjs-mixed7', frechet, count: 100 }];
  const sampler = { solver: 'heun' as const, steps: 25, interval: [0.1, 1] as [number, number], shift: 0.71, target: 'clean' };
  const guidances = name === 'label-free' ? [1] : [1, 2];
  const from = { source: 'emoji', count: 100 };
  const latent = { effectiveRank: 12.5, deviation: 1 };
  const probes = { nearest: 0.5, linear: 0.6, blind: 0.2, protocol: { train: from, heldOut: from, nearest: { k: 20 } } };
  const judge = {
    extractor: 'nsfwjs-mixed7',
    distance: 'FD-nsfwjs-mixed7',
    dimension: 768,
    source: 'mixed7',
    reference: from,
    floor: from,
  };
  const protocol = {
    ...{ samples: 100, seed: 0, device: 'cpu', weights: 'average', labels: 'balanced', noise: 'normal', precision: 'float32' },
    ...{ pictures: 'uint8', judges: [judge], reconstruction: from },
  };
  const drawing = {
    reconstruction: { psnr, pcaPsnr: 25, mostRank: 15, latent, frechet: [] },
    samples: guidances.map((guidance) => ({ sampler: { ...sampler, guidance }, distances: of(distance / guidance), accuracy: 0.75 })),
    ...{ floor: of(1), realAccuracy: 0.9, probes, warnings: [], protocol },
  };
  const encoding = {
    ...{ latent, mostRank: 15, probes },
    protocol: { weights: 'average', precision: 'float32', device: 'cpu', latent: from },
  };
  const pixels = Buffer.alloc(COUNT * SIZE * SIZE * 3, 40 * seed).toString('base64');
  const drawn = { size: SIZE, channels: 3 as const, count: COUNT, sets: guidances.map((guidance) => ({ guidance, pixels })) };
  return {
    ...{ data, case: name, seed, finished: '2026-01-01T00:00:00Z', ...settings },
    machine: { device: 'cpu', compute: 'float32', threads: 1, libtorch: '1.13.1', processor: 'a processor' },
    trained: settings.stages.map((stage) => ({
      ...{ name: stage.name, run: `runs/${name}.${stage.name}`, parameters: 1000 / settings.stages.length, images: 640 },
      ...{ flops: 1e12 / settings.stages.length, seconds: 60, skipped: 0 },
    })),
    judgedIn: 30,
    ...(name === 'self-distillation' ? { encoding } : { drawing, drawn }),
  };
}

export const diverged = (name: string, seed: number): CompareResult => {
  const { drawing: _, drawn: __, ...result } = compared(name, seed, 1);
  return { ...result, diverged: 'the gradient was not finite' };
};
