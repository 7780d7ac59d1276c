/** Results on stdout, and the rule for files that commands make: nothing is written over unless the user says so. */
import { extname, join } from 'node:path';
import { UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import type { Flags } from './args.js';
import { plain } from './text.js';

/** Lines for people. */
export function print(...lines: readonly string[]): void {
  process.stdout.write(lines.map((line) => `${plain(line)}\n`).join(''));
}

/** One document for programs; what is not a finite number is null. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** Flags of commands that print a result and say on stderr how far they are. */
export const RESULT = {
  quiet: { kind: 'switch', about: 'no progress on stderr' },
  json: { kind: 'switch', about: 'print the result as JSON' },
} as const satisfies Flags;

export const OVERWRITE = { kind: 'switch', about: 'replace what is there already' } as const;

/**
 * NAME.EXT, or NAME-2.EXT, ...: the first that is free.
 * @param isFree whether it is, where more than that one file comes of it
 */
export function freePath(name: string, extension: string, isFree: (path: string) => boolean = (path) => !disk.exists(path)): string {
  for (let n = 1; ; n++) {
    const path = `${n === 1 ? name : `${name}-${n}`}${extension}`;
    if (isFree(path)) return path;
  }
}

/**
 * Checks, before any work, that a file can be made there.
 * @param flag that names it
 * @throws UsageError when something is there and may not be replaced, or its folder is not there; DiskError when that may not be written to
 */
export function checkFile(path: string, overwrite: boolean, flag = '--out'): void {
  if (disk.exists(path)) {
    if (disk.stat(path).kind === 'folder') throw new UsageError(`'${path}' is a folder, and a file is to be written: add a file name`);
    if (!overwrite) throw new UsageError(`'${path}' exists: choose another ${flag}, or add --overwrite`);
  }
  const folder = join(path, '..');
  if (!disk.exists(folder)) throw new UsageError(`there is no folder '${folder}' to write '${path}' into: make it first`);
  disk.checkWritable(disk.exists(path) ? folder : path);
}

/** As checkFile, for a PNG. @throws UsageError also for another extension */
export function checkPng(path: string, overwrite: boolean, flag = '--out'): void {
  checkPngName(path, flag);
  checkFile(path, overwrite, flag);
}

/** @throws UsageError */
export function checkPngName(path: string, flag: string): void {
  if (extname(path).toLowerCase() !== '.png') throw new UsageError(`a PNG file is written, so ${flag} must end in .png; found '${path}'`);
}
