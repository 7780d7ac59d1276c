/**
 * Bundles: folders of files that are whole or absent, for checkpoints. A bundle is written under a temporary name, each file synced, the
 * manifest with sizes and SHA-256 last, and renamed when all of it has reached the device; so under its own name it is whole, and what a
 * crash or a power cut leaves has a name that `sweepBundles` knows. A bundle is taken apart the same way, in the other order.
 */
import { createHash, type Hash } from 'node:crypto';
import { basename, dirname, join, resolve } from 'node:path';
import { FailureError } from '../core/errors.js';
import { type Content, chunksOf, type Disk, DiskError, isTemporary, piecesOf, disk as realDisk, temporaryBeside } from './disk.js';

/** A bundle is not whole: cut off, changed, or no bundle. */
export class BundleError extends FailureError {
  constructor(
    readonly path: string,
    readonly reason: string,
  ) {
    super(`${path} is not whole: ${reason}. Use another one, and remove this one if you do not need to look into it`);
  }
}

interface FileFacts {
  /** Bytes. */
  readonly size: number;
  /** 64 hexadecimal digits. */
  readonly sha256: string;
}

/** What is in a bundle, by the name of the file; the manifest itself is not. */
export interface Manifest {
  readonly files: ReadonlyMap<string, FileFacts>;
}

const MANIFEST = 'manifest.json';
const FORMAT = 'dsd-bundle';
/** A manifest has about 120 bytes for each file. */
const MAX_MANIFEST = 2 ** 20;

/**
 * Writes a bundle; its folder is made if need be. After an error nothing of it is left, unless the last step alone failed, the syncing of
 * the folder that holds it: then it is there and whole, and may be gone after a power cut.
 * @param files by name, which is no path; of several chunks, each is asked for when the one before is written
 * @throws FailureError if something is at `path`; DiskError; RangeError for a wrong name; what the making of a chunk throws
 */
export function writeBundle(path: string, files: ReadonlyMap<string, Content>, disk: Disk = realDisk): void {
  for (const name of files.keys())
    if (!isFileName(name) || name === MANIFEST) throw new RangeError(`writeBundle: ${JSON.stringify(name)} cannot name a file of a bundle`);
  if (disk.exists(path)) throw new FailureError(`cannot write ${path}: it exists, and a bundle is never written over. Choose another path`);
  const temporary = temporaryBeside(path);
  try {
    disk.mkdir(temporary);
    const entries: object[] = [];
    for (const [name, content] of files) {
      const facts = { size: 0, hash: createHash('sha256') };
      disk.writeNew(join(temporary, name), hashed(content, facts));
      entries.push({ name, size: facts.size, sha256: facts.hash.digest('hex') });
    }
    disk.writeNew(join(temporary, MANIFEST), `${JSON.stringify({ format: FORMAT, version: 1, files: entries }, null, 1)}\n`);
    disk.syncFolder(temporary);
    disk.rename(temporary, path);
  } catch (error) {
    try {
      disk.remove(temporary);
    } catch {
      // The first error is the one to report, and the next sweep finds the folder.
    }
    throw error;
  }
}

/** The content, with its size and hash taken while it passes: what is hashed is what is written. */
function* hashed(content: Content, facts: { size: number; readonly hash: Hash }): Generator<Uint8Array> {
  for (const chunk of chunksOf(content)) {
    facts.size += chunk.byteLength;
    facts.hash.update(chunk);
    yield chunk;
  }
}

/**
 * Reads the manifest and compares the files' names and sizes with it; no contents are read.
 * @throws BundleError if the bundle is not whole as far as that tells; DiskError
 */
export function readManifest(path: string, disk: Disk = realDisk): Manifest {
  const fail = (reason: string): never => {
    throw new BundleError(path, reason);
  };
  if (!disk.exists(path)) fail('it does not exist');
  if (disk.stat(path).kind !== 'folder') fail('it is not a folder');
  const names = new Set(disk.list(path));
  if (!names.delete(MANIFEST)) fail(`it has no ${MANIFEST}`);
  const files = parseManifest(readText(join(path, MANIFEST), disk, fail), fail);
  for (const [name, { size }] of files) {
    if (!names.delete(name)) fail(`${name} is missing`);
    const found = disk.stat(join(path, name));
    if (found.kind !== 'file') fail(`${name} is not a file`);
    if (found.size !== size) fail(`${name} has ${found.size} bytes and should have ${size}`);
  }
  for (const name of names) fail(`${name} does not belong to it`);
  return { files };
}

/** Folders and files too large are no manifests; what the device cannot read may well be one. */
function readText(path: string, disk: Disk, fail: (reason: string) => never): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(disk.readFile(path, MAX_MANIFEST));
  } catch (error) {
    const unreadable =
      error instanceof TypeError || (error instanceof DiskError && ['EISDIR', 'DSD_LARGE', 'DSD_SPECIAL'].includes(error.code));
    if (!unreadable) throw error;
    return fail(`${MANIFEST} is not a manifest`);
  }
}

function parseManifest(text: string, fail: (reason: string) => never): Map<string, FileFacts> {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch {
    fail(`${MANIFEST} is not valid JSON`);
  }
  if (!isRecord(root) || root.format !== FORMAT || !Array.isArray(root.files)) return fail(`${MANIFEST} is not a manifest`);
  if (root.version !== 1) fail(`${MANIFEST} has version ${JSON.stringify(root.version)}, and this program knows version 1`);
  const files = new Map<string, FileFacts>();
  for (const entry of root.files as unknown[]) {
    if (!isRecord(entry)) return fail(`${MANIFEST} is not a manifest`);
    const { name, size, sha256 } = entry;
    const plain = typeof name === 'string' && isFileName(name) && name !== MANIFEST && !files.has(name);
    if (!plain || !Number.isSafeInteger(size) || (size as number) < 0 || typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256))
      return fail(`${MANIFEST} has a wrong entry: ${JSON.stringify(entry).slice(0, 200)}`);
    files.set(name, { size: size as number, sha256 });
  }
  return files;
}

/**
 * Reads every byte of a bundle and compares it with the manifest, 16 MiB at a time.
 * @param onProgress after each piece: bytes read, and bytes in all
 * @throws BundleError if the bundle is not whole; DiskError
 */
export function verifyBundle(path: string, disk: Disk = realDisk, onProgress?: (bytes: number, of: number) => void): Manifest {
  const manifest = readManifest(path, disk);
  let of = 0;
  for (const { size } of manifest.files.values()) of += size;
  let bytes = 0;
  for (const [name, { size, sha256 }] of manifest.files) {
    const hash = createHash('sha256');
    const file = disk.open(join(path, name));
    try {
      for (const piece of piecesOf(file, size)) {
        hash.update(piece);
        bytes += piece.byteLength;
        onProgress?.(bytes, of);
      }
    } finally {
      file.close();
    }
    if (hash.digest('hex') !== sha256) throw new BundleError(path, `the content of ${name} is not what was written`);
  }
  return manifest;
}

/** Removes a bundle, which loses its name first, so that none is ever half removed; no error if absent. @throws DiskError */
export function discardBundle(path: string, disk: Disk = realDisk): void {
  if (!disk.exists(path)) return;
  // A newer bundle may stand beside it whose rename was not synced, since its writer was killed: it must be on the device before this one goes.
  disk.syncFolder(dirname(resolve(path)));
  const temporary = temporaryBeside(path);
  disk.rename(path, temporary);
  disk.remove(temporary);
}

/**
 * Removes what writers and removers left in a folder when they were killed. Only for the one writer of that folder, when it is not writing.
 * @returns the names of what was removed; none if there is no such folder
 * @throws DiskError
 */
export function sweepBundles(parent: string, disk: Disk = realDisk): string[] {
  if (!disk.exists(parent)) return [];
  const left = disk.list(parent).filter(isTemporary);
  for (const name of left) disk.remove(join(parent, name));
  return left;
}

/** A name in a folder, not a path. */
function isFileName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !name.includes('\0') && basename(name) === name && !name.includes('\\');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
