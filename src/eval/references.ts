/**
 * Statistics of a reference set in an `.npz`, as evaluators exchange them: `mu` and `sigma` of the pooled features (pytorch-fid,
 * torch-fidelity), beside them `mu_s` and `sigma_s` of the spatial ones and in `arr_0` pictures (ADM's evaluator). Theirs do not say what
 * network the features are of; ours have three more arrays, which those programs do not look at:
 *
 *     extractor   uint8: the network's name in UTF-8
 *     count       int64: number of pictures
 *     features    float32 (M, D): pooled features, without which a file gives no KID, precision and recall
 */
import { FailureError, UsageError } from '../core/errors.js';
import { type Disk, disk as realDisk } from '../io/disk.js';
import { type NpzArray, type NpzRows, npzNames, openNpzRows, readNpz, writeNpz } from '../io/npz.js';
import type { Statistics } from './moments.js';

/** What a file of reference statistics holds. */
export interface ReferenceStatistics {
  /** The network; undefined where the file does not say. Then it is the 2015 Inception by custom, and only the width can be checked. */
  readonly extractor: string | undefined;
  /** `mu` and `sigma`, D features. The count is Infinity where the file does not say. */
  readonly pooled: Statistics;
  /** `mu_s` and `sigma_s`. */
  readonly spatial: Statistics | undefined;
  /** Pooled features of pictures of the set, row by row. */
  readonly features: { readonly shape: readonly [M: number, D: number]; readonly data: Float32Array } | undefined;
  /** Whether there are pictures too (`arr_0`), from which any features can be taken: `openSamples`. */
  readonly samples: boolean;
  /** What a reader of distances from this reference must know. */
  readonly warnings: readonly string[];
}

/** What the reader will compare the reference with. */
export interface Expected {
  /** Name of the network, as `Extractor.name`. */
  readonly extractor: string;
  /** Number of its pooled features. */
  readonly dimension: number;
  /** Number of its spatial features, if it has them. */
  readonly spatialDimension?: number;
}

/** Files that do not say what network they are of are of this one. */
const CUSTOMARY = 'inception-2015';
/** Entries of a covariance may be off its symmetry, or the bound that its diagonal sets, by this share of that bound: float32 was enough for many. */
const OFF = 1e-5;

/**
 * Reads statistics and sees to it that they are some, and of the right network.
 * @throws UsageError for a file without `mu` and `sigma`, or of another network; FailureError for arrays of wrong shape or type, values that are
 *   not finite, or a `sigma` that is no covariance; NpzError for a damaged file; DiskError
 */
export function readReference(path: string, expected: Expected, disk: Disk = realDisk): ReferenceStatistics {
  const names = new Set(npzNames(path, disk));
  const missing = ['mu', 'sigma'].filter((name) => !names.has(name));
  if (missing.length > 0) {
    const pictures = names.has('arr_0') ? " It holds pictures ('arr_0'): give it as a set of pictures, or take its statistics first." : '';
    throw new UsageError(
      `${path} has no reference statistics: it lacks ${missing.map(quoted).join(' and ')}, and has ${[...names].map(quoted).join(', ') || 'nothing'}.${pictures}`,
    );
  }
  const halves = ['mu_s', 'sigma_s'].filter((name) => names.has(name));
  const wanted = ['mu', 'sigma', ...halves, ...['extractor', 'count', 'features'].filter((name) => names.has(name))];
  const arrays = readNpz(path, wanted, disk);
  const file = new ArraysOf(path, arrays);
  const extractor = file.text('extractor');
  const found = extractor ?? CUSTOMARY;
  if (found !== expected.extractor)
    throw new UsageError(
      `${path} holds statistics of ${quoted(found)}${extractor === undefined ? ' (it names no network; such files are of that one)' : ''}, and the ` +
        `pictures are described by ${quoted(expected.extractor)}: distances are between features of one network`,
    );
  const count = file.count();
  const pooled = file.statistics('mu', 'sigma', count);
  file.expectWidth('mu', pooled, expected.dimension, expected.extractor);
  if (halves.length === 1) throw file.wrong(`it has ${quoted(halves[0] as string)} without the other of 'mu_s' and 'sigma_s'`);
  const spatial = halves.length === 2 ? file.statistics('mu_s', 'sigma_s', count) : undefined;
  if (spatial && expected.spatialDimension !== undefined) file.expectWidth('mu_s', spatial, expected.spatialDimension, expected.extractor);
  const warnings: string[] = [];
  if (arrays.get('sigma')?.dtype === 'float32')
    warnings.push(`${path} stores its covariance in float32: Frechet distances from it are good to about 3 digits`);
  return { extractor, pooled, spatial, features: file.features(pooled.mean.length), samples: names.has('arr_0'), warnings };
}

/** What `writeReference` stores. */
export interface ReferenceContent {
  readonly extractor: string;
  readonly pooled: Statistics;
  readonly spatial?: Statistics | undefined;
  readonly features?: ReferenceStatistics['features'];
  /** Pictures (M, H, W, ch) of the set, for evaluators that look for them. */
  readonly samples?: { readonly shape: readonly [number, number, number, number]; readonly data: Uint8Array } | undefined;
}

/**
 * Writes statistics, atomically; equal content gives equal bytes. pytorch-fid reads them where the network is the 2015 Inception, and ADM's evaluator
 * where the pictures are there too.
 * @throws DiskError if it cannot be written, and then an old file stands
 */
export function writeReference(path: string, content: ReferenceContent, disk: Disk = realDisk): void {
  const { extractor, pooled, spatial, features, samples } = content;
  const arrays = new Map<string, NpzArray>();
  const add = (suffix: string, { mean, covariance }: Statistics) => {
    arrays.set(`mu${suffix}`, { dtype: 'float64', shape: [mean.length], data: mean });
    arrays.set(`sigma${suffix}`, { dtype: 'float64', shape: [mean.length, mean.length], data: covariance });
  };
  if (samples) arrays.set('arr_0', { dtype: 'uint8', ...samples });
  add('', pooled);
  if (spatial) add('_s', spatial);
  const name = new TextEncoder().encode(extractor);
  arrays.set('extractor', { dtype: 'uint8', shape: [name.length], data: name });
  if (Number.isFinite(pooled.count)) arrays.set('count', { dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(pooled.count)) });
  if (features) arrays.set('features', { dtype: 'float32', ...features });
  writeNpz(path, arrays, disk);
}

/** Pictures of a file of samples: uint8, 1 or 3 channels. The caller's to close. */
export interface Samples extends NpzRows {
  readonly shape: readonly [count: number, height: number, width: number, channels: number];
}

/**
 * Opens the pictures in `arr_0`, where ADM's sampling programs and `dsd sample` put them. Read in order, some at a time, they may take more than
 * memory has.
 * @throws UsageError for a file without them; FailureError where they are no pictures; NpzError, DiskError
 */
export function openSamples(path: string, disk: Disk = realDisk): Samples {
  const names = npzNames(path, disk);
  if (!names.includes('arr_0'))
    throw new UsageError(`${path} has no pictures: it lacks 'arr_0', and has ${names.map(quoted).join(', ') || 'nothing'}`);
  const rows = openNpzRows(path, 'arr_0', disk);
  const { shape } = rows;
  const [, , , channels] = shape;
  if (shape.length === 4 && (channels === 1 || channels === 3) && !shape.includes(0)) return rows as Samples;
  rows.close();
  throw new FailureError(
    `${path}: 'arr_0' has the shape (${shape.join(', ')}), and pictures have (number, height, width, 1 or 3 channels), none of them 0`,
  );
}

/** The arrays of one file, taken out as what they must be. */
class ArraysOf {
  constructor(
    private readonly path: string,
    private readonly arrays: ReadonlyMap<string, NpzArray>,
  ) {}

  wrong(problem: string): FailureError {
    return new FailureError(`${this.path} holds no usable reference statistics: ${problem}`);
  }

  text(name: string): string | undefined {
    const array = this.arrays.get(name);
    if (!array) return undefined;
    if (array.dtype !== 'uint8' || array.shape.length !== 1) throw this.wrong(`${quoted(name)} is not UTF-8 in a row of uint8`);
    return new TextDecoder().decode(array.data);
  }

  count(): number {
    const array = this.arrays.get('count');
    if (!array) return Number.POSITIVE_INFINITY;
    const count = array.data.length === 1 ? Number(array.data[0]) : Number.NaN;
    if (!Number.isSafeInteger(count) || count < 2) throw this.wrong("'count' is not one whole number of pictures, at least 2");
    return count;
  }

  statistics(mu: string, sigma: string, count: number): Statistics {
    const mean = this.floats(mu);
    const covariance = this.floats(sigma);
    const D = mean.data.length;
    if (mean.shape.length !== 1 || D === 0 || covariance.shape.length !== 2 || covariance.shape.some((side) => side !== D))
      throw this.wrong(
        `${quoted(mu)} has the shape (${mean.shape.join(', ')}) and ${quoted(sigma)} (${covariance.shape.join(', ')}), not (D) and (D, D)`,
      );
    if (!mean.data.every(Number.isFinite)) throw this.wrong(`${quoted(mu)} has values that are not finite`);
    this.checkCovariance(sigma, covariance.data, D);
    return { count, mean: mean.data, covariance: covariance.data };
  }

  /** What can be said of a covariance without its eigenvalues. */
  private checkCovariance(name: string, values: Float64Array, D: number): void {
    if (!values.every(Number.isFinite)) throw this.wrong(`${quoted(name)} has values that are not finite`);
    const deviations = Float64Array.from({ length: D }, (_, i) => Math.sqrt(values[i * D + i] as number)); // NaN of a negative variance
    for (let i = 0; i < D; i++) {
      if (!((deviations[i] as number) >= 0)) throw this.wrong(`${quoted(name)} has a negative variance, at ${i}`);
      for (let j = 0; j < i; j++) {
        const most = (deviations[i] as number) * (deviations[j] as number);
        const [one, other] = [values[i * D + j] as number, values[j * D + i] as number];
        if (Math.abs(one - other) > OFF * most)
          throw this.wrong(`${quoted(name)} is not symmetric: ${one} at (${i}, ${j}), ${other} across`);
        if (Math.abs(one) > (1 + OFF) * most)
          throw this.wrong(`${quoted(name)} is no covariance: ${one} at (${i}, ${j}), where its variances allow ${most} at most`);
      }
    }
  }

  expectWidth(name: string, { mean }: Statistics, expected: number, extractor: string): void {
    if (mean.length !== expected)
      throw new UsageError(
        `${this.path} holds statistics of ${mean.length} features (${quoted(name)}), and ${quoted(extractor)} has ${expected}: they are of another network`,
      );
  }

  features(D: number): ReferenceStatistics['features'] {
    const array = this.arrays.get('features');
    if (!array) return undefined;
    const { dtype, shape, data } = array;
    if (dtype !== 'float32' || shape.length !== 2 || shape[1] !== D)
      throw this.wrong(`'features' is ${dtype} of the shape (${shape.join(', ')}), not float32 (number, ${D})`);
    if (!data.every(Number.isFinite)) throw this.wrong("'features' has values that are not finite");
    return { shape: shape as unknown as readonly [number, number], data };
  }

  private floats(name: string): { readonly shape: readonly number[]; readonly data: Float64Array } {
    const { dtype, shape, data } = this.arrays.get(name) as NpzArray;
    if (dtype === 'float64') return { shape, data };
    if (dtype === 'float32') return { shape, data: Float64Array.from(data) };
    throw this.wrong(`${quoted(name)} is ${dtype}, not float64`);
  }
}

const quoted = (name: string): string => `'${name}'`;
