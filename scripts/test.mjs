/**
 * `npm test`: set-up (which type-checks), style, then every test/**\/*.test.ts by Node's own runner. Arguments keep the test files whose
 * path contains one of them: `npm test -- io/disk random`.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, sep } from 'node:path';
import { run as runTests } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const started = performance.now();
const filters = process.argv.slice(2);

/** Runs a program of Node; ends this one with its status if it fails. */
function run(...args) {
  const { status, signal } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) finish(status ?? (signal === 'SIGINT' ? 130 : 1));
}

function finish(status) {
  console.log(`npm test: ${status === 0 ? 'passed' : 'FAILED'} after ${((performance.now() - started) / 1000).toFixed(1)} s`);
  process.exit(status);
}

run(join('scripts', 'setup.mjs'));
run(join('node_modules', '@biomejs', 'biome', 'bin', 'biome'), 'check', '--error-on-warnings');

// An explicit list: what `node --test` makes of a folder or a pattern differs between Node's versions.
const files = readdirSync(join(root, 'test'), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.name.endsWith('.test.ts'))
  .map((entry) =>
    relative(root, join(entry.parentPath ?? entry.path, entry.name))
      .split(sep)
      .join('/'),
  )
  .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)))
  .sort();
if (files.length === 0) {
  console.error(`no test file has ${filters.join(' or ')} in its path`);
  finish(2);
}
// As many files at a time as there are cores: the command line's default is one fewer, which on two cores leaves one idle.
process.env.NODE_OPTIONS = [process.env.NODE_OPTIONS, '--enable-source-maps'].filter(Boolean).join(' ');
const tests = runTests({
  files: files.map((path) => join(root, 'dist', path.replace(/\.ts$/, '.js'))),
  concurrency: availableParallelism(),
});
let failed = false;
tests.on('test:fail', ({ todo }) => {
  failed ||= todo === undefined || todo === false;
});
tests.on('end', () => setImmediate(() => finish(failed ? 1 : 0)));
tests.compose(spec).pipe(process.stdout);
