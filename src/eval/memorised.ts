/** Whether samples are training pictures learnt by heart: their nearest ones, shown and measured, beside those of pictures never trained on. */
import { UsageError } from '../core/errors.js';
import type { Picture } from '../data/picture.js';
import type { DataSet } from '../data/source.js';
import type { Tensor } from '../torch/index.js';
import type { Description } from './describe.js';
import type { Jury } from './jury.js';
import { drawNeighbours, medianNearest, nearestRows, SHOWN } from './neighbours.js';

export interface NeighbourOptions {
  /** The first samples of a set, so many, are shown. */
  readonly shown: number;
  /** The most training pictures searched, evenly spread over them. */
  readonly searched: number;
  /** Takes the picture. */
  readonly write: (picture: Picture) => Promise<void>;
}

/** The nearest training pictures of the samples shown, and how near the others are. */
export interface NeighbourReport {
  /** The network. */
  readonly extractor: string;
  /** Training pictures searched, and of how many. */
  readonly searched: { readonly source: string; readonly count: number; readonly of: number };
  /** Of each sample shown: where its neighbours came from, and their distances. */
  readonly samples: readonly { readonly paths: readonly string[]; readonly distances: readonly number[] }[];
  /** Median distance to the nearest training picture: of all samples, and of held-out pictures. A model that copies is nearer than these. */
  readonly median: { readonly samples: number; readonly heldOut: number };
}

/** Networks in the order in which they are trusted with likeness. */
const TRUSTED = ['inception-2015', 'nsfwjs-mixed7', 'classifier'];

/** Gathers the first samples while a set is described, then finds their neighbours. */
export class Memorised {
  private readonly seen: Uint8Array[] = [];
  private count = 0;
  private readonly judge: number;

  /** @param jury one that has described training pictures @throws UsageError without them */
  constructor(
    private readonly jury: Jury,
    private readonly data: Pick<DataSet, 'train'>,
    private readonly options: NeighbourOptions,
  ) {
    if (!jury.training) throw new UsageError('nearest training pictures are searched for in data: name it with --data');
    const rank = jury.networks.map(({ name }) => TRUSTED.indexOf(name));
    this.judge = rank.indexOf(Math.min(...rank));
  }

  /** Takes samples first, first + 1, ..., (B, H, W, ch) uint8, in order. */
  see(_first: number, pixels: Tensor): void {
    const take = Math.min(pixels.shape[0] ?? 0, this.options.shown - this.count);
    if (take <= 0) return;
    const all = pixels.toArray() as Uint8Array;
    this.seen.push(all.slice(0, (all.length / (pixels.shape[0] ?? 1)) * take));
    this.count += take;
  }

  /** @param descriptions of the whole set, by network @throws FailureError for features that are not finite; PictureError, and what `write` throws */
  async find(descriptions: readonly Description[]): Promise<NeighbourReport> {
    const { jury, judge } = this;
    const { train } = this.data;
    const training = jury.training as NonNullable<Jury['training']>;
    const known = (training.descriptions[judge] as Description).pooled;
    const of = (pooled: Tensor | undefined) => (pooled ? nearestRows(known, pooled, SHOWN) : { places: [], distances: [] });
    const [samples, real] = [of(descriptions[judge]?.pooled), of(jury.heldOut?.descriptions[judge]?.pooled)];
    const indices = samples.places.slice(0, this.count).map((places) => places.map((place) => training.indices[place] as number));
    await this.options.write(await drawNeighbours(Buffer.concat(this.seen), train, indices));
    return {
      extractor: jury.networks[judge]?.name ?? '',
      searched: { source: train.name, count: training.indices.length, of: train.length },
      samples: indices.map((row, i) => ({ paths: row.map((index) => train.path(index)), distances: samples.distances[i] ?? [] })),
      median: { samples: medianNearest(samples), heldOut: medianNearest(real) },
    };
  }
}
