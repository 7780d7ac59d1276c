/** What a data set holds, as data: the command line prints it, or gives it away as JSON. */
import type { DataSet, ImageSource } from './source.js';
import { pictureBytes } from './source.js';

export interface Summary {
  /** Pixels a side. */
  readonly size: number;
  readonly channels: 1 | 3;
  readonly train: number;
  readonly heldOut: number;
  /** Bytes of all decoded pictures. */
  readonly bytes: number;
  /** In the order of the labels. */
  readonly classes: readonly { readonly name: string; readonly train: number; readonly heldOut: number }[];
  readonly credit?: string;
}

/** Counts pictures by class; decodes none. */
export function summarize({ train, heldOut, credit }: DataSet): Summary {
  const trainCounts = countByClass(train);
  const heldOutCounts = countByClass(heldOut);
  return {
    size: train.size,
    channels: train.channels,
    train: train.length,
    heldOut: heldOut.length,
    bytes: (train.length + heldOut.length) * pictureBytes(train),
    classes: train.classes.map((name, label) => ({ name, train: trainCounts[label]!, heldOut: heldOutCounts[label]! })),
    ...(credit === undefined ? {} : { credit }),
  };
}

function countByClass(source: ImageSource): number[] {
  const counts = new Array<number>(source.classes.length).fill(0);
  for (let i = 0; i < source.length; i++) counts[source.label(i)]!++;
  return counts;
}
