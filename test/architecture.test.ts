import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join, posix, relative, sep } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** From top to bottom: a room imports from those below it. */
const ROOMS = ['cli', 'studio', 'study', 'train', 'eval', 'export', 'dsd', 'nn', 'torch', 'data', 'io', 'core'];
const LONGEST = 400;
const root = fileURLToPath(new URL('../..', import.meta.url)); // from dist/test

interface Import {
  readonly target: string;
  /** Erased by the compiler: costs nothing when the program runs. */
  readonly typeOnly: boolean;
}

/** What a file of TypeScript imports: also by `export from`, by `import()`, and as a worker's address. */
function importsOf(text: string): Import[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const found: Import[] = [];
  for (const [, type, target] of code.matchAll(/^\s*(?:import|export)\s+(type\s)?[^;'"]*?\bfrom\s*['"]([^'"]+)['"]/gm))
    found.push({ target: target!, typeOnly: type !== undefined });
  for (const [, target] of code.matchAll(/^\s*import\s*['"]([^'"]+)['"]/gm)) found.push({ target: target!, typeOnly: false });
  for (const [, target] of code.matchAll(/\bimport\(\s*['"]([^'"]+)['"]/g)) found.push({ target: target!, typeOnly: false });
  for (const [, target] of code.matchAll(/\bnew URL\(\s*['"]([^'"]+\.js)['"],\s*import\.meta\.url/g))
    found.push({ target: target!, typeOnly: false });
  return found;
}

/** Files under a folder of the repository, as paths from its root with slashes. */
function filesUnder(folder: string, pattern: RegExp): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => pattern.test(path))
    .map((path) => posix.join(folder, relative('.', path).split(sep).join('/')))
    .sort();
}

const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const sources = new Map(filesUnder('src', /\.c?ts$/).map((path) => [path, read(path)]));
const roomOf = (path: string): string => path.split('/')[1] ?? '';
/** The source that a relative import means. */
const resolved = (from: string, target: string): string => posix.join(posix.dirname(from), target).replace(/\.js$/, '.ts');

test('the reading of imports misses none of their forms', () => {
  const text = `
    import a, { type B } from './a.js';
    import type { C } from '../c.js';
    import {
      d,
    } from "d";
    export { e } from './e.js';
    export type * from './f.js';
    import './g.js';
    // import './comment.js';
    /* import './comment.js'; */
    const h = await import('./h.js');
    new Worker(new URL('./i.js', import.meta.url));
    const from = 'from';
  `;
  assert.deepEqual(
    importsOf(text)
      .map(({ target, typeOnly }) => `${target}${typeOnly ? ' (type)' : ''}`)
      .sort(),
    ['../c.js (type)', './a.js', './e.js', './f.js (type)', './g.js', './h.js', './i.js', 'd'],
  );
});

test('every source is in a room, and imports only from its own room and those below', () => {
  assert.ok(sources.size > 0);
  const wrong: string[] = [];
  for (const [path, text] of sources) {
    const from = ROOMS.indexOf(roomOf(path));
    if (from < 0 || path.split('/').length < 3) wrong.push(`${path} is in no room`);
    for (const { target } of importsOf(text)) {
      if (!target.startsWith('.')) continue;
      const file = resolved(path, target);
      if (!sources.has(file)) wrong.push(`${path} imports ${target}, which is no source`);
      const to = ROOMS.indexOf(roomOf(file));
      if (to < from) wrong.push(`${path} imports upwards: ${target}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('packages are those of package.json, Node is imported as node:, and core imports nothing', () => {
  const manifest = JSON.parse(read('package.json')) as { dependencies: Record<string, string> };
  const packages = new Set(Object.keys(manifest.dependencies));
  const wrong: string[] = [];
  for (const [path, text] of sources) {
    for (const { target, typeOnly } of importsOf(text)) {
      if (target.startsWith('.')) continue;
      const name = target
        .split('/')
        .slice(0, target.startsWith('@') ? 2 : 1)
        .join('/');
      const known = target.startsWith('node:') ? builtinModules.includes(target.slice(5)) : typeOnly || packages.has(name);
      if (!known) wrong.push(`${path} imports ${target}`);
      if (roomOf(path) === 'core') wrong.push(`${path} imports ${target}, and core imports nothing`);
    }
  }
  assert.deepEqual(wrong, []);
});

test("only torch loads libtorch's addon, and only data's resizer that of pictures", () => {
  const loads = /\bdlopen\b|dsd_native|\.node['"`]/;
  const loaders = [...sources].filter(([, text]) => loads.test(text)).map(([path]) => path);
  assert.deepEqual(
    loaders.filter((path) => roomOf(path) !== 'torch'),
    ['src/data/resizer.ts'],
  );
  assert.match(sources.get('src/data/resizer.ts')!, /dsd_pictures\.node/);
  assert.doesNotMatch(sources.get('src/data/resizer.ts')!, /dsd_native/);
});

test('the sampler runs in a browser: it and all it imports lie in src/dsd and need no engine', () => {
  const start = 'src/dsd/sampler.ts';
  if (!sources.has(start)) return assert.ok(!existsSync(join(root, 'src/dsd')), `${start} is not where this test looks`);
  const reached = new Set([start]);
  for (const path of reached) {
    for (const { target, typeOnly } of importsOf(sources.get(path)!)) {
      assert.ok(target.startsWith('./'), `${path} imports ${target}`);
      if (!typeOnly) reached.add(resolved(path, target));
    }
  }
});

test(`no file is longer than ${LONGEST} lines: it would be two things`, () => {
  const files = [...sources.keys(), ...filesUnder('native', /\.(cc|cpp|h|hpp|cu|cuh)$/), ...filesUnder('scripts', /\.mjs$/)];
  const long = files.map((path) => [path, read(path).trimEnd().split('\n').length] as const).filter(([, lines]) => lines > LONGEST);
  assert.deepEqual(long, []);
});
