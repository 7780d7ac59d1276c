/**
 * A simulated disk for tests of faults: a file system in memory that fails at a chosen call, and that loses at a power cut whatever was not
 * synced, as badly as a disk without a journal may: content is safe after an fsync of its file, a name after an fsync of its folder, and
 * nothing before. What is not safe is lost, kept, cut off or garbled, each piece for itself.
 *
 * It knows the calls and flags that `openDisk` uses, and no links, rights or working folder.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { isAbsolute, join, normalize } from 'node:path';
import { type Calls, type Disk, openDisk } from '../../src/io/disk.js';
import { type Change, change, type Entry, type Folder, newFolder, Tree } from './power-tree.js';

/** No call of the system fails with this: it stands for the end of the process, at a power cut or by SIGKILL. */
export class Ended extends Error {}

export type FaultKind =
  /** One call says that the disk is full; a write then has written half. */
  | 'ENOSPC'
  /** One call says that the device failed. */
  | 'EIO'
  /** This call and all later ones do; a write has written half. */
  | 'EIO for good'
  /** The process ends before the call. */
  | 'end';

interface Descriptor {
  readonly entry: Entry;
  readonly writable: boolean;
  /** Undefined: at the end, wherever that is. */
  position: number | undefined;
}

export class PowerDisk {
  /** The names of the calls made so far. */
  readonly log: string[] = [];
  private tree = new Tree();
  private descriptors = new Map<number, Descriptor>();
  private fault: { readonly at: number; readonly kind: FaultKind } | undefined;

  readonly calls: Calls = this.makeCalls();
  readonly disk: Disk = openDisk(this.calls);

  /** The `n`th call from now on, counted from 1, fails. */
  failAt(n: number, kind: FaultKind): void {
    this.fault = { at: this.log.length + n, kind };
  }

  /** Whether the call that should fail was made. */
  get failed(): boolean {
    return this.fault !== undefined && this.log.length >= this.fault.at;
  }

  /** Files that the process has open. */
  get open(): number {
    return this.descriptors.size;
  }

  /** All calls work again; what the process had open is closed. What was not synced still is not. */
  restart(): void {
    this.fault = undefined;
    this.descriptors = new Map();
  }

  /** The power goes and comes back, and the machine starts; all files are an hour older. @param seed as of Tree.powerLoss */
  powerLoss(seed: number): void {
    this.tree.powerLoss(seed);
    this.restart();
  }

  /** A copy with a life of its own, without open files. */
  clone(): PowerDisk {
    const other = new PowerDisk();
    other.tree = this.tree.clone();
    return other;
  }

  /** Counts a call, and fails it if it is its turn. */
  private enter(name: string): void {
    this.log.push(name);
    if (!this.fault || this.log.length < this.fault.at) return;
    const { at, kind } = this.fault;
    if (kind === 'end') throw new Ended('the process has ended');
    if (this.log.length === at || kind === 'EIO for good') throw systemError(kind === 'ENOSPC' ? 'ENOSPC' : 'EIO');
  }

  private parent(path: string): { folder: Folder; name: string } {
    assert.ok(isAbsolute(path), `the simulated disk knows no working folder: ${path}`);
    const parts = normalize(path).split('/').filter(Boolean);
    const name = parts.pop() ?? '';
    let folder = this.tree.root;
    for (const part of parts) {
      const next = folder.entries.get(part);
      if (!next) throw systemError('ENOENT');
      if (next.kind !== 'folder') throw systemError('ENOTDIR');
      folder = next;
    }
    return { folder, name };
  }

  private get(path: string): Entry {
    const { folder, name } = this.parent(path);
    return (name === '' ? folder : folder.entries.get(name)) ?? raise('ENOENT');
  }

  private find(path: string): Entry | undefined {
    try {
      return this.get(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  private descriptor(fd: number): Descriptor {
    return this.descriptors.get(fd) ?? raise('EBADF');
  }

  private openPath(path: string, flags: string | number): number {
    const { folder, name } = this.parent(path);
    let entry = name === '' ? folder : folder.entries.get(name);
    if (typeof flags === 'number') {
      const { O_DIRECTORY, O_NONBLOCK } = fs.constants;
      assert.equal(flags & ~(O_DIRECTORY | O_NONBLOCK), fs.constants.O_RDONLY, 'the simulated disk knows no such flags');
      if (!entry) throw systemError('ENOENT');
      if (flags & O_DIRECTORY && entry.kind !== 'folder') throw systemError('ENOTDIR');
    } else {
      assert.ok(flags === 'wx' || flags === 'a', `the simulated disk does not know the flags '${flags}'`);
      if (entry && flags === 'wx') throw systemError('EEXIST');
      if (entry?.kind === 'folder') throw systemError('EISDIR');
      if (!entry) {
        entry = { kind: 'file', content: new Uint8Array(0), durable: new Uint8Array(0), dirtyFrom: 0, modified: Date.now() };
        change(folder, { add: [name, entry], kept: false });
      }
    }
    let fd = 3;
    while (this.descriptors.has(fd)) fd++;
    this.descriptors.set(fd, { entry, writable: typeof flags === 'string', position: flags === 'a' ? undefined : 0 });
    return fd;
  }

  private write(fd: number, bytes: Uint8Array): number {
    const descriptor = this.descriptor(fd);
    const { entry, writable } = descriptor;
    if (entry.kind !== 'file' || !writable) throw systemError('EBADF');
    const at = descriptor.position ?? entry.content.length;
    const content = new Uint8Array(Math.max(entry.content.length, at + bytes.length));
    content.set(entry.content);
    content.set(bytes, at);
    entry.content = content;
    entry.dirtyFrom = Math.min(entry.dirtyFrom, at);
    entry.modified = Date.now();
    if (descriptor.position !== undefined) descriptor.position += bytes.length;
    return bytes.length;
  }

  private rename(from: string, to: string): void {
    const source = this.parent(from);
    const target = this.parent(to);
    const entry = source.folder.entries.get(source.name) ?? raise('ENOENT');
    const replaced = target.folder.entries.get(target.name);
    if (`${normalize(to)}/`.startsWith(`${normalize(from)}/`)) {
      if (replaced === entry) return;
      throw systemError('EINVAL');
    }
    if (`${normalize(from)}/`.startsWith(`${normalize(to)}/`)) throw systemError('ENOTEMPTY');
    if (replaced?.kind === 'folder') {
      if (entry.kind !== 'folder') throw systemError('EISDIR');
      if (replaced.entries.size > 0) throw systemError('ENOTEMPTY');
    } else if (replaced && entry.kind === 'folder') throw systemError('ENOTDIR');
    if (source.folder === target.folder) {
      change(source.folder, { remove: [source.name, entry], add: [target.name, entry], kept: false });
      return;
    }
    const arrival: Change = { add: [target.name, entry], kept: false };
    change(target.folder, arrival);
    change(source.folder, { remove: [source.name, entry], after: arrival, kept: false });
  }

  private unlink(path: string, kind: Entry['kind']): void {
    const { folder, name } = this.parent(path);
    const entry = folder.entries.get(name) ?? raise('ENOENT');
    if (entry.kind !== kind) throw systemError(kind === 'file' ? 'EISDIR' : 'ENOTDIR');
    if (entry.kind === 'folder' && entry.entries.size > 0) throw systemError('ENOTEMPTY');
    change(folder, { remove: [name, entry], kept: false });
  }

  /** As Node does it: a call for each thing removed. */
  private removeTree(path: string): void {
    this.enter('rmSync');
    const entry = this.find(path);
    if (entry?.kind === 'folder') for (const name of [...entry.entries.keys()]) this.removeTree(join(path, name));
    if (entry) this.unlink(path, entry.kind);
  }

  private makeCalls(): Calls {
    const counted = <A extends unknown[], R>(name: string, call: (...args: A) => R): ((...args: A) => R) => {
      return (...args) => {
        this.enter(name);
        return call(...args);
      };
    };
    const calls = {
      accessSync: counted('accessSync', (path: string) => void this.get(path)),
      fstatSync: counted('fstatSync', (fd: number) => statOf(this.descriptor(fd).entry)),
      fsyncSync: counted('fsyncSync', (fd: number) => this.tree.sync(this.descriptor(fd).entry)),
      ftruncateSync: counted('ftruncateSync', (fd: number, length: number) => {
        const { entry } = this.descriptor(fd);
        if (entry.kind !== 'file') throw systemError('EINVAL');
        assert.ok(length <= entry.content.length, 'the simulated disk does not make files longer');
        entry.content = entry.content.slice(0, length);
        entry.dirtyFrom = Math.min(entry.dirtyFrom, length);
      }),
      mkdirSync: counted('mkdirSync', (path: string) => {
        const { folder, name } = this.parent(path);
        if (name === '' || folder.entries.has(name)) throw systemError('EEXIST');
        change(folder, { add: [name, newFolder()], kept: false });
      }),
      openSync: counted('openSync', (path: string, flags: string | number) => this.openPath(path, flags)),
      readSync: counted('readSync', (fd: number, bytes: Uint8Array, offset: number, length: number, position: number) => {
        const { entry } = this.descriptor(fd);
        if (entry.kind !== 'file') throw systemError('EISDIR');
        const piece = entry.content.subarray(position, position + length);
        bytes.set(piece, offset);
        return piece.length;
      }),
      readdirSync: counted('readdirSync', (path: string) => {
        const entry = this.get(path);
        return entry.kind === 'folder' ? [...entry.entries.keys()] : raise('ENOTDIR');
      }),
      renameSync: counted('renameSync', (from: string, to: string) => this.rename(from, to)),
      rmSync: (path: string, options: fs.RmOptions) => {
        assert.ok(options.recursive && options.force, 'the simulated disk removes trees only');
        this.removeTree(path);
      },
      statSync: counted('statSync', (path: string, options?: { throwIfNoEntry?: boolean }) => {
        const entry = this.find(path);
        return entry ? statOf(entry) : options?.throwIfNoEntry === false ? undefined : raise('ENOENT');
      }),
      unlinkSync: counted('unlinkSync', (path: string) => this.unlink(path, 'file')),
      closeSync: (fd: number) => {
        // One that fails closes all the same.
        this.descriptor(fd);
        this.descriptors.delete(fd);
        this.enter('closeSync');
      },
      writeSync: (fd: number, bytes: Uint8Array, offset: number, length: number) => {
        const piece = bytes.subarray(offset, offset + length);
        try {
          this.enter('writeSync');
        } catch (error) {
          if (this.fault?.kind === 'ENOSPC' || this.fault?.kind === 'EIO for good') this.write(fd, piece.subarray(0, length >> 1));
          throw error;
        }
        return this.write(fd, piece);
      },
    };
    return calls as unknown as Calls;
  }
}

function statOf(entry: Entry): object {
  const size = entry.kind === 'file' ? entry.content.length : 0;
  return { size, mtimeMs: entry.modified, isFile: () => entry.kind === 'file', isDirectory: () => entry.kind === 'folder' };
}

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: as the simulated disk says`), { code });
}

function raise(code: string): never {
  throw systemError(code);
}
