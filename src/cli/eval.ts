/** `dsd eval`: a model, or pictures that came from anywhere, against real pictures, every figure with its protocol. */
import { UsageError } from '../core/errors.js';
import { openData } from '../data/open.js';
import { writePng } from '../data/picture.js';
import type { DataSet } from '../data/source.js';
import { evaluations } from '../dsd/sampler.js';
import { evaluateEncoder } from '../eval/encoder.js';
import { type JudgeInput, judgePictures, evaluate as runEvaluation } from '../eval/evaluate.js';
import { AGAINST } from '../eval/jury-input.js';
import { contentOf } from '../eval/reference-file.js';
import { openSampleFolder } from '../eval/sample-folder.js';
import { ofNpz, type PictureSet } from '../eval/sets.js';
import { combinations } from '../eval/sweep.js';
import { samplerOptions } from '../train/config.js';
import { decodes, type Loaded, loadModel } from '../train/weights.js';
import type { Values } from './args.js';
import { advised } from './broken.js';
import { defineCommand } from './command.js';
import { ENGINE, type Engine, inBatches, openEngine } from './engine.js';
import { checkHeeded, chooseFeatures, referenceFiles, sizeWarnings, subjectOf } from './eval-input.js';
import { encoderLines, modelLines, pictureLines } from './eval-report.js';
import { STAGES } from './eval-stages.js';
import { axesOf, plotFiles, writePlots } from './eval-sweep.js';
import { checkAbilities } from './model.js';
import { checkFile, checkPng, OVERWRITE, print, printJson, RESULT } from './output.js';
import { openProgress, type Progress } from './progress.js';
import { count, duration, skipped } from './text.js';

/** Samples, and real pictures of a reference, if nothing else is said: a network looks at ten pictures a second on two cores of a CPU. */
const ON_CPU = { samples: 1000, real: 1000, probed: 10_000, searched: 5000 };
const ON_GPU = { samples: 10_000, real: 50_000, probed: 100_000, searched: 200_000 };
const defaultsOn = ({ device }: Engine): typeof ON_CPU => (device === 'cpu' ? ON_CPU : ON_GPU);
/** Samples shown beside their nearest training pictures. */
const SHOWN = 16;

const FLAGS = {
  count: {
    kind: 'whole',
    value: 'N',
    min: 4,
    max: 1_000_000,
    about: 'samples in a set: by default 10,000 on a GPU and 1,000 on a CPU, of pictures that are there at most all',
  },
  guidance: {
    kind: 'numbers',
    value: 'S,S,...',
    min: 0,
    max: 1000,
    about: "guidance scales: short for --sweep guidance=S,S,...; by default 1 and the run's",
  },
  sweep: {
    kind: 'text',
    value: 'NAME=V,V,...',
    repeat: true,
    about:
      'a set of samples for each value of guidance, steps, solver, start or end (of the interval in which guidance is applied); with several, for each combination. Draws a plot',
  },
  plot: {
    kind: 'text',
    value: 'FILE.png',
    about: 'of a sweep, by default sweep.png; an SVG is written beside it, and one of each for every network',
  },
  steps: { kind: 'whole', value: 'N', min: 1, max: 100_000, about: 'steps of the solver' },
  solver: { kind: 'choice', of: ['heun', 'euler'], about: 'heun asks the network twice a step' },
  features: {
    kind: 'text',
    value: 'NAME,...',
    about:
      'networks that judge: classifier (trained here on the data), nsfwjs-mixed7, inception-2015 (the one that FID means; its weights are yours to bring). By default the first where there are labels, the second, and the third where its weights are named',
  },
  inception: { kind: 'text', value: 'FILE', about: 'weights of inception-2015; by default what the variable DSD_INCEPTION names' },
  data: { kind: 'text', value: 'SPEC', about: "the real pictures: openmoji, fashion-mnist or a folder; by default the run's own" },
  against: { kind: 'choice', of: AGAINST, about: 'the part of the data that is the reference; by default held-out' },
  real: {
    kind: 'whole',
    value: 'N',
    min: 4,
    max: 10_000_000,
    about: 'the most real pictures in the reference: by default 50,000 on a GPU and 1,000 on a CPU',
  },
  reference: {
    kind: 'text',
    value: 'FILE.npz',
    repeat: true,
    about: "a reference instead of the data's: statistics (mu, sigma), as ADM's evaluator and pytorch-fid have them, or pictures (arr_0)",
  },
  'write-reference': {
    kind: 'text',
    value: 'FILE.npz',
    about: "writes the reference's statistics; of inception-2015 with the pictures, as other evaluators read them",
  },
  neighbours: {
    kind: 'text',
    value: 'FILE.png',
    about:
      'shows the first 16 samples, each beside its 5 nearest training pictures by the features; searches 5,000 of them on a CPU, 200,000 on a GPU, where there are as many',
  },
  'classifier-steps': {
    kind: 'whole',
    value: 'N',
    min: 1,
    max: 1_000_000,
    about: 'training of the classifier, 600 by default, which takes minutes on a CPU; figures compare only at the same number',
  },
  seed: { kind: 'whole', value: 'N', about: 'of the noise, the classifier and the subsets of kernel distances; 0 by default' },
  batch: { kind: 'whole', value: 'N', min: 1, about: 'samples drawn at a time, 128 by default; it changes nothing but memory and speed' },
  overwrite: OVERWRITE,
  ...ENGINE,
  ...RESULT,
} as const;
type EvalFlags = Values<typeof FLAGS>;

export const evaluate = defineCommand({
  name: 'eval',
  about:
    'Measures samples against real pictures: Frechet and kernel distance, precision and recall by the features of one or more networks, beside what other real pictures score, and class accuracy. Of a model also its reconstructions and latents, and what its encoder knows of classes (of one without a decoder these alone); of a folder or an .npz (arr_0, and classes in arr_1) the pictures in it. Prints how it was measured beside the figures.',
  operands: { names: 'RUN|WEIGHTS|FOLDER|NPZ', min: 1, max: 1 },
  flags: FLAGS,
  examples: [
    ['dsd eval runs/fashion --guidance 1,1.5,2,3 --json > eval.json', 'four scales of guidance'],
    ['dsd eval runs/fashion --sweep guidance=1,2,3 --sweep steps=10,25,50 --plot sweep.png', 'every combination, and a plot'],
    ['dsd eval runs/demo --neighbours neighbours.png', 'are training pictures drawn again?'],
    ['dsd eval samples.npz --data fashion-mnist', 'samples of any program'],
  ],
  run: async (flags, [path = '']) => {
    const began = performance.now();
    const progress = openProgress(flags);
    const subject = subjectOf(path);
    const engine = openEngine(flags);
    const work = { path, flags, engine, progress, began };
    await (subject === 'model' ? evaluateModel(work) : evaluatePictures(work, subject));
  },
});

interface Work {
  readonly path: string;
  readonly flags: EvalFlags;
  readonly engine: Engine;
  readonly progress: Progress;
  readonly began: number;
}

async function evaluateModel(work: Work): Promise<void> {
  const { path, flags, engine, progress, began } = work;
  const loaded = loadModel(path, engine.device);
  const { config, model } = loaded;
  if (!decodes(config)) return evaluateBlind(work, loaded);
  checkAbilities(path, loaded, ['generate']);
  const defaults = samplerOptions(config);
  const base = {
    ...defaults,
    ...(flags.steps === undefined ? {} : { steps: flags.steps }),
    ...(flags.solver === undefined ? {} : { solver: flags.solver }),
  };
  const axes = axesOf(flags, config.objective.labels ? [1, defaults.guidance] : [1]);
  const settings = combinations(base, axes);
  const spec = flags.data ?? config.data.source;
  const data = await open(spec, { size: model.image, channels: model.channels, broken: config.data.broken }, progress);
  const batch = flags.batch ?? 128;
  const samples = flags.count ?? defaultsOn(engine).samples;
  const labelled = config.objective.labels && data.train.classes.length > 1;
  const common = judgeInput({ flags, engine, progress }, data, labelled, samples);
  const plots = plotFiles(flags, axes, common.features);
  const sizes = sizeWarnings(flags.reference, common.features, { width: model.image, height: model.image });
  const evaluation = runEvaluation({
    ...common,
    ...{ denoiser: loaded.denoiser, coder: loaded.autoencoder, weights: loaded.kind, data, batch },
    ...{ dtype: engine.compute, labels: config.objective.labels ? 'balanced' : 'none' },
    settings,
    ...(data.train.classes.length > 1 ? { probed: defaultsOn(engine).probed } : {}),
  });
  const evaluated = await inBatches(batch, () => evaluation).catch(refuse(spec));
  const report = {
    ...evaluated,
    samples: evaluated.samples.map(({ sampler, ...scores }) => ({ sampler, nfe: evaluations(sampler), ...scores })),
    warnings: [...sizes, ...evaluated.warnings],
  };
  const drawn = plots ? await writePlots(plots, report, axes) : [];
  progress.clear();
  const seconds = (performance.now() - began) / 1000;
  const classify = classifyWeight(loaded);
  if (flags.json)
    printJson({ weights: path, images: loaded.images, classifyWeight: classify, ...report, sweep: axes, plots: drawn, seconds });
  else print(...modelLines(report, classify), ...drawn);
}

/** How much the encoder was taught to tell classes; null of a frozen one, whose training is not in the file. */
const classifyWeight = ({ config, denoiser, autoencoder }: Loaded): number | null =>
  denoiser !== autoencoder ? null : config.objective.labels ? config.objective.weights.classify : 0;

/** What only those that make pictures can be asked. */
const OF_PICTURES = [
  ...([
    'count',
    'guidance',
    'plot',
    'steps',
    'solver',
    'features',
    'inception',
    'against',
    'real',
    'write-reference',
    'neighbours',
  ] as const),
  ...(['classifier-steps', 'seed'] as const),
];

/** Of a model without a decoder: its latent, and what its encoder knows. */
async function evaluateBlind({ path, flags, engine, progress, began }: Work, loaded: Loaded): Promise<void> {
  const { config, model, autoencoder: coder, kind: weights } = loaded;
  const given =
    OF_PICTURES.find((name) => flags[name] !== undefined) ?? (['sweep', 'reference'] as const).find((name) => flags[name].length > 0);
  if (given)
    throw new UsageError(
      `--${given} is for pictures, and '${path}' has no decoder: it was trained by paradigm '${config.objective.paradigm}', and is asked for its latent and what its encoder knows`,
    );
  const spec = flags.data ?? config.data.source;
  const data = await open(spec, { size: model.image, channels: model.channels, broken: config.data.broken }, progress);
  const batch = flags.batch ?? 128;
  const { probed } = defaultsOn(engine);
  const report = await inBatches(batch, () =>
    evaluateEncoder({
      ...{ coder, data, weights, batch, device: engine.device, dtype: engine.compute, measured: probed },
      ...(data.train.classes.length > 1 ? { probed } : {}),
      progress: staged(progress),
    }),
  ).catch(refuse(spec));
  progress.clear();
  const classify = classifyWeight(loaded);
  if (flags.json)
    printJson({ weights: path, images: loaded.images, classifyWeight: classify, ...report, seconds: (performance.now() - began) / 1000 });
  else print(...encoderLines(report, classify));
}

async function evaluatePictures({ path, flags, engine, progress, began }: Work, subject: 'folder' | 'npz'): Promise<void> {
  for (const flag of ['guidance', 'steps', 'solver', 'batch', 'plot'] as const)
    if (flags[flag] !== undefined)
      throw new UsageError(`--${flag} is for drawing samples, and ${path} holds pictures that are drawn already`);
  if (flags.sweep.length > 0) throw new UsageError(`--sweep is for drawing samples, and ${path} holds pictures that are drawn already`);
  const opened = async (most: number | undefined, classes?: readonly string[]): Promise<PictureSet> =>
    subject === 'npz'
      ? ofNpz(path, most)
      : openSampleFolder(path, {
          ...{ count: most, classes },
          progress: (done, total) => progress.update(`looking at ${path} ${count(done)}/${count(total)}`),
        });
  const whole = await opened(undefined);
  const { height: size, count: available } = whole;
  whole.close();
  if (flags.data === undefined && flags.reference.length === 0)
    throw new UsageError(`${path} holds pictures: name what they are to be compared with by --data or --reference`);
  if (flags.data !== undefined && whole.width !== size)
    throw new UsageError(`${path} has pictures of ${whole.width} x ${size} px; data sets have square ones: compare with --reference alone`);
  const data = flags.data === undefined ? undefined : await open(flags.data, { size, broken: 'error' }, progress);
  const most = flags.count ?? (engine.device === 'cpu' ? Math.min(available, ON_CPU.samples) : undefined);
  const set = await opened(most, data?.train.classes);
  try {
    const labelled = set.labels !== undefined && data !== undefined && data.train.classes.length > 1;
    const common = judgeInput({ flags, engine, progress }, data, labelled, set.count);
    const sizes = sizeWarnings(flags.reference, common.features, set);
    const judged = await judgePictures(common, set).catch(refuse(flags.data ?? path));
    const report = { ...judged, warnings: [...sizes, ...judged.warnings] };
    progress.clear();
    if (flags.json) printJson({ ...report, available, seconds: (performance.now() - began) / 1000 });
    else print(...pictureLines(report, available));
  } finally {
    set.close();
  }
}

function judgeInput(
  { flags, engine, progress }: Pick<Work, 'flags' | 'engine' | 'progress'>,
  data: DataSet | undefined,
  labelled: boolean,
  samples: number,
): JudgeInput {
  const files = flags.reference;
  const shown = flags.neighbours;
  if (shown !== undefined) checkPng(shown, flags.overwrite, '--neighbours');
  if (shown !== undefined && !data) throw new UsageError('--neighbours searches training pictures: name them with --data');
  const features = chooseFeatures(flags, { labelled, files: files.map((path) => ({ path, ...contentOf(path) })) });
  checkHeeded(flags, features);
  const written = flags['write-reference'] === undefined ? undefined : referenceFiles(flags['write-reference'], features);
  for (const path of written?.values() ?? []) checkFile(path, flags.overwrite, '--write-reference');
  if (written && files.length > 0)
    throw new UsageError('--write-reference writes that of real pictures, and --reference takes one from a file: leave one out');
  return {
    ...{ features, inception: flags.inception, data, against: flags.against ?? 'held-out', files, writeReference: written },
    ...{ count: samples, real: flags.real ?? defaultsOn(engine).real },
    ...{ device: engine.device, seed: flags.seed ?? 0 },
    ...(shown === undefined
      ? {}
      : { neighbours: { shown: SHOWN, searched: defaultsOn(engine).searched, write: (picture) => writePng(shown, picture) } }),
    ...(flags['classifier-steps'] === undefined ? {} : { classifier: { steps: flags['classifier-steps'] } }),
    progress: staged(progress),
  };
}

/** Shows a stage with its share and the time that it will take still, by what came after its first batch. */
function staged(progress: Progress): (stage: keyof typeof STAGES, done: number, total: number) => void {
  let current: { stage: keyof typeof STAGES; began: number; first: number; done: number } | undefined;
  return (stage, done, total) => {
    if (stage !== current?.stage || done < current.done) current = { stage, began: performance.now(), first: done, done };
    current.done = done;
    const each = (performance.now() - current.began) / 1000 / (done - current.first);
    progress.update(
      `${STAGES[stage]} ${count(done)}/${count(total)}`,
      `${Math.floor((100 * done) / total)} %`,
      ...(done > current.first && done < total ? [`ETA ${duration(each * (total - done))}`] : []),
    );
  };
}

async function open(
  spec: string,
  options: { size: number; channels?: 1 | 3; broken: 'error' | 'skip' },
  progress: Progress,
): Promise<DataSet> {
  progress.update(`opening ${spec}`);
  return openData(spec, { ...options, onBroken: (broken) => progress.note(skipped(broken)) }).catch(refuse(spec));
}

const refuse =
  (spec: string) =>
  (error: unknown): never => {
    throw advised(error, spec);
  };
