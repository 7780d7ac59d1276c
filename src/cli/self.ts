/** What this program knows of itself: where it is installed, its version, and how the user called it. */
import { readFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The nearest folder above this file with a package.json: it is at another height from src/ and from dist/. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    try {
      readFileSync(join(folder, 'package.json'));
      return folder;
    } catch (error) {
      if (dirname(folder) === folder) throw error;
      folder = dirname(folder);
    }
  }
}

export function version(): string {
  return (JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string }).version;
}

/**
 * How to call this program again, as it was called this time: `npx dsd` out of a package's own programs, which no shell finds by themselves;
 * `dsd` when it is installed; else by its file.
 */
export function invocation(script = process.argv[1] ?? 'dsd', folder = process.cwd()): string {
  if (/[\\/]node_modules[\\/]\.bin[\\/]dsd$/.test(script)) return 'npx dsd';
  if (basename(script) === 'dsd') return 'dsd';
  const path = relative(folder, script);
  return `node ${quoted(path.startsWith('..') ? script : path)}`;
}

/** What help writes before a command's name: short, and what a shell finds where we know how it finds us. */
export const programName = (): string => (invocation() === 'npx dsd' ? 'npx dsd' : 'dsd');

/** A word as a shell takes it. */
export const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

/** The oldest Node that package.json allows: major, minor. */
export function requiredNode(): [number, number] {
  const { engines } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { engines: { node: string } };
  const [major = 0, minor = 0] = engines.node.replace(/^\D+/, '').split('.').map(Number);
  return [major, minor];
}
