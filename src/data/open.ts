/** Finds a data set by what the user calls it. */
import { FailureError, nearest, UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import type { FolderOptions } from './folder.js';
import { openFolder } from './folder.js';
import { hasIdxFiles, openFashionMnist, openIdx } from './idx.js';
import { openOpenmoji } from './openmoji.js';
import type { DataSet } from './source.js';

/** Data sets with a name; anything else is the path of a folder. A folder of such a name is meant by `./name`. */
export const DATA_NAMES = ['openmoji', 'fashion-mnist'] as const;

/** What a network has to know of its data: a picture's channels, and the number of classes. */
export interface DataShape {
  readonly channels: 1 | 3;
  readonly classes: number;
}

const SHAPES: Readonly<Record<string, DataShape>> = {
  openmoji: { channels: 3, classes: 9 },
  'fashion-mnist': { channels: 1, classes: 10 },
} satisfies Record<(typeof DATA_NAMES)[number], DataShape>;

/** Of ImageNet, which has no name here: it is a folder, and what it has inside is well known. */
export const IMAGENET: DataShape = { channels: 3, classes: 1000 };

/** The shape of a set, without reading a picture: of a folder what is `usual`, but for IDX files, which are grey. */
export function shapeOf(source: string, usual: DataShape): DataShape {
  if (Object.hasOwn(SHAPES, source)) return SHAPES[source] as DataShape;
  return hasIdxFiles(source) ? { ...usual, channels: 1 } : usual;
}

export interface DataOptions extends Omit<FolderOptions, 'channels'> {
  /** Pixels a side, 8 to 1024. */
  readonly size: number;
  /** By default what the pictures have: 1 for IDX files, else 3. */
  readonly channels?: 1 | 3;
  /** Processes, where opening decodes. */
  readonly workers?: number;
  /** Where opening takes seconds: pictures done, and of how many. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Opens a data set. Options for class folders (`broken`, `keep` ...) do nothing for others.
 * @param spec 'openmoji', 'fashion-mnist', the path of a folder with IDX files, or that of a folder of class folders
 * @throws UsageError for an unknown name, a size or number of channels that does not suit; FailureError for data that is absent or damaged
 */
export async function openData(spec: string, options: DataOptions): Promise<DataSet> {
  const { size } = options;
  if (!Number.isInteger(size) || size < 8 || size > 1024)
    throw new UsageError(`picture size ${size} does not work: give a whole number of pixels from 8 to 1024`);
  if (spec === 'openmoji') return openOpenmoji({ ...options, channels: options.channels ?? 3 });
  if (spec === 'fashion-mnist') return openFashionMnist({ size, channels: options.channels ?? 1 });
  if (!disk.exists(spec)) {
    const meant = nearest(spec, DATA_NAMES);
    throw new UsageError(
      `unknown data set "${spec}": there is no folder of this path, and the known names are ${DATA_NAMES.join(', ')}${meant === undefined ? '' : `. Did you mean ${meant}?`}`,
    );
  }
  if (disk.stat(spec).kind !== 'folder')
    throw new FailureError(`data set ${spec} is a file, and a folder is needed: one with a sub-folder for each class, or with IDX files`);
  if (hasIdxFiles(spec)) return openIdx(spec, { size, channels: options.channels ?? 1 });
  return openFolder(spec, { ...options, channels: options.channels ?? 3 });
}
