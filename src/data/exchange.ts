/**
 * A file without a name through which processes hand each other pixels. Node has no memory that several processes see, and a pipe would cost the main thread
 * a copy in pieces of 64 KiB; this costs one, made in a thread of libuv's, from pages that stay in memory.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readv, statfsSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Where memory is a disk, and where files are for a while. */
const FOLDERS: readonly string[] = ['/dev/shm', tmpdir()];
/** Bytes that are left to others there: a container's /dev/shm, of 64 MiB where nothing else was asked for, is for all of its processes. */
const RESERVE = 2 ** 23;

export interface Part {
  readonly into: Uint8Array;
  readonly position: number;
}

export class Exchange {
  /** To be inherited by the processes that write; undefined if there is nowhere for it. */
  readonly fd: number | undefined;
  readonly #reads = new Set<Promise<void>>();
  #closed = false;

  /**
   * @param bytes that will be in it at a time
   * @param folders where it may be: the first that has room for it
   */
  constructor(bytes: number, folders: readonly string[] = FOLDERS) {
    this.fd = openNameless(bytes, folders);
  }

  /** Reads what has been written; parts that follow each other in the file in one go. @throws Error of the system, or that nothing is there */
  async read(parts: readonly Part[]): Promise<void> {
    const runs: { position: number; end: number; into: Uint8Array[] }[] = [];
    for (const { into, position } of parts) {
      const last = runs.at(-1);
      const run = last?.end === position ? last : { position, end: position, into: [] };
      if (run !== last) runs.push(run);
      run.into.push(into);
      run.end += into.length;
    }
    const reading = Promise.all(runs.map((run) => this.#readRun(run.into, run.position, run.end - run.position)));
    const ended = reading.then(
      () => {},
      () => {},
    );
    this.#reads.add(ended);
    await reading.finally(() => this.#reads.delete(ended));
  }

  #readRun(into: readonly Uint8Array[], position: number, bytes: number): Promise<void> {
    const { fd } = this;
    if (fd === undefined || this.#closed) return Promise.reject(new Error('there is no file'));
    return new Promise((resolve, reject) => {
      readv(fd, into, position, (error, got) => {
        if (error) reject(error);
        else if (got !== bytes) reject(new Error(`${got} bytes were found where ${bytes} were expected`));
        else resolve();
      });
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all(this.#reads);
    if (this.fd !== undefined) closeSync(this.fd);
  }
}

function openNameless(bytes: number, folders: readonly string[]): number | undefined {
  for (const folder of folders)
    try {
      const { bavail, bsize } = statfsSync(folder);
      if (bavail * bsize < bytes + RESERVE) continue;
      const path = join(folder, `dsd-${randomBytes(8).toString('hex')}`);
      const fd = openSync(path, 'wx+', 0o600);
      if (removeName(path, fd)) return fd;
    } catch {
      // Not there, or not ours to write to.
    }
  return undefined;
}

/** Without a name a file is gone with the last process that has it open, whatever ends that. One that keeps its name would stay, so it is not used: false. */
function removeName(path: string, fd: number): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch {
    closeSync(fd); // some file systems remove only what nobody has open
  }
  try {
    unlinkSync(path);
  } catch (error) {
    process.emitWarning(`${path} (a file for pixels, empty) cannot be removed: ${(error as Error).message}. Remove it by hand`);
  }
  return false;
}
