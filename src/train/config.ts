/**
 * The configuration of a run: data, never code. A preset, then a JSON file, then `--set a.b=c`, each over the one before; the result is
 * complete, checked, and saved with the run and inside its weights.
 */
import { z } from 'zod';
import { nearest, UsageError } from '../core/errors.js';
import { PARADIGMS, type Paradigm } from '../dsd/objective.js';
import type { SamplerOptions } from '../dsd/sampler.js';
import { checkModel, type ModelConfig, patchValues } from '../dsd/sizes.js';

const positive = z.number().positive();
const count = z.int().positive();
/** Bounded, since a mistyped or hostile size would make tables and tensors until memory runs out. */
const upTo = (most: number) => count.max(most);
/** For moments whose start is corrected for by a division that 1 would make one by zero. */
const belowOne = z.number().min(0).lt(1);
const share = z.number().min(0).max(1);
const weight = z.number().min(0);

const schema = z.strictObject({
  /** Name of the preset it began as, for the record. */
  preset: z.string(),
  data: z.strictObject({
    /** `openmoji`, `fashion-mnist`, or a folder: class folders of pictures, or IDX files. */
    source: z.string().min(1),
    /** Side in pixels to which pictures are brought. */
    image: z.int().min(8).max(1024),
    /** Mirror every second picture, at random. */
    flip: z.boolean(),
    /** Decoding processes; the pictures of a run do not depend on it. */
    workers: z.int().min(0).max(64),
    /** A picture that cannot be read: stop, or put another in its place. */
    broken: z.enum(['error', 'skip']),
  }),
  model: z.strictObject({
    width: upTo(16_384),
    depth: upTo(1_000),
    heads: upTo(1_024),
    hidden: upTo(65_536),
    patch: upTo(1_024),
    latent: upTo(4_096),
    latentNorm: z.boolean(),
    prototypes: upTo(1_000_000),
  }),
  objective: z.strictObject({
    paradigm: z.enum(Object.keys(PARADIGMS) as [Paradigm, ...Paradigm[]]),
    target: z.enum(['clean', 'velocity']),
    preconditioned: z.boolean().default(false),
    stopGradient: z.boolean(),
    targetEncoder: z.enum(['ema', 'online', 'frozen']),
    input: z.enum(['noised', 'clean']),
    /** Runs of before have true (1) or false (0). */
    gradientIntoInput: z.preprocess((given) => (typeof given === 'boolean' ? Number(given) : given), share),
    mask: share,
    passes: upTo(1_000),
    time: z.strictObject({ mean: z.number(), std: positive, shift: positive, weighting: z.number().min(0).max(4).default(0) }),
    decoderNoise: z.strictObject({ probability: share, from: share }),
    dropClass: share,
    labels: z.boolean(),
    weights: z.strictObject({
      reconstruction: weight,
      squared: weight,
      perceptual: weight,
      denoise: weight,
      align: weight,
      represent: weight,
      classify: weight,
    }),
    /** Weights file of the frozen encoder and decoder, for latent-diffusion. */
    frozen: z.string().optional(),
    /** Weights file of VGG16 and LPIPS, for the perceptual loss. */
    perceptual: z.string().optional(),
  }),
  train: z.strictObject({
    /** Pictures to train on, repeats counted. Everything that has a length is counted in pictures. */
    images: count,
    batch: upTo(1_000_000),
    /** Pictures a forward and backward pass; gradients of a batch are summed over its micro-batches. 0: the whole batch, or what memory allows. */
    microBatch: z.int().min(0),
    /** Of the trunk's matrices; all else is AdamW's. */
    optimizer: z.enum(['muon', 'adamw']),
    learningRate: positive,
    /** Linear warm-up from 0 over this many pictures. */
    warmup: z.int().min(0),
    /** The last share of the run over which the rate falls linearly to 0. */
    decay: share,
    beta1: belowOne,
    beta2: belowOne,
    epsilon: positive,
    weightDecay: weight,
    clip: positive,
    /** Decay of the target encoder's average, and of the average that is sampled from. */
    targetDecay: share,
    averageDecay: share,
    seed: z.int().min(0),
    /** `auto`: bfloat16 where the processor or GPU computes in it, else float32. */
    dtype: z.enum(['auto', 'float32', 'bfloat16']),
    /** On a GPU: only kernels that give the same bits for the same input, so that a resumed run equals one that was never stopped. */
    deterministic: z.boolean(),
    /** On a GPU: capture the step once and replay it. Without, each operator is called each time, which shows where an error is. */
    graph: z.boolean().default(true),
  }),
  checkpoint: z.strictObject({
    /** Minutes between checkpoints, from which an interrupted run goes on; one more is made at the end. 0: after every step. */
    minutes: z.number().min(0),
    /** So many of the newest stay. */
    keep: upTo(1_000),
    /** A full disk, or another error while files of the run are written: go on and try again, or stop. */
    onError: z.enum(['continue', 'stop']),
  }),
  log: z.strictObject({
    /** Pictures between lines of metrics, between held-out measurements, and between grids with saved weights. */
    every: count,
    evaluate: count,
    save: count,
  }),
  sample: z.strictObject({
    solver: z.enum(['euler', 'heun']),
    steps: count,
    guidance: z.number().min(0),
    interval: z.tuple([share, share]),
    /** Rows of a grid of samples, one class a column. */
    rows: upTo(1_000),
  }),
});

export type RunConfig = z.infer<typeof schema>;
export type DeepPartial<T> = T extends readonly unknown[] ? T : T extends object ? { [K in keyof T]?: DeepPartial<T[K]> } : T;
export type RunSettings = DeepPartial<RunConfig>;

type Tree = { [key: string]: unknown };
const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value);

/** `over` laid on `base`, key by key; lists and values are replaced. Keys are copied as own properties, so `__proto__` is refused as unknown later. */
export function merge(base: Tree, over: Tree): Tree {
  const out = new Map<string, unknown>(Object.entries(base));
  for (const [key, value] of Object.entries(over)) {
    const below = out.get(key);
    out.set(key, isTree(below) && isTree(value) ? merge(below, value) : value);
  }
  return Object.fromEntries(out);
}

/** All settings by their dotted names, with the value each has in `config`. */
export function settingNames(config: unknown, prefix = ''): string[] {
  if (!isTree(config)) return [];
  return Object.entries(config).flatMap(([key, value]) => (isTree(value) ? settingNames(value, `${prefix}${key}.`) : [`${prefix}${key}`]));
}

/**
 * Reads `a.b=c` of --set: c is JSON where it can be read as such, else a string.
 * @throws UsageError when there is no '=', or for the preset, which is no setting.
 */
export function parseSetting(text: string): Tree {
  const at = text.indexOf('=');
  if (at < 1) throw new UsageError(`--set wants name=value, found '${text}'; for example --set train.batch=64`);
  // It would change the record of where the settings came from, and no setting.
  if (text.startsWith('preset=')) throw new UsageError(`the preset is chosen by --preset ${text.slice(at + 1)}, not by --set`);
  const [path, value] = [text.slice(0, at).split('.'), text.slice(at + 1)];
  let parsed: unknown;
  try {
    parsed = JSON.parse(value);
  } catch {
    parsed = value;
  }
  return path.reduceRight<unknown>((below, key) => Object.fromEntries([[key, below]]), parsed) as Tree;
}

/**
 * The checked configuration of a preset and what is laid over it. The paradigm's switches come between the two, so that a paradigm is chosen
 * by one word and any single switch of it can still be set (the collapse study's cases). What is laid over may be a whole configuration, such
 * as another run's: where it is of another paradigm, its switches are that paradigm's and not the user's, and are left out.
 * @throws UsageError naming the unknown key and the nearest known one, or the key whose value does not fit with what was found.
 */
export function resolveConfig(preset: Tree, ...over: readonly Tree[]): RunConfig {
  const paradigm = paradigmOf([preset, ...over].reduce(merge, {}));
  checkParadigm(paradigm);
  const switches = switchesOf(paradigm);
  const laid = over.map((layer) => {
    const own = paradigmOf(layer);
    if (own === undefined || own === paradigm || !isTree(layer.objective)) return layer;
    return { ...layer, objective: without(without(layer.objective, switches), { ...switchesOf(own), frozen: '' }) };
  });
  return checkConfig([preset, { objective: switches }, ...laid].reduce(merge, {}));
}

/** First of all: without a paradigm its switches would be found missing, each by its own name. */
function checkParadigm(paradigm: unknown): void {
  const known = Object.keys(PARADIGMS);
  if (paradigm === undefined || known.some((name) => name === paradigm)) return;
  const guess = nearest(String(paradigm), known);
  throw new UsageError(
    `there is no paradigm '${paradigm}'${guess ? `; did you mean '${guess}'?` : '.'} objective.paradigm is one of ${known.join(', ')}`,
  );
}

const paradigmOf = ({ objective }: Tree): unknown => (isTree(objective) ? objective.paradigm : undefined);

const switchesOf = (paradigm: unknown): Tree => Object.entries(PARADIGMS).find(([name]) => name === paradigm)?.[1] ?? {};

/** A tree less the leaves of another. */
function without(tree: Tree, leaves: Tree): Tree {
  const left = Object.entries(tree).flatMap(([key, value]) => {
    if (!Object.hasOwn(leaves, key)) return [[key, value] as const];
    const below = leaves[key];
    return isTree(value) && isTree(below) ? [[key, without(value, below)] as const] : [];
  });
  return Object.fromEntries(left);
}

/** A complete configuration, such as one saved with weights. @throws UsageError as resolveConfig does. */
export function checkConfig(tree: unknown): RunConfig {
  const result = schema.safeParse(tree);
  if (!result.success) {
    // Of several issues of one kind at one place the last is the narrowest: a number beyond all whole numbers is also beyond its own limit.
    const lines = new Map(result.error.issues.map((issue) => [`${issue.code} ${issue.path.join('.')}`, explain(issue, tree)]));
    throw new UsageError([...lines.values()].join('\n'));
  }
  checkTogether(result.data);
  return result.data;
}

function explain(issue: z.core.$ZodIssue, merged: unknown): string {
  const path = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') {
    return issue.keys
      .map((key) => {
        const name = path ? `${path}.${key}` : key;
        const guess = nearest(name, SETTINGS) ?? SETTINGS.find((other) => other.endsWith(`.${key}`));
        return `there is no setting '${name}'${guess ? `; did you mean '${guess}'?` : ''}`;
      })
      .join('\n');
  }
  const found = issue.path.reduce<unknown>((value, key) => (value as Tree | undefined)?.[String(key)], merged);
  const wanted = describe(issue);
  if (found === undefined) return `setting '${path}' is missing: it must be ${wanted}`;
  // JSON would call an infinite number null.
  const shown = typeof found === 'number' ? String(found) : JSON.stringify(found);
  const guess = issue.code === 'invalid_value' && typeof found === 'string' ? nearest(found, issue.values.map(String)) : undefined;
  return `setting '${path}' must be ${wanted}; found ${shown}${guess ? `: did you mean '${guess}'?` : ''}`;
}

const TYPES: Readonly<Record<string, string>> = {
  boolean: 'true or false',
  int: 'a whole number',
  number: 'a number',
  string: 'text',
  object: 'an object of settings',
  tuple: 'a list',
};

/** What an issue's setting must be, in words. */
function describe(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return TYPES[issue.expected] ?? issue.expected;
    case 'invalid_value':
      return `one of ${issue.values.join(', ')}`;
    case 'too_small':
      if (issue.origin === 'string') return 'text that is not empty';
      if (issue.origin === 'array') return `a list of ${issue.minimum}`;
      return `${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}`;
    case 'too_big':
      if (issue.origin === 'array') return `a list of ${issue.maximum}`;
      return `${issue.inclusive ? 'at most' : 'less than'} ${issue.maximum}`;
    default:
      return `another value (${issue.message})`;
  }
}

/** The schema as a tree of names, to suggest from. */
const schemaShape: Tree = (function tree(type: z.ZodType): Tree {
  if (!(type instanceof z.ZodObject)) return {};
  return Object.fromEntries(
    Object.entries(type.shape as Record<string, z.ZodType>).map(([key, inner]) => [key, inner instanceof z.ZodObject ? tree(inner) : 0]),
  );
})(schema);

/** All settings there are, by their dotted names; those that need not be given too. */
export const SETTINGS: readonly string[] = settingNames(schemaShape);

/** What no single key shows. */
function checkTogether(config: RunConfig): void {
  const { objective } = config;
  const { batch, microBatch, images } = config.train;
  if (microBatch > 0 && batch % microBatch !== 0)
    throw new UsageError(`train.microBatch ${microBatch} does not divide train.batch ${batch}`);
  if (images < batch) throw new UsageError(`train.images ${images} is less than one batch of ${batch}`);
  if (config.sample.interval[0] > config.sample.interval[1])
    throw new UsageError(`sample.interval must go from low to high, found ${JSON.stringify(config.sample.interval)}`);
  if (objective.targetEncoder === 'frozen' && !objective.frozen)
    throw new UsageError(
      `paradigm '${objective.paradigm}' needs the weights of the autoencoder it builds on: --set objective.frozen=PATH (train one with --set objective.paradigm=autoencoder)`,
    );
  if (!objective.stopGradient && objective.targetEncoder !== 'online')
    throw new UsageError(
      `objective.stopGradient=false changes nothing while objective.targetEncoder is '${objective.targetEncoder}', whose weights no gradient trains: add --set objective.targetEncoder=online`,
    );
  if (objective.time.weighting > 0 && (objective.target !== 'clean' || objective.input !== 'noised'))
    throw new UsageError(
      `objective.time.weighting=${objective.time.weighting} is for a clean target and a noised input, found objective.target=${objective.target} and objective.input=${objective.input}: add --set objective.time.weighting=0`,
    );
  if (objective.preconditioned && (objective.target !== 'clean' || objective.input !== 'noised'))
    throw new UsageError(
      `objective.preconditioned is for a clean target and a noised input, found objective.target=${objective.target} and objective.input=${objective.input}: add --set objective.preconditioned=false`,
    );
  if (objective.preconditioned && !config.model.latentNorm)
    throw new UsageError('objective.preconditioned is for latents of deviation 1, which the norm sees to: add --set model.latentNorm=true');
  if (objective.weights.perceptual > 0 && !objective.perceptual)
    throw new UsageError(
      'objective.weights.perceptual is above 0 but no weights are given: --set objective.perceptual=PATH of a safetensors file with VGG16 and LPIPS weights',
    );
  const { classify, ...others } = objective.weights;
  if (Object.values(others).every((value) => value === 0) && (classify === 0 || !objective.labels))
    throw new UsageError(
      `every weight of objective.weights is 0${classify > 0 ? ' but that of classify, which wants labels' : ''}: nothing would be trained`,
    );
}

/** The network's shapes: the configuration's, with what only the data knows. @throws UsageError when they do not fit. */
export function modelConfig(config: RunConfig, data: { readonly channels: 1 | 3; readonly classes: number }): ModelConfig {
  const model: ModelConfig = { ...config.model, image: config.data.image, ...data };
  checkModel(model);
  if (model.latent > patchValues(model))
    throw new UsageError(
      `model.latent ${model.latent} is more than the ${patchValues(model)} values of a patch (${model.patch} x ${model.patch} x ${model.channels}): nothing would be compressed. Lower model.latent`,
    );
  return model;
}

/** How samples of this run are drawn. */
export function samplerOptions(config: RunConfig): SamplerOptions {
  const { solver, steps, interval } = config.sample;
  // Without labels there is nothing to guide to: both answers would be of the null class.
  const guidance = config.objective.labels ? config.sample.guidance : 1;
  const { time, target, preconditioned } = config.objective;
  return { solver, steps, guidance, interval, shift: time.shift, target: preconditioned ? 'preconditioned' : target };
}
