/**
 * The disk, seen by everything else: few operations, each all or nothing where it can be, each failing with a message for the user. It is
 * the seam for fault tests: `openDisk` takes the system calls, so a test can fail the Nth one or cut a write short.
 *
 * All operations are synchronous: a training step or a checkpoint has nothing to do meanwhile, and nothing can come between two of them.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { FailureError } from '../core/errors.js';

/** A disk operation failed. `code` is the system's name of the reason ('ENOSPC'), `path` the file concerned. */
export class DiskError extends FailureError {
  constructor(
    message: string,
    readonly code: string,
    readonly path: string,
    cause: unknown,
  ) {
    super(message, { cause });
  }
}

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

/** What a file is written from: text is UTF-8; of several chunks, each is asked for when the one before is written. */
export type Content = string | Uint8Array | Iterable<Uint8Array>;

/** Every method throws DiskError. */
export interface Disk {
  /** Makes a folder and those above it; no error if it exists. */
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
  /** Creates a file with its content, synced, only if nothing is there; false if something is. For locks. */
  createNew(path: string, content: string): boolean;
  /** Adds to the end of a file, made if absent. What was written of a failed append is taken back. Not synced. */
  append(path: string, content: string | Uint8Array): void;
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
        const temporary = join(dirname(target), `.dsd-${randomBytes(6).toString('hex')}.tmp`);
        let made = false;
        try {
          withFile(temporary, 'wx', (fd) => {
            made = true;
            writeAll(fd, content);
            calls.fsyncSync(fd);
          });
          calls.renameSync(temporary, target);
        } catch (error) {
          if (made) quietly(() => calls.unlinkSync(temporary));
          throw error;
        }
        syncFolder(dirname(target));
      }),

    createNew: (path, content) =>
      attempt('write', path, () => {
        let made = false;
        try {
          withFile(path, 'wx', (fd) => {
            made = true;
            writeAll(fd, content);
            calls.fsyncSync(fd);
          });
        } catch (error) {
          if (made) quietly(() => calls.unlinkSync(path));
          else if (codeOf(error) === 'EEXIST') return false;
          throw error;
        }
        syncFolder(dirname(resolve(path)));
        return true;
      }),

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

function chunksOf(content: Content): Iterable<Uint8Array> {
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

/** Our own reasons, beside the system's. */
function fault(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

type Verb = 'read' | 'write' | 'remove' | 'make folder';

/** Runs an operation and turns a system's error into one for the user; errors of other kinds (a bug, or a chunk's maker) pass. */
function attempt<T>(verb: Verb, path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof DiskError) throw error;
    const noMemory = error instanceof RangeError && /allocation failed|array length/i.test(error.message);
    const code = noMemory ? 'ENOMEM' : codeOf(error);
    if (code === undefined) throw error;
    throw new DiskError(`cannot ${verb} ${path}: ${explain(code, verb, path, error as Error)}`, code, path, error);
  }
}

/** What happened and what to do about it. */
function explain(code: string, verb: Verb, path: string, error: Error): string {
  switch (code) {
    case 'ENOSPC':
      return 'the disk is full. Free some space or choose a folder on another disk';
    case 'EDQUOT':
      return 'your disk quota is used up. Remove files of yours or choose a folder on another disk';
    case 'EACCES':
    case 'EPERM':
      return `permission denied. Check the owner and the rights of it and of its folder${verb === 'read' ? '' : ', or choose another path'}`;
    case 'EROFS':
      return 'its file system is read-only. Choose a folder elsewhere';
    case 'ENOENT':
      if (verb === 'make folder') return 'its file system takes no new folders there. Choose another path';
      return verb === 'read'
        ? 'no such file or folder. Check the path'
        : `the folder ${dirname(resolve(path))} does not exist. Make it first or check the path`;
    case 'ENOTDIR':
      return 'a part of this path is a file where a folder is needed. Check the path';
    case 'EISDIR':
      return 'it is a folder, and a file is needed. Check the path';
    case 'EEXIST':
    case 'ENOTEMPTY':
      return 'something else exists there already. Choose another path or move it away';
    case 'EMFILE':
    case 'ENFILE':
      return 'too many files are open. Close other programs, use fewer workers, or raise the limit (`ulimit -n`)';
    case 'EIO':
      return 'the device reported an input/output error. Check the disk and the cable (`dmesg` says more), and copy what still reads';
    case 'ENAMETOOLONG':
      return `the path is too long (its last part has ${basename(path).length} characters). Choose a shorter one`;
    case 'ELOOP':
      return 'symbolic links lead round in a circle. Check the path';
    case 'EFBIG':
      return 'the file would be larger than its file system or your limit (`ulimit -f`) allows';
    case 'ENOMEM':
      return 'there is not enough memory to hold it. Close other programs or use a machine with more';
    case 'ERR_INVALID_ARG_VALUE':
      return 'this is not a path: it holds a zero byte';
    case 'DSD_SPECIAL':
      return 'it is a pipe or a device, and a regular file is needed';
    case 'DSD_SHORT':
      return `${error.message}: the file is cut off, or another program is writing it`;
    case 'DSD_LARGE':
      return `${error.message}. Check that it is the file you meant`;
    default:
      return error.message;
  }
}
