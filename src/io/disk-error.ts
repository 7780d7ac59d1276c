/** Errors of the disk, in words for the user: what failed, why, what to do. */
import { basename, dirname, resolve } from 'node:path';
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

/** Our own reasons, beside the system's. */
export function fault(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

type Verb = 'read' | 'write' | 'remove' | 'make folder';

/** Runs an operation and turns a system's error into one for the user; errors of other kinds (a bug, or a chunk's maker) pass. */
export function attempt<T>(verb: Verb, path: string, action: () => T): T {
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
