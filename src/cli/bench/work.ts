/** What the parts of `dsd bench` that are measured on any device have in common: the network and the batch, the clock, the peak that MFU is a share of. */
import { UsageError } from '../../core/errors.js';
import { type DataShape, IMAGENET, shapeOf } from '../../data/open.js';
import { countParameters, forwardFlops, type ModelConfig, SIZES, type Size, size, tokens } from '../../dsd/sizes.js';
import { median } from '../../eval/median.js';
import { type DType, emptyCache, engineInfo, memory, profile, setDeterministic, synchronize } from '../../torch/index.js';
import { merge, modelConfig, parseSetting, type RunConfig, type RunSettings, resolveConfig } from '../../train/config.js';
import { findPreset } from '../../train/presets.js';
import { type Engine, type EngineFlags, openEngine } from '../engine.js';
import { type Range, range } from '../measure.js';
import { figure, short } from '../text.js';

export interface WorkFlags extends EngineFlags {
  readonly preset: string | undefined;
  readonly network: keyof typeof SIZES | undefined;
  readonly set: readonly string[];
  readonly batch: number | undefined;
  readonly peak: number | undefined;
  readonly deterministic: boolean;
  readonly json: boolean;
  readonly quiet: boolean;
}

/** A network, and how it is trained. */
export interface Work {
  readonly preset: string;
  /** What the network is called: as the preset, or by its size where that is another. */
  readonly network: string;
  readonly config: RunConfig;
  readonly model: ModelConfig;
}

export const DEFAULT_PRESET = 'imagenet-256-B';

/**
 * The work that flags ask for: the preset, `recipe` over it, the network's size, then --set.
 * @param data what only the data knows; by default that of the preset's set, and ImageNet's where it has no shape of its own
 */
export function findWork(flags: Pick<WorkFlags, 'preset' | 'network' | 'set'>, recipe: RunSettings = {}, data?: DataShape): Work {
  const preset = flags.preset ?? DEFAULT_PRESET;
  const { settings } = findPreset(preset);
  // No schedule matters here, and what a preset's run is long in need not fit the batch.
  const free: RunSettings = { train: { images: 1_000_000_000 } };
  const network: RunSettings = flags.network ? { model: { ...size(flags.network) } } : {};
  const config = resolveConfig(settings, free, recipe, network, flags.set.map(parseSetting).reduce(merge, {}));
  const model = modelConfig(config, data ?? shapeOf(config.data.source, IMAGENET));
  return { preset, network: alike(model, resolveConfig(settings, free).model) ? preset : sizeName(model), config, model };
}

const alike = (a: Size, b: Size): boolean => a.width === b.width && a.depth === b.depth && a.heads === b.heads && a.hidden === b.hidden;

const sizeName = (model: Size): string =>
  Object.entries(SIZES).find(([, known]) => alike(model, known))?.[0] ?? `width ${model.width}, depth ${model.depth}`;

/** As openEngine. @throws UsageError also for another GPU than the first, whose end nobody here waits for, and for a profile of a CPU */
export function openBench(flags: WorkFlags & { readonly profile?: boolean }): Engine {
  if (/^cuda:0*[1-9]/.test(flags.device ?? ''))
    throw new UsageError(`dsd bench measures the first GPU: CUDA_VISIBLE_DEVICES=${flags.device?.slice(5)} makes another one the first`);
  const engine = openEngine(flags);
  if (flags.profile && engine.device === 'cpu') throw new UsageError('--profile is of what a GPU does, and this runs on a CPU');
  // Before anything is computed, since cuBLAS takes its settings from its first use.
  if (flags.deterministic) setDeterministic(true);
  // Before any CUDA graph is captured: the profiler may see inside of a graph only if it was there first.
  if (flags.profile) profile(() => {});
  return engine;
}

/** Dense peaks without sparsity in bfloat16, FLOP/s, from the makers' data sheets. */
const PEAKS: readonly (readonly [name: RegExp, peak: number])[] = [
  [/H100 PCIe/, 756e12],
  [/H100 NVL/, 835e12],
  [/H100|H200|GH200/, 989e12],
  [/A100/, 312e12],
  [/RTX 4090/, 165e12],
];

/** What MFU is a share of, FLOP/s: --peak, else the device's own; undefined where that is not known. */
export function peakOf({ device, compute }: Engine, teraflops: number | undefined): number | undefined {
  if (teraflops !== undefined) return teraflops * 1e12;
  if (device === 'cpu' || compute !== 'bfloat16') return undefined;
  const name = engineInfo().cuda[0] ?? '';
  return PEAKS.find(([pattern]) => pattern.test(name))?.[1];
}

/** A model's FLOPs over the peak; null without one. */
export const mfuOf = (imagesPerSecond: number, passes: number, forward: number, peak: number | undefined): number | null =>
  peak === undefined ? null : (imagesPerSecond * passes * forward) / peak;

export const waitFor = (device: string): void => (device === 'cpu' ? undefined : synchronize());

/** Whether what was timed were replays of captured work, or why not; null on a CPU. */
export type Captured = true | string | null;

/** @param asked of training: train.graph */
export const capturedOf = (device: string, { uncaptured }: { readonly uncaptured: string | undefined }, asked = true): Captured =>
  device === 'cpu' ? null : (uncaptured ?? (asked || 'train.graph is false'));

/** So that what a row of a table holds of the GPU does not contain what those before it held. */
export function resetMemory(): void {
  emptyCache();
  memory({ resetPeak: true });
}

/** Milliseconds. */
export interface Times {
  readonly median: number;
  readonly range: Range;
}

export const timesOf = (milliseconds: readonly number[]): Times => ({ median: median(milliseconds), range: range(milliseconds) });

/** Milliseconds of a piece of work, with nothing of the device's left over before it and after. */
export function clock(device: string, work: () => void): number {
  waitFor(device);
  const began = performance.now();
  work();
  waitFor(device);
  return performance.now() - began;
}

/** The network in a line, with what its FLOPs are counted from. */
export function describeModel(model: ModelConfig): string {
  const { width, depth, heads, image, patch } = model;
  const shape = `width ${width}, depth ${depth}, ${heads} heads, ${tokens(model)} tokens of ${image} px in patches of ${patch}`;
  return `${short(countParameters(model).model)} parameters (${shape}); ${figure(forwardFlops(model) / 1e9)} GFLOP a picture and forward pass`;
}

export const describePeak = (peak: number | undefined, compute: DType): string =>
  peak === undefined ? 'no MFU: the peak of this device is not known here (--peak)' : `peak ${figure(peak / 1e12)} TFLOP/s in ${compute}`;
