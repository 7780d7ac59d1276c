/** `dsd eval`: a model against held-out pictures: reconstruction, and samples at several guidance scales, with their protocol. */
import { openData } from '../data/open.js';
import { type EvaluationReport, evaluate as runEvaluation, type Stage } from '../eval/evaluate.js';
import { samplerOptions } from '../train/config.js';
import { advised } from './broken.js';
import { defineCommand } from './command.js';
import { ENGINE, inBatches, openEngine } from './engine.js';
import { openModel } from './model.js';
import { print, printJson, RESULT } from './output.js';
import { openProgress } from './progress.js';
import { count, counted, decibels, duration, figure, skipped, table } from './text.js';

const STAGES: Readonly<Record<Stage, string>> = {
  reconstruction: 'reconstructing',
  classifier: 'training the classifier, step',
  reference: 'describing real pictures',
  samples: 'drawing samples',
};

export const evaluate = defineCommand({
  name: 'eval',
  about:
    'Measures a model on the held-out pictures of its data: PSNR and effective rank, and for samples at each guidance scale the Frechet distance, precision, recall and class accuracy, judged by a classifier that is trained on the same data first. Prints how it was measured beside the figures.',
  operands: { names: 'RUN|WEIGHTS', min: 1, max: 1 },
  flags: {
    count: { kind: 'whole', value: 'N', min: 4, max: 1_000_000, about: 'samples at each guidance scale, 10,000 by default' },
    guidance: { kind: 'numbers', value: 'S,S,...', min: 0, max: 1000, about: "guidance scales; by default 1 and the run's" },
    steps: { kind: 'whole', value: 'N', min: 1, max: 100_000, about: 'steps of the solver' },
    solver: { kind: 'choice', of: ['heun', 'euler'], about: 'heun asks the network twice a step' },
    data: { kind: 'text', value: 'SPEC', about: "the data to measure against; by default the run's own" },
    'classifier-steps': {
      kind: 'whole',
      value: 'N',
      min: 1,
      max: 1_000_000,
      about:
        'training of the classifier that judges, 600 by default, which takes minutes on a CPU; figures compare only at the same number',
    },
    seed: { kind: 'whole', value: 'N', about: 'of the noise and of the classifier; 0 by default' },
    batch: { kind: 'whole', value: 'N', min: 1, about: 'samples drawn at a time, 128 by default; it changes nothing but memory and speed' },
    ...ENGINE,
    ...RESULT,
  },
  examples: [['dsd eval runs/fashion --guidance 1,1.5,2,3 --json > eval.json', 'a sweep of guidance']],
  run: async (flags, [path = '']) => {
    const began = performance.now();
    const progress = openProgress(flags);
    const engine = openEngine(flags);
    const loaded = openModel(path, engine.device, ['generate']);
    const { config, model } = loaded;
    const { guidance, ...defaults } = samplerOptions(config);
    const spec = flags.data ?? config.data.source;
    progress.update(`opening ${spec}`);
    const refuse = (error: unknown): never => {
      throw advised(error, spec);
    };
    const data = await openData(spec, {
      ...{ size: model.image, channels: model.channels, broken: config.data.broken },
      onBroken: (broken) => progress.note(skipped(broken)),
    }).catch(refuse);
    const batch = flags.batch ?? 128;
    const evaluation = runEvaluation({
      ...{ denoiser: loaded.denoiser, coder: loaded.autoencoder, weights: loaded.kind, data },
      sampler: {
        ...defaults,
        ...(flags.steps === undefined ? {} : { steps: flags.steps }),
        ...(flags.solver === undefined ? {} : { solver: flags.solver }),
      },
      guidances: [...new Set(flags.guidance ?? (config.objective.labels ? [1, guidance] : [1]))],
      ...{ count: flags.count ?? 10_000, batch, seed: flags.seed ?? 0 },
      ...{ device: engine.device, dtype: engine.compute, labels: config.objective.labels ? 'balanced' : 'none' },
      ...(flags['classifier-steps'] === undefined ? {} : { classifier: { steps: flags['classifier-steps'] } }),
      progress: (stage, done, total) =>
        progress.update(
          `${STAGES[stage]} ${count(done)}/${count(total)}`,
          `${Math.floor((100 * done) / total)} %`,
          duration((performance.now() - began) / 1000),
        ),
    });
    const report = await inBatches(batch, () => evaluation).catch(refuse);
    progress.clear();
    if (flags.json) printJson({ weights: path, images: loaded.images, ...report, seconds: (performance.now() - began) / 1000 });
    else print(...lines(report));
  },
});

function lines({ reconstruction, pcaPsnr, realAccuracy, floor, samples, protocol, warnings }: EvaluationReport): string[] {
  const share = (x: number | undefined): string => (x === undefined ? '' : `${(100 * x).toFixed(1)} %`);
  const { extractor, sampler } = protocol;
  return [
    `reconstruction  PSNR ${decibels(reconstruction.psnr)} on ${counted(reconstruction.pictures, 'held-out picture')}; per-patch PCA of equal width ${decibels(pcaPsnr)}`,
    `latent          effective rank ${reconstruction.latent.effectiveRank.toFixed(1)}`,
    '',
    ...table(
      [
        ['samples', `FD-${extractor.name}`, 'precision', 'recall', 'in the asked class'],
        ...samples.map((row) => [
          `guidance ${row.guidance}`,
          figure(row.frechet),
          share(row.precision),
          share(row.recall),
          share(row.accuracy),
        ]),
        [`real pictures (${count(floor.count)})`, figure(floor.frechet), share(floor.precision), share(floor.recall), share(realAccuracy)],
      ],
      [1, 2, 3, 4],
    ),
    '',
    `${count(protocol.samples)} samples a row: ${protocol.weights === 'average' ? 'averaged' : 'raw'} weights, ${sampler.solver}, ${counted(sampler.steps, 'step')}, guidance on [${sampler.interval.join(', ')}], labels ${protocol.labels}, seed ${protocol.seed}, ${protocol.precision} on ${protocol.device}`,
    `against ${count(protocol.reference.count)} pictures of ${protocol.reference.source}; features of a classifier trained for ${count(extractor.steps)} steps on ${extractor.trainedOn}`,
    ...warnings.map((warning) => `warning: ${warning}`),
  ];
}
