/**
 * The disk, seen by everything else: few operations, each all or nothing where it can be, each failing with a message for the user. It is
 * the seam for fault tests: `openDisk` takes the system calls, so a test can fail the Nth one or cut a write short.
 *
 * All operations are synchronous: a training step or a checkpoint has nothing to do meanwhile, and nothing can come between two of them.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { attempt, codeOf, fault } from './disk-error.js';

export { DiskError } from './disk-error.js';

export interface Stat {
  readonly size: number;
  readonly kind: 'file' | 'folder' | 'other';
  /** Milliseconds since 1970. */
  readonly modified: number;
}

/** A file open for reading by position. */
export interface OpenFile {
  readonly size: number;
  /**
   * Exactly `length` bytes from `position` in a buffer of their own (aligned for any typed array).
   * @throws DiskError if the file ends before, or memory does
   */
  read(position: number, length: number): Uint8Array<ArrayBuffer>;
  close(): void;
}

/** The first `size` bytes of a file, 16 MiB at a time: for files larger than memory should hold. */
export function* piecesOf(file: Pick<OpenFile, 'read'>, size: number): Generator<Uint8Array<ArrayBuffer>> {
  const piece = 2 ** 24;
  for (let at = 0; at < size; at += piece) yield file.read(at, Math.min(piece, size - at));
}

/** What a file is written from: text is UTF-8; of several chunks, each is asked for when the one before is written. */
export type Content = string | Uint8Array | Iterable<Uint8Array>;

/** Every method throws DiskError. */
export interface Disk {
  /** Makes a folder and those above it, and syncs the folders that they are entered in; no error if it exists. */
  mkdir(path: string): void;
  /** A whole regular file. @param limit the most bytes to accept: a file that should be small may be hostile */
  readFile(path: string, limit?: number): Uint8Array<ArrayBuffer>;
  open(path: string): OpenFile;
  /**
   * Writes a file so that a reader, or this machine after a power cut, sees the old content or the new and nothing between: a temporary
   * file in the same folder, synced, renamed over the path, the folder synced. After an error before the rename the old file stands and
   * the temporary one is gone. A symbolic link at the path is replaced, not followed.
   */
  writeFileAtomic(path: string, content: Content): void;
  /** Creates a file with its content, synced, its folder too, only if nothing is there; false if something is. After an error it is gone. For locks. */
  createNew(path: string, content: string): boolean;
  /** Creates a file with its content, synced; code EEXIST if something is there. After an error it is gone. Its folder is not synced: for files of a folder that is synced once, when whole. */
  writeNew(path: string, content: Content): void;
  /** Adds to the end of a file, made if absent. What was written of a failed append is taken back. Not synced. */
  append(path: string, content: string | Uint8Array): void;
  /** Has the content of a file reach the device. A new file needs `syncFolder` of its folder as well. */
  sync(path: string): void;
  /** Has the names in a folder reach the device: what was made, renamed and removed there. */
  syncFolder(path: string): void;
  /** Renames a file or a folder, then syncs the folder it is in. An existing file, or empty folder, at `to` is replaced. */
  rename(from: string, to: string): void;
  exists(path: string): boolean;
  /** Throws unless something could be made at the path now, as far as rights go: of it, or of the nearest folder above it that exists. To ask before long work. */
  checkWritable(path: string): void;
  /** Names in a folder, in order of their UTF-16 units. */
  list(path: string): string[];
  stat(path: string): Stat;
  /** Removes a file, or a folder with all in it; no error if absent. */
  remove(path: string): void;
}

/** The system calls below, as Node names them. */
export type Calls = Pick<
  typeof fs,
  | 'accessSync'
  | 'closeSync'
  | 'fstatSync'
  | 'fsyncSync'
  | 'ftruncateSync'
  | 'mkdirSync'
  | 'openSync'
  | 'readSync'
  | 'readdirSync'
  | 'renameSync'
  | 'rmSync'
  | 'statSync'
  | 'unlinkSync'
  | 'writeSync'
>;

/** The most bytes of one read or write: Linux stops a little below 2 GiB, Node refuses more. */
const PIECE = 2 ** 28;

/** A disk over the given system calls. */
export function openDisk(calls: Calls): Disk {
  const writeAll = (fd: number, content: Content): void => {
    for (const chunk of chunksOf(content)) {
      // One call may write less than asked: at a quota's edge, or when a signal comes.
      for (let at = 0; at < chunk.byteLength; ) at += calls.writeSync(fd, chunk, at, Math.min(PIECE, chunk.byteLength - at));
    }
  };

  /** Runs `use` with an open file and closes it. An error of closing counts (network disks report a full disk there), unless one came before. */
  const withFile = <T>(path: string, flags: string | number, use: (fd: number) => T): T => {
    const fd = calls.openSync(path, flags, 0o666);
    let result: T;
    try {
      result = use(fd);
    } catch (error) {
      quietly(() => calls.closeSync(fd));
      throw error;
    }
    calls.closeSync(fd);
    return result;
  };

  const syncFolder = (path: string): void => {
    try {
      withFile(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY, (fd) => calls.fsyncSync(fd));
    } catch (error) {
      // Some network file systems cannot sync a folder and need no syncing of it.
      if (!['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'].includes(codeOf(error) ?? '')) throw error;
    }
  };

  /** With parents. Node's own way never returns where the parent exists and the system says ENOENT nevertheless, as in /proc. */
  const makeFolder = (path: string): void => {
    try {
      calls.mkdirSync(path);
    } catch (error) {
      const code = codeOf(error);
      if (code === 'EEXIST' && calls.statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
      const parent = dirname(path);
      if (code !== 'ENOENT' || parent === path || calls.statSync(parent, { throwIfNoEntry: false })) throw error;
      makeFolder(parent);
      makeFolder(path);
      return;
    }
    syncFolder(dirname(resolve(path)));
  };

  /** A new file, synced; gone again after an error. */
  const makeFile = (path: string, content: Content): void => {
    let made = false;
    try {
      withFile(path, 'wx', (fd) => {
        made = true;
        writeAll(fd, content);
        calls.fsyncSync(fd);
      });
    } catch (error) {
      if (made) quietly(() => calls.unlinkSync(path));
      throw error;
    }
  };

  const readAt = (fd: number, position: number, length: number): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const got = calls.readSync(fd, bytes, at, Math.min(PIECE, length - at), position + at);
      if (got === 0) throw fault('DSD_SHORT', `it ends at byte ${position + at} where ${length - at} more were expected`);
      at += got;
    }
    return bytes;
  };

  const openFile = (path: string): { fd: number; size: number } => {
    // Without O_NONBLOCK the opening of a named pipe would wait for a writer for ever.
    const fd = calls.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    try {
      const info = calls.fstatSync(fd);
      if (info.isDirectory()) throw fault('EISDIR', 'is a directory');
      if (!info.isFile()) throw fault('DSD_SPECIAL', 'not a regular file');
      return { fd, size: info.size };
    } catch (error) {
      quietly(() => calls.closeSync(fd));
      throw error;
    }
  };

  return {
    mkdir: (path) => attempt('make folder', path, () => makeFolder(path)),

    readFile: (path, limit = Number.POSITIVE_INFINITY) =>
      attempt('read', path, () => {
        const { fd, size } = openFile(path);
        try {
          if (size > limit) throw fault('DSD_LARGE', `it has ${size} bytes, and at most ${limit} are accepted here`);
          return readAt(fd, 0, size);
        } finally {
          quietly(() => calls.closeSync(fd));
        }
      }),

    open: (path) =>
      attempt('read', path, () => {
        const { fd, size } = openFile(path);
        return {
          size,
          read: (position, length) => attempt('read', path, () => readAt(fd, position, length)),
          close: () => attempt('read', path, () => calls.closeSync(fd)),
        };
      }),

    writeFileAtomic: (path, content) =>
      attempt('write', path, () => {
        const target = resolve(path);
        const temporary = temporaryBeside(target);
        makeFile(temporary, content);
        try {
          calls.renameSync(temporary, target);
        } catch (error) {
          quietly(() => calls.unlinkSync(temporary));
          throw error;
        }
        syncFolder(dirname(target));
      }),

    createNew: (path, content) =>
      attempt('write', path, () => {
        try {
          makeFile(path, content);
        } catch (error) {
          if (codeOf(error) === 'EEXIST') return false;
          throw error;
        }
        try {
          syncFolder(dirname(resolve(path)));
        } catch (error) {
          quietly(() => calls.unlinkSync(path));
          throw error;
        }
        return true;
      }),

    writeNew: (path, content) => attempt('write', path, () => makeFile(path, content)),

    append: (path, content) =>
      attempt('write', path, () =>
        withFile(path, 'a', (fd) => {
          const before = calls.fstatSync(fd).size;
          try {
            writeAll(fd, content);
          } catch (error) {
            quietly(() => calls.ftruncateSync(fd, before));
            throw error;
          }
        }),
      ),

    sync: (path) =>
      attempt('write', path, () => {
        const { fd } = openFile(path);
        try {
          calls.fsyncSync(fd);
        } finally {
          quietly(() => calls.closeSync(fd));
        }
      }),

    syncFolder: (path) => attempt('write', path, () => syncFolder(path)),

    rename: (from, to) =>
      attempt('write', to, () => {
        calls.renameSync(from, to);
        syncFolder(dirname(resolve(to)));
      }),

    exists: (path) =>
      attempt('read', path, () => {
        try {
          return calls.statSync(path, { throwIfNoEntry: false }) !== undefined;
        } catch (error) {
          if (codeOf(error) === 'ENOTDIR') return false;
          throw error;
        }
      }),

    checkWritable: (path) => {
      let there = resolve(path);
      while (dirname(there) !== there && attempt('read', there, () => calls.statSync(there, { throwIfNoEntry: false })) === undefined)
        there = dirname(there);
      attempt('write', path, () => calls.accessSync(there, fs.constants.W_OK));
    },

    list: (path) => attempt('read', path, () => calls.readdirSync(path).sort()),

    stat: (path) =>
      attempt('read', path, () => {
        const info = calls.statSync(path);
        return { size: info.size, kind: info.isFile() ? 'file' : info.isDirectory() ? 'folder' : 'other', modified: info.mtimeMs };
      }),

    remove: (path) => attempt('remove', path, () => calls.rmSync(path, { recursive: true, force: true })),
  };
}

/** The real disk. */
export const disk: Disk = openDisk(fs);

/** A new name in the folder of `path`, of the kind that a sweep removes after a crash. */
export function temporaryBeside(path: string): string {
  return join(dirname(resolve(path)), `.dsd-${randomBytes(6).toString('hex')}.tmp`);
}

/** Whether a name is one of `temporaryBeside`. */
export function isTemporary(name: string): boolean {
  return /^\.dsd-[0-9a-f]+\.tmp$/.test(name);
}

/** The chunks of a content, each asked for when the one before is used. */
export function chunksOf(content: Content): Iterable<Uint8Array> {
  if (typeof content === 'string') return [new TextEncoder().encode(content)];
  return content instanceof Uint8Array ? [content] : content;
}

/** For cleaning up after an error, which must not be hidden by a second one. */
function quietly(action: () => void): void {
  try {
    action();
  } catch {
    // the first error is the one to report
  }
}
