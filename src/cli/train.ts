/** `dsd train`: settings from preset, file and flags; the trainer's events as lines; signals. */
import { join, resolve } from 'node:path';
import { InterruptedError, UsageError } from '../core/errors.js';
import { DATA_NAMES } from '../data/open.js';
import { compression, mostRank, tokens } from '../dsd/sizes.js';
import { disk } from '../io/disk.js';
import { modelConfig, parseSetting, type RunConfig, type RunSettings, resolveConfig, SETTINGS } from '../train/config.js';
import type { Checkpointed } from '../train/loop.js';
import type { Evaluation, LogLine } from '../train/metrics.js';
import { findPreset, PRESETS } from '../train/presets.js';
import { findResume, lastSettings, type Resume, resumedConfig } from '../train/resume.js';
import { RunFolder } from '../train/run.js';
import { train as runTraining, type Start, type TrainEvent } from '../train/train.js';
import { advised } from './broken.js';
import { defineCommand, type Section } from './command.js';
import { ENGINE, type Engine, openEngine } from './engine.js';
import { hanging } from './help.js';
import { print, printJson, RESULT } from './output.js';
import { openProgress, type Progress } from './progress.js';
import { invocation, quoted } from './self.js';
import { stopOnSignals } from './signals.js';
import { count, counted, decibels, duration, figure, short, skipped, table } from './text.js';

export const train = defineCommand({
  name: 'train',
  about:
    'Trains one network that encodes, decodes and generates, from a folder of pictures or a data set with a name, and writes a run folder: settings, metrics, grids of samples and reconstructions, weights.',
  operands: { names: '', min: 0, max: 0 },
  flags: {
    preset: { kind: 'text', value: 'NAME', about: 'settings to begin from: see Presets' },
    data: { kind: 'text', value: 'SPEC', about: 'openmoji, fashion-mnist, or a folder: one sub-folder a class, or IDX files' },
    out: { kind: 'text', value: 'FOLDER', about: 'the run folder to make; by default runs/PRESET, or -2, -3 ... behind it' },
    ...ENGINE,
    resume: {
      kind: 'text',
      value: 'latest|PATH',
      about: 'go on with an interrupted run: the newest checkpoint of --out FOLDER, or of the run PATH, or the checkpoint PATH',
    },
    deterministic: { kind: 'switch', about: 'on a GPU: the same bits every time, at some cost; a CPU gives them anyway' },
    seed: { kind: 'whole', value: 'N', about: 'all randomness of the run is a function of it' },
    set: {
      kind: 'text',
      value: 'NAME=VALUE',
      repeat: true,
      about: 'one setting, such as train.batch=128; `dsd info --preset NAME` lists them',
    },
    config: {
      kind: 'text',
      value: 'FILE',
      about: "settings as JSON, such as another run's config.json; laid over the preset, under the other flags",
    },
    ...RESULT,
  },
  examples: [
    ['dsd train --preset demo', 'a few minutes on a CPU'],
    ['dsd train --preset fashion-mnist --device cuda --out runs/fashion', 'on a GPU'],
    [
      'dsd train --preset demo --data ~/pictures --set data.image=64 --set model.patch=8 --set train.images=200000',
      'your own pictures, one sub-folder a class',
    ],
    ['dsd train --config runs/fashion/config.json --seed 1', 'a run again, with another seed'],
    ['dsd train --resume runs/fashion', 'an interrupted run goes on, to the same end'],
  ],
  sections: async () => [presetSection()],
  settings: () => SETTINGS,
  run: async (flags) => {
    const began = performance.now();
    const progress = openProgress(flags);
    const resume = flags.resume === undefined ? undefined : readResume(flags.resume, flags, progress);
    const config = resume ? resumedSettings(resume, flags) : readConfig(flags);
    const out = resume?.run ?? flags.out ?? RunFolder.free(config.preset);
    if (!resume) checkBefore(config, out, flags.data);
    const engine = openEngine({ ...flags, dtype: config.train.dtype });
    const view = new TrainView(config, engine, progress);
    const stop = stopOnSignals((line) => progress.note(line), 'finishing the step and saving. Once more ends at once, without saving');
    progress.update(`opening ${config.data.source}`);
    try {
      const last = await runTraining(config, {
        out,
        ...(resume ? { resume } : {}),
        ...{ device: engine.device, compute: engine.compute, signal: stop.signal },
        report: (event) => view.show(event),
        onSetUp: (what, done, of) =>
          progress.update(`${what === 'pictures' ? 'reading pictures' : 'measuring the floor'}: ${count(done)} of ${count(of)}`),
        onBroken: (broken) => progress.note(skipped(broken)),
      });
      progress.clear();
      const seconds = (performance.now() - began) / 1000;
      if (flags.json) printJson({ ...view.result(last), seconds });
      else print(...view.summary(last, seconds));
    } catch (error) {
      throw advised(withNext(error, view.folder), config.data.source, 'have broken ones skipped: --set data.broken=skip');
    } finally {
      progress.clear();
      stop.release();
    }
  },
});

interface ConfigFlags {
  readonly preset: string | undefined;
  readonly config: string | undefined;
  readonly data: string | undefined;
  readonly seed: number | undefined;
  readonly dtype: 'auto' | 'float32' | 'bfloat16' | undefined;
  readonly deterministic: boolean;
  readonly set: readonly string[];
}

interface ResumeFlags extends ConfigFlags {
  readonly out: string | undefined;
}

/** The checkpoint meant by --resume. @throws UsageError, FailureError */
function readResume(what: string, flags: ResumeFlags, progress: Progress): Resume {
  const run = flags.out ?? (flags.preset === undefined ? undefined : RunFolder.last(flags.preset));
  const found = findResume(what, {
    ...(run === undefined ? {} : { run }),
    onDamaged: ({ path, problem }) => progress.note(`checkpoint ${path} is damaged and is put aside: ${problem}`),
    onProgress: (bytes, of) => progress.update(`checking the checkpoint: ${Math.floor((100 * bytes) / of)} %`),
  });
  if (flags.out !== undefined && what !== 'latest' && resolve(flags.out) !== resolve(found.run))
    throw new UsageError(`--resume ${what} is of the run '${found.run}', and --out is '${flags.out}': a run goes on where it is`);
  return found;
}

/** The run's own settings, with what may change. @throws UsageError */
function resumedSettings(resume: Resume, flags: ResumeFlags): RunConfig {
  const { state, run } = resume;
  if (flags.config !== undefined)
    throw new UsageError('--config is for a new run: one that goes on has its settings; change some by --set');
  if (flags.preset !== undefined && flags.preset !== state.config.preset)
    throw new UsageError(`'${run}' was begun with --preset ${state.config.preset}, not ${flags.preset}`);
  return resumedConfig(lastSettings(resume), givenSettings(flags), ...flags.set.map((text) => parseSetting(text) as RunSettings));
}

/** What flags of their own say. */
function givenSettings({ data, seed, dtype, deterministic }: ConfigFlags): RunSettings {
  const train = {
    ...(seed === undefined ? {} : { seed }),
    ...(dtype === undefined ? {} : { dtype }),
    ...(deterministic ? { deterministic } : {}),
  };
  return { ...(data === undefined ? {} : { data: { source: data } }), ...(Object.keys(train).length > 0 ? { train } : {}) };
}

/** Preset, then file, then flags, then --set, each over the one before. @throws UsageError */
export function readConfig(flags: ConfigFlags): RunConfig {
  const file = flags.config === undefined ? {} : readConfigFile(flags.config);
  const name = flags.preset ?? file.preset;
  if (typeof name !== 'string') throw new UsageError(`dsd train wants settings to begin from: --preset ${Object.keys(PRESETS).join('|')}`);
  return resolveConfig(findPreset(name).settings, { ...file, preset: name }, givenSettings(flags), ...flags.set.map(parseSetting));
}

/** The most bytes of a file of settings: a hundred times what one has. */
const CONFIG_LIMIT = 2 ** 20;

function readConfigFile(path: string): Record<string, unknown> {
  if (!disk.exists(path)) throw new UsageError(`--config ${path}: there is no such file`);
  const text = new TextDecoder().decode(disk.readFile(path, CONFIG_LIMIT));
  let tree: unknown;
  try {
    tree = JSON.parse(text);
  } catch (cause) {
    throw new UsageError(`--config ${path} is not JSON: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
  if (typeof tree !== 'object' || tree === null || Array.isArray(tree))
    throw new UsageError(`--config ${path} holds no settings: an object such as {"train": {"batch": 128}} is wanted`);
  // A run's config.json names its classes beside the settings; they are the data's to say.
  const { classes: _, ...settings } = tree as Record<string, unknown>;
  return settings;
}

/** What can be refused before pictures are read, which may take long. @throws UsageError, and as RunFolder.check */
function checkBefore(config: RunConfig, out: string, data: string | undefined): void {
  modelConfig(config, { channels: 3, classes: 1 });
  const { source } = config.data;
  if (data === undefined && !DATA_NAMES.some((name) => name === source) && !disk.exists(source))
    throw new UsageError(
      source === findPreset(config.preset).settings.data?.source
        ? `preset '${config.preset}' comes without pictures: name a folder of yours, with a sub-folder for each class: --data FOLDER`
        : `there is no folder '${source}', where these settings have their pictures: say where they are now: --data FOLDER`,
    );
  RunFolder.check(out);
}

function presetSection(): Section {
  const rows = Object.entries(PRESETS).map(([name, { about, cost }]) => [`  ${name}`, `${about}; ${cost}`] as const);
  return { heading: 'Presets', lines: hanging(rows, Math.min(process.stdout.columns ?? 80, 110)) };
}

/** An interrupted run, once begun, can be gone on with: how, only the command line knows. @param folder of a run that was begun */
const withNext = (error: unknown, folder: string | undefined): unknown =>
  error instanceof InterruptedError && folder !== undefined
    ? new InterruptedError(`${error.message}. To go on: ${invocation()} train --resume ${quoted(folder)}`, { cause: error })
    : error;

/** Turns the trainer's events into lines, and keeps what the summary tells. */
class TrainView {
  private start: Start | undefined;
  private weights = '';
  private grids: readonly string[] = [];
  private logged: LogLine | undefined;
  private checkpoints = 0;
  private held = 0;
  private checkpoint: Checkpointed | undefined;
  /** Pictures that the run had been trained on when this process began. */
  private from = 0;
  /** Seconds spent in training steps, without evaluation and grids. */
  private stepping = 0;

  constructor(
    private readonly config: RunConfig,
    private readonly engine: Engine,
    private readonly progress: Progress,
  ) {}

  /** Of the run; undefined before it begins. */
  get folder(): string | undefined {
    return this.start?.folder;
  }

  show(event: TrainEvent): void {
    switch (event.kind) {
      case 'start':
        this.start = event;
        this.progress.clear();
        this.progress.note(...this.opening(event), '');
        this.from = event.resumed?.images ?? 0;
        this.progress.update(`${count(this.from)}/${count(this.config.train.images)}`, 'first steps');
        break;
      case 'train':
        this.stepping += (event.images - (this.logged?.images ?? this.from)) / event.imagesPerSecond;
        this.logged = event;
        this.progress.update(...this.live(event));
        break;
      case 'evaluate':
        this.progress.note(`at ${count(event.images)}: ${this.health(event)}`);
        break;
      case 'saved':
        [this.weights, this.grids] = [event.weights, event.grids];
        break;
      case 'checkpoint':
        this.checkpoint = event;
        this.checkpoints++;
        this.held += event.held;
        break;
      case 'skipped':
        this.progress.note(
          `not applied, its gradient was not finite: the step of pictures ${count(event.firstImage)} to ${count(event.firstImage + event.pictures.length - 1)} (${event.paths.join(', ')}${event.paths.length < event.pictures.length ? ', ...' : ''})`,
        );
        break;
      case 'problem':
        this.progress.note(`warning: ${event.message}`);
        break;
    }
  }

  /** What will be trained, on what, where. */
  private opening({ model, parameters, classes, pictures, pcaPsnr, folder, resumed }: Start): string[] {
    const { data, train: plan, preset, objective } = this.config;
    const heads = parameters.heads > 0 ? ` (+ ${short(parameters.heads)} in heads that only training uses)` : '';
    const rows = [
      ['preset', `${preset}${objective.paradigm === 'dsd' ? '' : `, paradigm ${objective.paradigm}`}`],
      [
        'data',
        `${data.source}: ${count(pictures.train)} training + ${count(pictures.heldOut)} held-out pictures of ${model.image} px in ${counted(classes.length, 'class', 'classes')}`,
      ],
      ['network', `${short(parameters.model)} parameters${heads}`],
      ['latent', `${tokens(model)} tokens x ${model.latent} channels: ${figure(compression(model))} pixel values to one`],
      ['floor', `${decibels(pcaPsnr)} by per-patch PCA of equal width`],
      ['compute', this.engine.about],
      ['length', `${count(plan.images)} pictures in batches of ${count(plan.batch)}`],
      ['run', folder],
      ...(resumed ? [['resumed', `after ${count(resumed.images)} pictures${exactness(resumed.differences)}`]] : []),
    ];
    return table(rows);
  }

  private live(line: LogLine): string[] {
    const { images } = this.config.train;
    const { total, ...terms } = line.losses;
    return [
      `${count(line.images)}/${count(images)}`,
      `${Math.min(100, Math.floor((100 * line.images) / images))} %`, // the last batch may reach beyond the end
      `${figure(line.imagesPerSecond)} img/s`,
      `ETA ${duration(line.secondsLeft)}`,
      `loss ${figure(total ?? Number.NaN)}`,
      `rank ${line.effectiveRank.toFixed(1)}`,
      ...(line.skipped > 0 ? [`${counted(line.skipped, 'step')} skipped`] : []),
      ...Object.entries(terms).map(([name, value]) => `${name} ${figure(value)}`),
      ...(line.dataWait > 0.1 ? [`waits for data ${Math.round(100 * line.dataWait)} %`] : []),
    ];
  }

  private health({ psnr, effectiveRank }: Evaluation): string {
    const pca = this.start ? ` (PCA ${decibels(this.start.pcaPsnr)})` : '';
    const quality = Number.isNaN(psnr) ? '' : `PSNR ${decibels(psnr)}${pca}, `;
    return `${quality}effective rank ${effectiveRank.toFixed(1)} of ${mostRank(this.config.model)}`;
  }

  summary(last: Evaluation, seconds: number): string[] {
    const { start, logged, grids } = this;
    if (!start) return [];
    const rows = [
      ...(Number.isNaN(last.psnr)
        ? []
        : [
            [
              'PSNR',
              `${decibels(last.psnr)} on ${counted(start.pictures.heldOut, 'held-out picture')}; per-patch PCA of equal width ${decibels(start.pcaPsnr)}`,
            ],
          ]),
      ['effective rank', `${last.effectiveRank.toFixed(1)} of ${mostRank(this.config.model)}`],
      [
        'trained',
        this.stepping > 0
          ? `${counted(last.images, 'picture')}${this.from > 0 ? `, ${count(last.images - this.from)} of them now,` : ''} in ${duration(seconds)}, ${figure((last.images - this.from) / this.stepping)} images/s in training steps`
          : `${counted(last.images, 'picture')}: the run is complete`,
      ],
      ...(logged && logged.skipped > 0 ? [['skipped', `${counted(logged.skipped, 'step')} whose gradient was not finite`]] : []),
      ...(this.weights === '' ? [] : [['weights', this.weights]]),
      ...grids.map((path, i) => [i === 0 ? 'pictures' : '', path]),
      ['metrics', join(start.folder, 'metrics.jsonl')],
      ['next', `${invocation()} ${grids.some((path) => path.includes('samples')) ? 'sample' : 'info'} ${quoted(start.folder)}`],
    ];
    return table(rows);
  }

  result(last: Evaluation): object {
    const { start, logged, weights, grids } = this;
    return {
      run: start?.folder,
      preset: this.config.preset,
      images: last.images,
      imagesPerSecond: (last.images - this.from) / this.stepping,
      ...(this.from > 0 ? { resumedAt: this.from } : {}),
      checkpoints: {
        written: this.checkpoints,
        secondsHeld: this.held / 1000,
        ...(this.checkpoint
          ? { last: { path: this.checkpoint.path, bytes: this.checkpoint.bytes, secondsToWrite: this.checkpoint.milliseconds / 1000 } }
          : {}),
      },
      psnr: last.psnr,
      pcaPsnr: start?.pcaPsnr,
      effectiveRank: last.effectiveRank,
      mostRank: mostRank(this.config.model),
      losses: logged?.losses,
      skipped: logged?.skipped,
      parameters: start?.parameters,
      pictures: start?.pictures,
      device: this.engine.device,
      compute: this.engine.compute,
      weights,
      grids,
    };
  }
}

/** Whether a resumed run will be what it would have been. */
const exactness = (differences: readonly string[]): string =>
  differences.length === 0 ? '' : `; not to the bit what it would have been: ${differences.join(', ')}`;
