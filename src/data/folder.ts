/** Class folders: each sub-folder is a class, every picture below it an example. What ImageNet looks like on a disk, and most people's own pictures. */
import { createHash } from 'node:crypto';
import { basename, extname, join, resolve } from 'node:path';
import { FailureError } from '../core/errors.js';
import { DiskError, disk, type Stat } from '../io/disk.js';
import type { Decoder } from './job.js';
import { PictureError, pictureFormat } from './job.js';
import type { DataSet, ImageSource } from './source.js';
import { checkIndex, pictureBytes } from './source.js';

/** A picture that could not be used, and the one that stands in for it. */
export interface Broken {
  readonly path: string;
  readonly reason: string;
  readonly replacedBy: string;
}

export interface FolderOptions {
  /** Pixels a side. */
  readonly size: number;
  readonly channels: 1 | 3;
  /**
   * What a broken picture does: 'error' (default) stops; 'skip' puts another picture of its class in its place: the next sound one of the
   * list, a function of the files alone, so a resumed run sees what it would have seen.
   */
  readonly broken?: 'error' | 'skip';
  /**
   * The most broken pictures that 'skip' accepts in a part of the set; by default 1 % of them, and at least 10. A picture counts once, by
   * its path, however often it is loaded, and when it is first met; pictures are counted in the order in which they are asked for,
   * whatever the processes do first. A resumed run counts from 0 again and meets no picture that the whole run would not have met: a
   * run that stays below the cap does so wherever it is interrupted, and one that it stops, and that is resumed, it stops again before the
   * next epoch ends.
   */
  readonly maxBroken?: number;
  /** Called once for each broken picture that is skipped, in the same order; by a resumed run for those that it meets. */
  readonly onBroken?: (broken: Broken) => void;
  /** Keep decoded pictures in memory; by default if all of a part fit in 256 MiB. */
  readonly keep?: boolean;
}

const KEEP_BYTES = 2 ** 28;
/** Held out of a set that brings no held-out part: this share, and no more than this many. */
const HELD_OUT_SHARE = 0.05;
const HELD_OUT_MOST = 2000;
/** Endings that are taken for pictures without looking: with millions of files looking takes minutes, and decoding looks anyway. */
const PICTURE_NAMES = new Set(['.jpg', '.jpeg', '.png', '.webp', '.gif']);
const FORMATS = 'JPEG, PNG, WebP or GIF';

/** A file and its class, its path relative to the folder that was opened. */
interface Entry {
  readonly path: string;
  readonly label: number;
}

/**
 * Opens a folder of pictures. Layouts: `class/...` (5 % are held out, by a hash of each path, so that files added later change no other's
 * side); `train/class/...` beside `val/class/...` or `test/class/...`; pictures without sub-folders, which are one class.
 * Only lists files: pictures are decoded when loaded. Hidden files and folders are ignored, and so are files that are no pictures.
 * @throws FailureError for an empty folder, a class without pictures, classes that do not match
 */
export function openFolder(folder: string, options: FolderOptions): DataSet {
  const names = subfolders(folder);
  const part = (name: string, root: string, classes: readonly string[], entries: readonly Entry[]): FolderSource =>
    new FolderSource(`${folder}, ${name}`, root, classes, entries, options);

  const other = ['val', 'test'].find((name) => names.includes(name));
  const separate = names.includes('train') && other !== undefined;
  const root = names.includes('train') && (separate || names.length === 1) ? join(folder, 'train') : folder;
  const { classes, entries } = listClasses(root);
  if (separate) {
    const held = listHeldOut(join(folder, other!), classes, root);
    return { train: part('training part', root, classes, entries), heldOut: part(`${other} part`, join(folder, other!), classes, held) };
  }
  const held = chooseHeldOut(entries);
  return {
    train: part(
      'training part',
      root,
      classes,
      entries.filter((entry) => !held.has(entry)),
    ),
    heldOut: part(
      'held-out part',
      root,
      classes,
      entries.filter((entry) => held.has(entry)),
    ),
  };
}

/** Classes are the sub-folders by name (order of UTF-16 units, the same in every locale); entries are sorted by class, then path. */
function listClasses(root: string): { classes: string[]; entries: Entry[] } {
  const classes = subfolders(root);
  if (classes.length === 0) {
    const paths = picturesBelow(root, '');
    if (paths.length < 2)
      throw new FailureError(
        `${root} has ${paths.length === 0 ? 'no pictures' : 'one picture'} and no sub-folders. Put pictures (${FORMATS}) into a sub-folder for each class`,
      );
    return { classes: [basename(resolve(root))], entries: paths.map((path) => ({ path, label: 0 })) };
  }
  const entries = classes.flatMap((name, label) => picturesBelow(root, name).map((path) => ({ path, label })));
  const filled = new Set(entries.map((entry) => entry.label));
  const empty = classes.filter((_, label) => !filled.has(label));
  if (entries.length === 0)
    throw new FailureError(
      `${root} has ${count(classes.length, 'sub-folder')} and no picture (${FORMATS}) in ${classes.length === 1 ? 'it' : 'any of them'}`,
    );
  if (empty.length > 0)
    throw new FailureError(
      `${root}: no picture (${FORMATS}) in class folder${empty.length === 1 ? '' : 's'} ${some(empty)}. Every sub-folder is a class: put pictures into it, or move it away`,
    );
  if (entries.length < 2) throw new FailureError(`${root} has one picture; at least two are needed, as one is held out`);
  return { classes, entries };
}

/** The pictures of `val` or `test`, with the training part's labels. A class may be absent here, not there. */
function listHeldOut(folder: string, classes: readonly string[], trainFolder: string): Entry[] {
  const names = subfolders(folder);
  const unknown = names.filter((name) => !classes.includes(name));
  if (unknown.length > 0)
    throw new FailureError(
      `${folder} has class folder${unknown.length === 1 ? '' : 's'} ${some(unknown)}, which ${trainFolder} does not have`,
    );
  const entries = names.flatMap((name) => picturesBelow(folder, name).map((path) => ({ path, label: classes.indexOf(name) })));
  if (entries.length === 0)
    throw new FailureError(
      `${folder} has no picture (${FORMATS}) in class folders. Fill it like ${trainFolder}, or move it away to hold out a part of the training pictures`,
    );
  return entries;
}

/** Those whose path hashes low; at least one, and never a class's last picture. */
function chooseHeldOut(entries: readonly Entry[]): Set<Entry> {
  const hashed = entries.map((entry) => ({ entry, hash: createHash('sha256').update(entry.path).digest().readUInt32BE() / 2 ** 32 }));
  hashed.sort((a, b) => a.hash - b.hash || (a.entry.path < b.entry.path ? -1 : 1));
  const left = new Map<number, number>();
  for (const { label } of entries) left.set(label, (left.get(label) ?? 0) + 1);
  const held = new Set<Entry>();
  for (const { entry, hash } of hashed) {
    if (held.size >= HELD_OUT_MOST || (hash >= HELD_OUT_SHARE && held.size > 0)) break;
    const rest = left.get(entry.label)! - 1;
    if (rest === 0) continue;
    left.set(entry.label, rest);
    held.add(entry);
  }
  // Every class has one picture: the training part must do without one of them.
  if (held.size === 0) held.add(hashed[0]!.entry);
  return held;
}

function subfolders(folder: string): string[] {
  return disk.list(folder).filter((name) => !name.startsWith('.') && isPlain(name) && kindOf(join(folder, name)) === 'folder');
}

/** False for names that say "picture": a thousand of them need no thousand looks. */
function isPlain(name: string): boolean {
  return !PICTURE_NAMES.has(extname(name).toLowerCase());
}

/** Paths, relative to the root and in order, of the pictures in a folder and below it. A circle of links is the system's error. */
function picturesBelow(root: string, folder: string): string[] {
  return disk.list(join(root, folder)).flatMap((name) => {
    if (name.startsWith('.')) return [];
    const path = folder === '' ? name : `${folder}/${name}`;
    if (!isPlain(name)) return [path];
    if (kindOf(join(root, path)) === 'folder') return picturesBelow(root, path);
    return looksLikePicture(join(root, path)) ? [path] : [];
  });
}

/** A link that leads nowhere is no picture and no class; it is not worth stopping for. */
function kindOf(path: string): Stat['kind'] {
  try {
    return disk.stat(path).kind;
  } catch (error) {
    if (error instanceof DiskError && error.code === 'ENOENT') return 'other';
    throw error;
  }
}

/** Whether a file is a picture that we read, by its name or its first bytes; decoding then says what is wrong with one that only claims to be. */
export function looksLikePicture(path: string): boolean {
  if (!isPlain(path)) return true;
  if (kindOf(path) !== 'file') return false;
  const file = disk.open(path);
  try {
    return pictureFormat(file.read(0, Math.min(12, file.size))) !== undefined;
  } finally {
    file.close();
  }
}

class FolderSource implements ImageSource {
  readonly size: number;
  readonly channels: 1 | 3;
  readonly length: number;
  readonly #kept: (Uint8Array | undefined)[] | undefined;
  readonly #skip: boolean;
  readonly #maxBroken: number;
  readonly #onBroken: ((broken: Broken) => void) | undefined;
  /** Pictures found broken and skipped; each counts once. */
  readonly #broken = new Set<number>();
  /** Settles when all that was asked for so far has been counted. */
  #counted: Promise<void> = Promise.resolve();

  constructor(
    readonly name: string,
    readonly root: string,
    readonly classes: readonly string[],
    readonly entries: readonly Entry[],
    options: FolderOptions,
  ) {
    this.size = options.size;
    this.channels = options.channels;
    this.length = entries.length;
    this.#skip = options.broken === 'skip';
    this.#maxBroken = options.maxBroken ?? mostSkipped(entries.length);
    this.#onBroken = options.onBroken;
    const keep = options.keep ?? entries.length * pictureBytes(options) < KEEP_BYTES;
    this.#kept = keep ? new Array<undefined>(entries.length) : undefined;
  }

  label(i: number): number {
    return this.entries[checkIndex(this, i)]!.label;
  }

  path(i: number): string {
    return join(this.root, this.entries[checkIndex(this, i)]!.path);
  }

  peek(i: number): Uint8Array | undefined {
    return this.#kept?.[checkIndex(this, i)];
  }

  async load(i: number, decode: Decoder = decodeHere): Promise<Uint8Array> {
    const ready = this.peek(i);
    if (ready !== undefined) return ready;
    const pixels = this.#skip ? await this.#loadOrReplace(i, decode) : await this.#decode(i, decode);
    if (this.#kept !== undefined) this.#kept[i] = pixels;
    return pixels;
  }

  #decode(i: number, decode: Decoder): Promise<Uint8Array> {
    return decode({ kind: 'photo', path: this.path(i), size: this.size, channels: this.channels }, this.#kept !== undefined);
  }

  /** Decodes at once, but counts in turn: else the processes would choose which picture goes over the cap, and in which batch. */
  #loadOrReplace(i: number, decode: Decoder): Promise<Uint8Array> {
    const search = this.#firstSound(i, decode);
    const earlier = this.#counted;
    const inTurn = (async () => {
      const [found] = await Promise.allSettled([search, earlier]);
      if (found.status === 'rejected') throw found.reason;
      const { pixels, index, broken } = found.value;
      for (const one of broken) this.#count(one.index, one.error, this.path(index));
      return pixels;
    })();
    this.#counted = inTurn.then(nothing, nothing);
    return inTurn;
  }

  /** Picture i or, in place of a broken one, the next of its class that is sound: the label stays true and picture i is always the same. */
  async #firstSound(i: number, decode: Decoder): Promise<{ pixels: Uint8Array; index: number; broken: BrokenAt[] }> {
    const label = this.label(i);
    const broken: BrokenAt[] = [];
    for (let step = 0; step < this.length && broken.length <= this.#maxBroken; step++) {
      const index = (i + step) % this.length;
      if (this.label(index) !== label) continue;
      try {
        return { pixels: await this.#decode(index, decode), index, broken };
      } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        broken.push({ index, error });
      }
    }
    const { error } = broken[0]!;
    throw new FailureError(
      `cannot use picture ${error.path}: ${error.reason}. No other of class ${this.classes[label]} could take its place: ${count(broken.length, 'picture')} tried, all broken, and at most ${this.#maxBroken} are skipped`,
      { cause: error },
    );
  }

  #count(index: number, error: PictureError, replacedBy: string): void {
    if (this.#broken.has(index)) return;
    if (this.#broken.size >= this.#maxBroken)
      throw new FailureError(
        `${this.name}: ${this.#broken.size + 1} of ${this.length} pictures are broken, and at most ${this.#maxBroken} are skipped. The last one, ${error.path}: ${error.reason}`,
        { cause: error },
      );
    this.#broken.add(index);
    this.#onBroken?.({ path: error.path, reason: error.reason, replacedBy });
  }
}

/** The most broken pictures that 'skip' accepts in a part of a set of this length, if nothing else is said. */
export const mostSkipped = (length: number): number => Math.max(10, Math.floor(length / 100));

interface BrokenAt {
  readonly index: number;
  readonly error: PictureError;
}

function nothing(): void {}

async function decodeHere(...[job]: Parameters<Decoder>): ReturnType<Decoder> {
  return (await import('./decode.js')).decode(job);
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}

/** The first few names, quoted. */
function some(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => `"${name}"`);
  return names.length > shown.length ? `${shown.join(', ')} and ${names.length - shown.length} more` : shown.join(', ');
}
