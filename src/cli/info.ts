/** `dsd info`: what a weights file, a run or a preset is. Reads files only: no engine is loaded. */
import { join } from 'node:path';
import { UsageError } from '../core/errors.js';
import { IMAGENET, shapeOf } from '../data/open.js';
import { compression, countParameters, forwardFlops, type ModelConfig, mostRank, patchValues, tokens } from '../dsd/sizes.js';
import { disk } from '../io/disk.js';
import { modelConfig, type RunConfig, resolveConfig, settingNames } from '../train/config.js';
import { findPreset, PRESETS } from '../train/presets.js';
import { passes } from '../train/schedule.js';
import { readWeights, type WeightsInfo } from '../train/weights.js';
import { defineCommand } from './command.js';
import { print, printJson } from './output.js';
import { count, counted, decibels, figure, short, table, wrap } from './text.js';

export const info = defineCommand({
  name: 'info',
  about:
    'Says what a model is: its size, parameters, latent, and every setting it was trained with. Or what a preset would train. Needs no engine.',
  operands: { names: '[RUN|WEIGHTS]', min: 0, max: 1 },
  flags: {
    preset: { kind: 'text', value: 'NAME', about: 'a preset instead of a model' },
    json: { kind: 'switch', about: 'print it as JSON' },
  },
  examples: [
    ['dsd info runs/demo', 'a trained model'],
    ['dsd info --preset imagenet-256-B', 'a preset: what it costs, and all its settings by the names that --set takes'],
  ],
  run: async (flags, [path]) => {
    if ((path === undefined) === (flags.preset === undefined))
      throw new UsageError('dsd info wants a model or a preset: dsd info RUN, or dsd info --preset NAME');
    if (flags.preset !== undefined) showPreset(flags.preset, flags.json);
    else showModel(path as string, flags.json);
  },
});

function showPreset(name: string, json: boolean): void {
  const preset = findPreset(name);
  const config = resolveConfig(preset.settings);
  const model = modelConfig(config, shapeOf(config.data.source, IMAGENET));
  const sizes = sizesOf(model, config);
  if (json) {
    printJson({ preset: name, about: preset.about, cost: preset.cost, expect: preset.expect, ...sizes, config });
    return;
  }
  const columns = Math.min(process.stdout.columns ?? 80, 110);
  for (const text of [preset.about, `cost: ${preset.cost}`, `expect: ${preset.expect}`]) print(...wrap(text, columns));
  print('', ...table(describe(sizes)), '', ...settings(config));
}

function showModel(path: string, json: boolean): void {
  if (!disk.exists(path) && Object.hasOwn(PRESETS, path))
    throw new UsageError(`there is no file or run folder '${path}'; a preset is shown by --preset ${path}`);
  const { info: about, tensors, path: file } = readWeights(path);
  const sizes = sizesOf(about.model, about.config);
  const bytes = disk.stat(file).size;
  const stored = [...tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const evaluation = lastEvaluation(path);
  if (json) {
    printJson({
      file,
      bytes,
      ...sizes,
      stored,
      images: about.images,
      weights: about.kind,
      classes: about.classes,
      evaluation,
      config: about.config,
    });
    return;
  }
  print(
    ...table([
      ['file', `${file}, ${short(bytes, ' ')}B, ${counted(tensors.size, 'tensor')}`],
      [
        'trained',
        `${counted(about.images, 'picture')} of ${about.config.data.source}, preset ${about.config.preset}, paradigm ${about.config.objective.paradigm}; ${about.kind === 'average' ? 'averaged' : 'raw'} weights`,
      ],
      ...(evaluation
        ? [
            [
              'measured',
              `${evaluation.psnr === null ? '' : `PSNR ${decibels(evaluation.psnr)}, `}effective rank ${evaluation.effectiveRank.toFixed(1)} of ${sizes.mostRank} on held-out pictures, when trained on ${count(evaluation.images)}`,
            ],
          ]
        : []),
      ['classes', classList(about)],
      ...describe(sizes),
    ]),
    '',
    ...settings(about.config),
  );
}

interface Sizes {
  readonly parameters: { readonly model: number; readonly heads: number };
  /** Those that the parameters are counted for. */
  readonly classCount: number;
  readonly tokens: number;
  readonly latentShape: readonly [number, number];
  readonly compression: number;
  readonly mostRank: number;
  readonly picture: readonly [number, number, number];
  readonly patchValues: number;
  readonly forwardFlops: number;
  readonly trainFlops: number;
}

function sizesOf(model: ModelConfig, config: RunConfig): Sizes {
  return {
    parameters: countParameters(model),
    classCount: model.classes,
    tokens: tokens(model),
    latentShape: [tokens(model), model.latent],
    compression: compression(model),
    mostRank: mostRank(model),
    picture: [model.image, model.image, model.channels],
    patchValues: patchValues(model),
    forwardFlops: forwardFlops(model),
    trainFlops: forwardFlops(model) * passes(config.objective),
  };
}

function describe(sizes: Sizes): string[][] {
  const { parameters, picture, latentShape } = sizes;
  return [
    [
      'parameters',
      `${short(parameters.model)} (${count(parameters.model)}) for ${counted(sizes.classCount, 'class', 'classes')}, and ${short(parameters.heads)} in heads that only training uses`,
    ],
    ['picture', `${picture.join(' x ')} in ${counted(sizes.tokens, 'patch', 'patches')} of ${sizes.patchValues} values`],
    ['latent', `${latentShape.join(' x ')}: ${figure(sizes.compression)} pixel values to one`],
    ['work', `${short(sizes.forwardFlops, ' ')}FLOP a picture and pass, ${short(sizes.trainFlops, ' ')}FLOP to train on one`],
  ];
}

/** Every setting by the name that --set takes. */
function settings(config: RunConfig): string[] {
  const rows = settingNames(config).map((name) => {
    const value = name.split('.').reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], config);
    return [`  ${name}`, typeof value === 'string' ? value : JSON.stringify(value)];
  });
  return ['settings', ...table(rows)];
}

function classList({ classes }: WeightsInfo): string {
  const names = classes.slice(0, 20).join(', ');
  return `${count(classes.length)}: ${names}${classes.length > 20 ? ', ...' : ''}`;
}

/** The last held-out measurement of a run folder; undefined for a lone file, or lines that this program did not write. */
function lastEvaluation(path: string): { images: number; psnr: number | null; effectiveRank: number } | undefined {
  const file = join(path, 'metrics.jsonl');
  if (disk.stat(path).kind !== 'folder' || !disk.exists(file)) return undefined;
  const lines = new TextDecoder().decode(disk.readFile(file)).split('\n');
  for (const line of lines.reverse()) {
    try {
      const { kind, images, psnr, effectiveRank } = JSON.parse(line) as Record<string, unknown>;
      if (kind === 'evaluate' && typeof images === 'number' && typeof effectiveRank === 'number')
        return { images, psnr: typeof psnr === 'number' ? psnr : null, effectiveRank };
    } catch {
      // the last line may be half written: the trainer appends while we read
    }
  }
  return undefined;
}
