/** A folder of pictures as a set to judge: at the size that they have, which must be one. */
import { join } from 'node:path';
import { FailureError, UsageError } from '../core/errors.js';
import { looksLikePicture } from '../data/folder.js';
import { PictureError } from '../data/job.js';
import { disk } from '../io/disk.js';
import { batches } from './pictures.js';
import { choose, type PictureSet } from './sets.js';

/** As `dsd sample` names them: number, class, name of the class. */
const SAMPLE_NAME = /^\d{6,}-(\d+|none)\b.*\.png$/;
/** Headers looked at side by side. */
const TOGETHER = 64;
/** Levels below a folder that are looked at for what was meant; links may lead in a circle, so there is an end. */
const DEEPEST = 4;

interface Entry {
  readonly path: string;
  /** Its sub-folder's name. */
  readonly group: string | undefined;
}

export interface SampleFolderOptions {
  /** So many pictures, evenly spread; all if not given. */
  readonly count?: number | undefined;
  /** Names of classes, by which sub-folders are told. */
  readonly classes?: readonly string[] | undefined;
  /** Called while headers are looked at. */
  readonly progress?: (done: number, total: number) => void;
}

/**
 * Opens the pictures of a folder, or of its sub-folders, in the order of their names. They have classes where their names are those that `dsd
 * sample` gives, or where every sub-folder has the name of a class.
 * @throws UsageError for a folder without pictures, fewer than `count`, pictures of several sizes (naming two), or that are not square;
 *   PictureError for a file that is no picture
 */
export async function openSampleFolder(folder: string, { count, classes, progress }: SampleFolderOptions = {}): Promise<PictureSet> {
  const all = list(folder);
  const entries = choose(folder, all.length, count).map((i) => all[i] as Entry);
  const { side, channels } = await commonShape(entries, progress);
  const labels = labelsOf(entries, classes);
  return {
    ...{ name: folder, count: entries.length, height: side, width: side, channels, labels },
    read: async (first, some) => {
      const { decode } = await import('../data/decode.js');
      const jobs = entries.slice(first, first + some).map(({ path }) => decode({ kind: 'photo', path, size: side, channels }));
      const results = await Promise.allSettled(jobs); // all, so that of several broken ones the first is named
      return Buffer.concat(
        results.map((result) => {
          if (result.status === 'rejected') throw result.reason;
          return result.value;
        }),
      );
    },
    close: () => {},
  };
}

function list(folder: string): Entry[] {
  const names = disk.list(folder).filter((name) => !name.startsWith('.'));
  const isFolder = (name: string): boolean => disk.stat(join(folder, name)).kind === 'folder';
  const groups = names.filter(isFolder).sort();
  const pictures = (within: string): string[] =>
    disk
      .list(within)
      .filter((name) => !name.startsWith('.') && looksLikePicture(join(within, name)))
      .sort()
      .map((name) => join(within, name));
  const own = pictures(folder).filter((path) => disk.stat(path).kind === 'file');
  const below = groups.flatMap((group) => pictures(join(folder, group)).map((path) => ({ path, group })));
  if (own.length > 0 && below.length > 0)
    throw new UsageError(`${folder} has pictures of its own and in sub-folders: which are the samples? Name one folder, or move some away`);
  if (own.length + below.length === 0) {
    const deep = firstBelow(folder, DEEPEST);
    throw new UsageError(
      deep === undefined
        ? `${folder} is no run (it has no model.safetensors) and has no pictures (JPEG, PNG, WebP or GIF)`
        : `${folder} has its pictures deeper: samples lie in one folder, or in its sub-folders, one a class. Name such a folder, as ${join(deep, '..', '..')}`,
    );
  }
  return own.length > 0 ? own.map((path) => ({ path, group: undefined })) : below;
}

/** The first picture that is found in a folder and so many levels below it. */
function firstBelow(folder: string, levels: number): string | undefined {
  const paths = disk
    .list(folder)
    .filter((name) => !name.startsWith('.'))
    .sort()
    .map((name) => join(folder, name));
  const own = paths.find(looksLikePicture);
  if (own !== undefined || levels === 0) return own;
  const folders = paths.filter((path) => disk.exists(path) && disk.stat(path).kind === 'folder');
  for (const path of folders) {
    const found = firstBelow(path, levels - 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The side and channels of all pictures, by their headers: three channels unless all are grey. */
async function commonShape(entries: readonly Entry[], progress?: (done: number, total: number) => void) {
  const { default: sharp } = await import('sharp');
  const header = async (path: string) => {
    try {
      const { width, height, space } = await sharp(path, { limitInputPixels: false }).metadata();
      return { path, width, height, grey: space === 'b-w' || space === 'grey16' };
    } catch (cause) {
      throw new PictureError(path, `it cannot be decoded (${cause instanceof Error ? cause.message : cause})`, cause);
    }
  };
  let [first, grey, done]: [Awaited<ReturnType<typeof header>> | undefined, boolean, number] = [undefined, true, 0];
  for (const part of batches(entries, TOGETHER)) {
    for (const found of await Promise.all(part.map(({ path }) => header(path)))) {
      first ??= found;
      if (found.width !== first.width || found.height !== first.height)
        throw new UsageError(
          `the pictures have several sizes: ${first.path} has ${first.width} x ${first.height} px, ${found.path} ${found.width} x ${found.height}. ` +
            'Samples are judged as they are: bring them to one size first',
        );
      grey &&= found.grey;
    }
    done += part.length;
    progress?.(done, entries.length);
  }
  if (!first) throw new FailureError('no pictures');
  if (first.width !== first.height)
    throw new UsageError(
      `${first.path} has ${first.width} x ${first.height} px: samples must be square to be compared with pictures of a data set`,
    );
  return { side: first.width, channels: grey ? (1 as const) : (3 as const) };
}

function labelsOf(entries: readonly Entry[], classes: readonly string[] | undefined): number[] | undefined {
  if (entries[0]?.group !== undefined) {
    const labels = entries.map(({ group }) => classes?.indexOf(group ?? '') ?? -1);
    return labels.every((label) => label >= 0) ? labels : undefined;
  }
  const labels = entries.map(({ path }) => {
    const word = SAMPLE_NAME.exec(path.split('/').at(-1) ?? '')?.[1];
    return word === undefined || word === 'none' ? Number.NaN : Number(word);
  });
  return labels.every(Number.isFinite) ? labels : undefined;
}
