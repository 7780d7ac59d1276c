/** Features of sets of pictures, by several networks at once: each picture is read, or drawn, once. */
import { cat, type Device, keep, noGrad, scope, type Tensor, tensor, zeros } from '../torch/index.js';
import type { Extractor, Features } from './features.js';
import { type PictureSet, readTensor } from './sets.js';

/** Features of a set by one network, row by row, as `Features` has them for a batch. The owner's to dispose. */
export type Description = Features;

/** Pictures that networks look at together. */
export const LOOKED_AT = 64;

/** Gathers features of `count` pictures that come in batches. */
export class Describer {
  private readonly rows: { [K in keyof Features]?: Tensor }[];
  private filled = 0;

  constructor(
    private readonly extractors: readonly Extractor[],
    private readonly count: number,
    private readonly device: Device,
  ) {
    this.rows = extractors.map(() => ({}));
  }

  /** Adds pictures (B, H, W, ch) uint8. Does not wait for the device. @throws UsageError for pictures that a network does not take */
  add(pixels: Tensor): void {
    const take = pixels.shape[0] ?? 0;
    noGrad(() =>
      scope(() => {
        for (const [i, extractor] of this.extractors.entries()) {
          const rows = this.rows[i] as Record<string, Tensor>;
          for (const [name, value] of Object.entries(extractor.features(pixels)) as [string, Tensor | undefined][]) {
            if (value === undefined) continue;
            rows[name] ??= keep(zeros([this.count, value.shape[1] ?? 0], { device: this.device }));
            rows[name].narrow(0, this.filled, take).copy_(value);
          }
        }
      }),
    );
    this.filled += take;
  }

  /** What was gathered, one description for each network; they are the caller's then. */
  read(): Description[] {
    return this.rows.splice(0) as Description[];
  }

  /** Frees what was not read. */
  dispose(): void {
    for (const rows of this.rows.splice(0)) for (const tensor of Object.values(rows)) tensor.dispose();
  }
}

export interface DescribeOptions {
  readonly device: Device;
  /** Pictures at a time; 64 if not given. */
  readonly batch?: number;
  /** Called between batches; what it throws stops it. */
  readonly progress?: (done: number, total: number) => void;
  /** Sees pictures first, first + 1, ... as they are judged. */
  readonly onPictures?: (first: number, pixels: Tensor) => void;
}

/** Describes a whole set by each network, in their order. @throws PictureError, UsageError, FailureError as reading the set */
export async function describe(set: PictureSet, extractors: readonly Extractor[], options: DescribeOptions): Promise<Description[]> {
  const { device, batch = LOOKED_AT, progress, onPictures } = options;
  const describer = new Describer(extractors, set.count, device);
  try {
    for (let first = 0; first < set.count; first += batch) {
      const pixels = await readTensor(set, first, Math.min(batch, set.count - first), device);
      try {
        describer.add(pixels);
        onPictures?.(first, pixels);
      } finally {
        pixels.dispose();
      }
      progress?.(Math.min(set.count, first + batch), set.count);
    }
    return describer.read();
  } finally {
    describer.dispose();
  }
}

/** The rows with these numbers, as a description of their own. */
export function rowsOf(description: Description, indices: readonly number[]): Description {
  const { device } = description.pooled;
  return scope(() => {
    const at = tensor(BigInt64Array.from(indices, BigInt), [indices.length], { dtype: 'int64', device });
    const of = (rows: Tensor | undefined) => rows?.indexSelect(0, at);
    return present({ pooled: description.pooled.indexSelect(0, at), spatial: of(description.spatial), logits: of(description.logits) });
  });
}

/** One description below another. */
export function stacked(one: Description, other: Description): Description {
  const both = (a: Tensor | undefined, b: Tensor | undefined) => (a && b ? cat([a, b]) : undefined);
  return scope(() =>
    present({ pooled: cat([one.pooled, other.pooled]), spatial: both(one.spatial, other.spatial), logits: both(one.logits, other.logits) }),
  );
}

function present({ pooled, spatial, logits }: { pooled: Tensor; spatial: Tensor | undefined; logits: Tensor | undefined }): Description {
  return { pooled, ...(spatial ? { spatial } : {}), ...(logits ? { logits } : {}) };
}

export function disposeAll(descriptions: readonly Description[]): void {
  for (const { pooled, spatial, logits } of descriptions) for (const tensor of [pooled, spatial, logits]) tensor?.dispose();
}
